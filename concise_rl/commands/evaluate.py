"""`concise-rl eval`: one model on one benchmark or several, from the configuration to what is stored and shown."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from concise_rl.commands import config as configuration
from concise_rl.commands.entry import through_hydra
from concise_rl.commands.evaluation import check_eval, evaluate
from concise_rl.commands.run_folder import check_not_trained_on
from concise_rl.commands.train import quiet_libraries
from concise_rl.data import DataSource, Prompt
from concise_rl.data.efforts import Level
from concise_rl.errors import UserError, printable
from concise_rl.methods.edits.effort import PromptEffort
from concise_rl.verifiers import Verifier

if TYPE_CHECKING:
    from rich.console import Console

    from concise_rl.evaluation import Evaluation
    from concise_rl.evaluation.backends import Backend
    from concise_rl.methods.contracts import Edit


@dataclass(frozen=True)
class Task:
    """One benchmark, ready to be run: its configuration holds the prompts' and sampling's settings."""

    name: str
    config: DictConfig
    source: DataSource
    verifier: Verifier


def main() -> None:
    """Hydra's entry: overrides on the command line."""
    through_hydra(run, "eval")


def run(config: DictConfig) -> None:
    """Evaluate the model on each benchmark, print the tables, and store completions and summaries under `out`.

    An interrupted call goes on where it stopped when it is made again.
    """
    # What can be refused without a model is refused before one is loaded.
    hydra_config = HydraConfig.get()
    tasks = planned(config, hydra_config.runtime.choices["benchmark"], list(hydra_config.overrides.task))

    import torch
    from rich.console import Console

    from concise_rl.model.loading import load_test
    from concise_rl.reporting.evaluations import detail_tables
    from concise_rl.reporting.summary import MEASURES, summary_table

    quiet_libraries()
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    out = Path(config.out or default_folder(config))
    prompts = [load_test(task.config, task.source, task.verifier) for task in tasks]
    for task, problems in zip(tasks, prompts, strict=True):
        check_not_trained_on(config.model.path, task.name, problems)
    backend, tokenizer = load_backend(config)
    console = Console(highlight=False)
    summaries = {}
    try:
        for task, problems in zip(tasks, prompts, strict=True):
            summaries[task.name] = evaluate_task(task, problems, backend, tokenizer, out / task.name, console)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on from here\n")
        sys.exit(130)
    console.print(summary_table(summaries, keys=MEASURES))
    for name, summary in summaries.items():
        for table in detail_tables(name, summary):
            console.print(table)
    console.print(f"completions and summaries: {out}")


def planned(config: DictConfig, chosen: str, overrides: Sequence[str]) -> list[Task]:
    """The benchmarks to run: `benchmark`, which has the name `chosen`, or each of `benchmarks` composed in its place.

    Raises:
        UserError: an unknown benchmark or field, one named twice, or both `benchmark=` and `benchmarks=` given; and
            see `check_eval`.
    """
    if not config.benchmarks:
        check_eval(config, overrides)
        return [_task(chosen, config)]
    both = [item for item in overrides if item.lstrip("+~").startswith(("benchmark=", "benchmark."))]
    if both:
        raise UserError(
            f"{both[0]} and benchmarks= are both given: write {{benchmark: name, field: value}} in the list"
        )
    common = [item for item in overrides if not item.lstrip("+~").startswith("benchmarks=")]
    tasks: list[Task] = []
    entries: Any = OmegaConf.to_container(config.benchmarks)
    for entry in entries:
        own = {str(key): value for key, value in entry.items()} if isinstance(entry, dict) else {"benchmark": entry}
        if "benchmark" not in own:
            raise UserError(f"benchmarks holds {own}: write a name, or {{benchmark: name, field: value}}")
        benchmark = str(own.pop("benchmark"))
        name = str(own.pop("name", benchmark))
        if name in [task.name for task in tasks]:
            raise UserError(f"benchmarks names {name} twice: tell them apart, {{benchmark: {benchmark}, name: other}}")
        composed = configuration.compose([*common, f"benchmark={benchmark}"], "eval")
        for key, value in own.items():
            if key not in composed.benchmark:
                known = configuration.closest(key, composed.benchmark)
                raise UserError(f"benchmarks: {benchmark} has no field {key!r}{known}")
            composed.benchmark[key] = value
        check_eval(composed, common)
        tasks.append(_task(name, composed))
    return tasks


def _task(name: str, config: DictConfig) -> Task:
    source = configuration.to_object(config.benchmark, "benchmark")
    return Task(name, config, source, configuration.verifier_of(config, "benchmark"))


def default_folder(config: DictConfig) -> Path:
    """`runs/eval-`, the model's path, mode and edit, so that two checkpoints or modes never share a folder."""
    model = config.backend.model if config.backend.name == "http" else config.model.path
    mode = "" if config.mode.name == "as_trained" else f"-{config.mode.name}-{config.mode.budget or ''}"
    name = f"{model}{mode}{label_of(configuration.edit_of(config))}"
    return Path("runs") / f"eval-{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-')}"


def label_of(edit: Edit | None) -> str:
    """An edit and those of its fields that are not its defaults, for the name of a folder or file; none has none."""
    if edit is None:
        return ""
    values = [str(getattr(edit, f.name)) for f in fields(edit) if getattr(edit, f.name) != f.default]  # type: ignore[arg-type]
    return "-".join(["", type(edit).__name__, *(value[:40] for value in values)])


def load_backend(config: DictConfig) -> tuple[Backend, Any]:
    """The back end that the configuration names, and the tokenizer that renders its prompts (None: the server does).

    Raises:
        UserError: the model or tokenizer cannot be loaded, or the back end refuses a setting.
    """
    import torch
    from accelerate import PartialState

    from concise_rl.evaluation.backends import HTTPBackend, TransformersBackend, VLLMBackend
    from concise_rl.model.loading import EMBEDDED, load_model, load_tokenizer, on_device

    options = configuration.to_object(config.backend, "backend")
    name = options.pop("name")
    if name == "http":
        backend = HTTPBackend(**options)
        if backend.endpoint == "completions" and config.model.path in EMBEDDED:
            raise UserError(
                f"backend.endpoint=completions renders prompts with the tokenizer of model.path={config.model.path}: "
                "name the served model's, model=hf model.path=..., or let the server do it, backend.endpoint=chat"
            )
        if backend.endpoint == "completions":
            return backend, load_tokenizer(config.model)
        # Nothing is rendered here; a tokenizer at hand counts the thinking that the server does not count.
        at_hand = config.model.path not in EMBEDDED and Path(config.model.path).is_dir()
        return (replace(backend, tokenizer=load_tokenizer(config.model)) if at_hand else backend), None
    tokenizer = load_tokenizer(config.model)
    if name == "vllm":
        loading = {key: config.model[key] for key in ("dtype", "revision", "trust_remote_code")}
        return VLLMBackend(EMBEDDED.get(config.model.path, config.model.path), **loading, **options), tokenizer
    device = PartialState().device
    if device.type == "mps":  # it has no float64, which tokens are drawn in
        device = torch.device("cpu")
    return TransformersBackend(on_device(load_model(config.model), device), tokenizer, **options), tokenizer


def evaluate_task(
    task: Task, prompts: Sequence[Prompt], backend: Backend, tokenizer: Any, folder: Path, console: Console
) -> dict[str, Any]:
    """One benchmark: its completions into `folder/evaluation.jsonl`, its summary into `summary.json` and returned."""
    from concise_rl.evaluation import budget_sweep
    from concise_rl.evaluation.efforts import effort_levels, effort_sweep
    from concise_rl.evaluation.yap import yap_summary
    from concise_rl.files import replace_text
    from concise_rl.reporting.evaluations import counting, sampling_line
    from concise_rl.reporting.run_log import to_json

    config, sweep = task.config, task.config.sweep
    make_folder(folder)
    with counting(task.name, console) as on_progress:
        result = evaluate(
            config,
            backend,
            tokenizer,
            prompts,
            task.verifier,
            edit=configuration.edit_of(config),
            mode=configuration.mode_of(config),
            store=folder / "evaluation.jsonl",
            keep_token_ids=bool(sweep.budgets),
            on_progress=on_progress,
        )
    summary = {"benchmark": task.name, **result.summary()}
    if sweep.budgets:
        with counting(f"{task.name}, budgets", console) as on_progress:
            curve = budget_sweep(
                result,
                backend,
                task.verifier,
                list(sweep.budgets),
                mode=sweep.mode,
                answer_start=sweep.answer_start,
                folder=folder,
                verify_deadline_seconds=config.verify_deadline_seconds,
                on_progress=on_progress,
            )
        summary["budget_curve"] = curve.summary()
    if sweep.efforts:

        def at_level(edit: PromptEffort) -> Evaluation:
            if edit.level is Level.high and config.edit.name is None:
                return result  # whose prompts these are
            with counting(f"{task.name}, {edit.level.value} effort", console) as on_progress:
                return evaluate(
                    config, backend, tokenizer, prompts, task.verifier, edit=edit, mode=configuration.mode_of(config),
                    store=folder / f"effort-{edit.level.value}.jsonl", on_progress=on_progress,
                )  # fmt: skip

        summary["effort_curve"] = effort_sweep(effort_levels(list(sweep.efforts)), at_level)
    if getattr(task.source, "brevity", False):
        summary["yap"] = yap_summary(result.rows, config.model.think_end)
    replace_text(folder / "summary.json", to_json(summary))
    for notice in result.notices():
        console.print(printable(f"{task.name}: {notice}"), markup=False)
    console.print(printable(f"{task.name}: {sampling_line(result.settings)}"), markup=False, soft_wrap=True)
    return summary


def make_folder(folder: Path) -> None:
    """Raises `UserError` where the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={folder.parent} cannot be written ({error.strerror}): choose another out") from error
