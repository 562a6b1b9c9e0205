"""A run that cannot teach says so before it loads a model: fields that would be found late, data that do not fit."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from concise_rl.batch import COLUMN_PREFIX, PART_PREFIX, RolloutBatch
from concise_rl.data import Prompt, render
from concise_rl.data.templates import apply_template, token_ids
from concise_rl.errors import DataError, UserError
from concise_rl.methods.contracts import Transform
from concise_rl.methods.method import Method
from concise_rl.methods.recipes import entries_of, read_recipe
from concise_rl.methods.registry import method_names
from concise_rl.reporting.tracking import BACKENDS
from concise_rl.rollouts import TokenVocabulary, single_token

_TRACKERS = ("clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "neptune", "swanlab")
"""Of transformers, which `tracking=` does not know."""


def check_trainer_fields(fields: Mapping[str, Any]) -> None:
    """Refuse fields of `trl.GRPOConfig` that a run here has another way for, or whose needs are not met.

    Raises:
        UserError: the first such field, with what to set instead.
    """
    elsewhere = {
        "output_dir": "the run folder is run.dir",
        "resume_from_checkpoint": "a run goes on with resume=auto",
        "model_init_kwargs": "the model is loaded by model.*",
    }
    for name, instead in elsewhere.items():
        if fields.get(name) is not None:
            raise UserError(f"trainer.{name}={fields[name]!r}: {instead}; leave it out")
    if fields.get("eval_strategy", "no") != "no" or fields.get("eval_on_start"):
        raise UserError(
            f"trainer.eval_strategy={fields.get('eval_strategy')!r}: a run evaluates before and after training, and "
            "with evaluation.every=N while it trains; leave it out"
        )
    if fields.get("load_best_model_at_end"):
        raise UserError(
            "trainer.load_best_model_at_end=true: evaluation.every=N keeps the best checkpoint, by evaluation.best; "
            "leave it out"
        )
    if fields.get("remove_unused_columns"):
        raise UserError(
            "trainer.remove_unused_columns=true takes away the references that answers are judged by: leave it out"
        )
    _check_reporting(fields)


def _check_reporting(fields: Mapping[str, Any]) -> None:
    asked = fields.get("report_to") or "none"
    for name in [asked] if isinstance(asked, str) else list(asked):
        if name in ("none", "all"):
            continue
        if name in BACKENDS:
            raise UserError(
                f"trainer.report_to={name}: use tracking={name}, which logs evaluations and completions too, and never "
                "ends a run"
            )
        if name not in _TRACKERS:
            raise UserError(f"trainer.report_to={name!r}: choose none or of {', '.join(_TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"trainer.report_to={name!r} needs a package: pip install {name}, or set trainer.report_to=none"
            )
    if fields.get("push_to_hub"):
        from huggingface_hub import get_token

        if not (fields.get("hub_token") or get_token()):
            raise UserError(
                "trainer.push_to_hub=true needs a token of the hub: log in with `hf auth login`, set HF_TOKEN, or "
                "leave it out"
            )


def check_generation(args: Any, prompts: Sequence[Prompt]) -> None:
    """Refuse fewer prompts than one generation draws: an epoch would have no step, and the run no end or no beginning.

    Args:
        args: the trainer's, with `generation_batch_size` rows of all ranks.

    Raises:
        DataError: there are too few.
    """
    drawn = args.generation_batch_size // args.num_generations
    if len(prompts) < drawn:
        raise DataError(
            f"data: {len(prompts)} training prompts, and one generation draws {drawn} different ones, so no step would "
            "be taken: give more prompts, or lower trainer.per_device_train_batch_size or "
            "trainer.gradient_accumulation_steps, or raise trainer.num_generations"
        )


def check_tokens(method: Method, args: Any, tokenizer: Any, think_end: str) -> None:
    """Refuse a method that needs other groups, more tokens, or a think tag that the tokenizer lacks.

    Raises:
        UserError: the component, the field and the remedy.
    """
    vocabulary = TokenVocabulary(frozenset({tokenizer.eos_token_id}), single_token(tokenizer, think_end), think_end)
    vocabulary.check(method.needs)
    if method.sampler:
        method.sampler.check(vocabulary, group_size=args.num_generations, limit=args.max_completion_length)


LOSS = ("loss_type", "epsilon", "epsilon_high", "beta", "importance_sampling_level")
"""What a recipe says of the loss, for components that are put into another recipe."""


def losses_of_guests(chosen: str, node: Mapping[str, Any], trainer: Mapping[str, Any]) -> list[str]:
    """For each component that the chosen recipe does not have itself, whose loss applies, where the two differ.

    Args:
        chosen: the recipe's name.
        node: the composed `method` node.
        trainer: the composed trainer.
    """
    if chosen not in method_names():
        return []  # a recipe of one's own says all itself
    own, told = list(entries_of(read_recipe(chosen)["method"])), []
    for kind, entry in entries_of(node):
        home = None if (kind, entry) in own or not isinstance(entry, str) else _home_of(kind, entry)
        if home is None:
            continue
        theirs = read_recipe(home).get("trainer") or {}
        other = {name: theirs[name] for name in LOSS if name in theirs and theirs[name] != trainer.get(name)}
        if other:
            applies = " ".join(f"{name}={trainer[name]}" for name in LOSS if trainer.get(name) is not None)
            wanted = " ".join(f"trainer.{name}={value}" for name, value in other.items())
            told.append(f"{entry} comes from {home}, but the loss is {chosen}'s ({applies}); {home} has {wanted}")
    return told


def _home_of(kind: str, entry: str) -> str | None:
    """The recipe that a component belongs to: the one of its name, else the one that holds the least besides."""
    holding = {}
    for name in method_names():
        entries = list(entries_of(read_recipe(name)["method"]))
        if (kind, entry) in entries:
            holding[name] = len(entries)
    return entry if entry in holding else min(holding, key=lambda name: holding[name], default=None)


def check_columns(needs: frozenset[str], prompts: Sequence[Prompt]) -> None:
    """Refuse data that lack a column which the method names.

    Raises:
        DataError: the column, and what the first such prompt has.
    """
    for column in sorted(need.removeprefix(COLUMN_PREFIX) for need in needs if need.startswith(COLUMN_PREFIX)):
        for prompt in prompts:
            if column not in prompt.columns:
                raise DataError(
                    f"the method needs the column {column!r}, the prompt {brief(prompt)} has {sorted(prompt.columns)}: "
                    "carry it along with data.columns or data.difficulty_column, or choose another method"
                )


def check_column_values(method: Method, prompts: Sequence[Prompt]) -> None:
    """Refuse a value that a shaper or an advantage cannot use: each that reads columns shapes one made-up batch.

    Raises:
        DataError: names the column and the first such prompt.
    """
    for slot, link in method.of_kind(Transform):
        columns = [need.removeprefix(COLUMN_PREFIX) for need in link.needs if need.startswith(COLUMN_PREFIX)]
        if not columns:
            continue
        batch = RolloutBatch.of(
            prompt_keys=[prompt.id for prompt in prompts],
            group_size=1,
            lengths=torch.ones(len(prompts), dtype=torch.int64),
            correct=torch.ones(len(prompts), dtype=torch.bool),
            columns={name: [prompt.columns[name] for prompt in prompts] for name in columns},
        )
        try:
            link(batch, batch.task_reward, method.init().get(slot))
        except DataError:
            raise
        except ValueError:
            pass  # of something else in what is made up


def check_parts(needs: frozenset[str], verifier: Any, prompts: Sequence[Prompt]) -> None:
    """Refuse a method that needs a row value which neither the verifier nor the text gives.

    Raises:
        UserError: the part, and what there is.
    """
    from concise_rl.engine.collect import PARTS
    from concise_rl.methods.repetition import REPETITION
    from concise_rl.verifiers import verify_many

    wanted = {need.removeprefix(PART_PREFIX) for need in needs if need.startswith(PART_PREFIX)}
    wanted -= {*PARTS, REPETITION}
    if not wanted:
        return
    reference = prompts[0].reference
    (verdict,) = verify_many(verifier, [(getattr(verifier, "wrap_reference", str)(reference), reference)])
    for name in sorted(wanted - verdict.parts.keys()):
        raise UserError(
            f"the method needs the row value parts[{name!r}], {type(verifier).__name__} gives "
            f"{sorted(verdict.parts) or 'none'}: choose a verifier whose verdicts have it, or another method"
        )


def check_lengths(
    prompts: Sequence[Prompt],
    tokenizer: Any,
    system: str | None,
    *,
    context: int | None,
    limit: int,
    field: str = "trainer.max_completion_length",
    template: Mapping[str, Any] | None = None,
) -> None:
    """Refuse prompts that leave no room for a completion in the model's context.

    Args:
        context: tokens that the model has positions for; None knows no bound.
        limit: tokens of a completion, at most; `field` names the setting.
        template: arguments of the chat template.

    Raises:
        DataError: the longest such prompt, and how many there are.
    """
    lengths = prompt_tokens(prompts, tokenizer, system, template)  # tries the chat template, whatever the context
    if context is None:
        return
    beyond = [n for n, length in enumerate(lengths) if length + limit > context]
    if beyond:
        longest = max(beyond, key=lengths.__getitem__)
        raise DataError(
            f"{len(beyond)} of {len(prompts)} prompts and {field}={limit} do not fit the model's context of {context} "
            f"tokens; the longest, {brief(prompts[longest])}, has {lengths[longest]}: drop such prompts, or lower "
            f"{field}"
        )


def prompt_tokens(
    prompts: Sequence[Prompt], tokenizer: Any, system: str | None, template: Mapping[str, Any] | None
) -> list[int]:
    """Tokens of each prompt as the policy reads it.

    Raises:
        UserError: the chat template goes beyond its bounds, or refuses one.
    """
    texts: Sequence[Any] = [render(prompt, tokenizer, system) for prompt in prompts]
    if tokenizer.chat_template:
        texts = apply_template(tokenizer, texts, template)
    return [len(ids) for ids in token_ids(tokenizer, texts)]


def brief(prompt: Prompt) -> str:
    """A prompt for people: the beginning of its question, and its key."""
    return f"{' '.join(prompt.messages[-1]['content'].split())[:60]!r} (id {prompt.id})"
