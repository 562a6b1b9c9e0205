"""The evaluation that a configuration describes: one call, one set of settings, for a run and for `concise-rl eval`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from concise_rl.commands import config as configuration
from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.methods.registry import RECIPES
from concise_rl.verifiers import Verifier

if TYPE_CHECKING:
    from concise_rl.evaluation import Evaluation, Mode
    from concise_rl.evaluation.judge import Progress
    from concise_rl.methods.contracts import Edit

LIMIT_OVERRIDES = ("evaluation.max_new_tokens", "trainer.max_completion_length")
EFFECTIVE_TRAINER_FIELDS = ("max_completion_length", "chat_template_kwargs")
"""What `concise-rl eval` takes of `trainer.*`; all else is of training and would change nothing."""

SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
"""Fields of a config.json that tell the embedded model and what was trained from it."""


def evaluate(
    config: DictConfig,
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    verifier: Verifier,
    *,
    mode: Mode | None = None,
    edit: Edit | None = None,
    store: Path | None = None,
    keep_token_ids: bool = False,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a model, or a back end, with all settings of the configuration.

    Raises:
        UserError: see `settings_of` and `concise_rl.evaluation.evaluate`.
    """
    from concise_rl.evaluation import Mode
    from concise_rl.evaluation import evaluate as evaluate_prompts

    return evaluate_prompts(
        model,
        tokenizer,
        prompts,
        verifier,
        **settings_of(config),
        mode=mode or Mode(),
        edit=edit,
        store=store,
        keep_token_ids=keep_token_ids,
        on_progress=on_progress,
    )


def settings_of(config: DictConfig) -> dict[str, Any]:
    """The keyword arguments of `concise_rl.evaluation.evaluate` that a configuration decides, checked.

    Raises:
        UserError: no limit of tokens, or a setting out of its range.
    """
    from concise_rl.evaluation.backends import Sampling

    options = config.evaluation
    if options.max_new_tokens is None:
        raise UserError(
            "evaluation.max_new_tokens is not set: give the most tokens that a completion may take, "
            "evaluation.max_new_tokens=N, or a model recipe that has a limit, such as model=qwen3_0.6b"
        )
    sampling = Sampling(
        options.max_new_tokens, options.temperature, options.top_p, config.model.think_end, options.top_k, options.min_p
    )
    if options.samples < 1:
        raise UserError(f"evaluation.samples={options.samples}: each prompt needs one completion or more")
    if config.verify_deadline_seconds <= 0:
        raise UserError(f"verify_deadline_seconds={config.verify_deadline_seconds}: give a positive number of seconds")
    template = options.chat_template_kwargs
    return vars(sampling) | {
        "system": config.system_prompt,
        "samples": options.samples,
        "seed": options.seed,
        "chat_template_kwargs": OmegaConf.to_container(template, resolve=True) if template else None,
        "verify_deadline_seconds": config.verify_deadline_seconds,
    }


def check_eval(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse what `eval` and `sample` would ignore, or measure otherwise than they say; before a model is loaded.

    Args:
        config: as composed.
        overrides: of the command line.

    Raises:
        UserError: a field of training, no limit of tokens that is the model's, a budget above the limit, or an edit
            that cannot be built.
    """
    from concise_rl.evaluation.efforts import effort_levels

    named = [item.lstrip("+~").partition("=")[0] for item in overrides]
    for name in named:
        field = name.removeprefix("trainer.").partition(".")[0]
        if name.startswith("trainer.") and field not in EFFECTIVE_TRAINER_FIELDS:
            raise UserError(
                f"{name} has no effect in an evaluation{configuration.closest(field, EFFECTIVE_TRAINER_FIELDS)}; "
                "how completions are drawn is set by evaluation.*, such as evaluation.temperature"
            )
    if not set(named) & set(LIMIT_OVERRIDES) and _recipe_is_embedded(config) and not is_embedded(config):
        model = config.backend.model if config.backend.name == "http" else config.model.path
        raise UserError(
            f"evaluation.max_new_tokens is not set: the limit of model={config.model.name} is not that of {model}; "
            "give evaluation.max_new_tokens=N, or the recipe of your model, such as model=qwen3_0.6b"
        )
    configuration.edit_of(config)
    effort_levels(list(config.get("sweep", {}).get("efforts", [])))
    limit = settings_of(config)["max_new_tokens"]
    budgets = {
        "sweep.budgets": list(config.get("sweep", {}).get("budgets", [])),
        "mode.budget": [config.mode.budget or 0],
    }
    for name, values in budgets.items():
        if max(values, default=0) > limit:
            raise UserError(
                f"{name}={max(values)} is above evaluation.max_new_tokens={limit}, which no completion reaches: "
                "lower the budget or raise the limit"
            )


def is_embedded(config: DictConfig) -> bool:
    """Whether what is evaluated is the embedded model, or a folder of its shape: trained from it, or warmed up anew."""
    from concise_rl.model.loading import EMBEDDED

    path = str(Path(config.model.path).expanduser())
    if path in EMBEDDED:
        return config.backend.name != "http"  # where the recipe only stands in for a tokenizer that nobody needs
    ours = _json(Path(next(iter(EMBEDDED.values()))) / "config.json")
    base = _json(Path(path) / "adapter_config.json").get("base_model_name_or_path")
    theirs = _json(Path(EMBEDDED.get(str(base), str(base)) if base else path) / "config.json")
    return all(theirs.get(key) == ours[key] for key in SHAPE)


def _recipe_is_embedded(config: DictConfig) -> bool:
    from concise_rl.model.loading import EMBEDDED

    name: Any = OmegaConf.to_container(config.model)  # as it stands: `hf` asks Hydra for its own name
    recipe = RECIPES / "model" / f"{name['name']}.yaml"
    return recipe.is_file() and OmegaConf.load(recipe).model.path in EMBEDDED


def _json(path: Path) -> Mapping[str, Any]:
    """A file that may not be there, or no JSON: what is wrong with it is said by whoever loads the model."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
