"""`concise-rl tune`: tune on selected rows, from the configuration to the run folder that `concise-rl train` leaves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from concise_rl.commands import config as configuration
from concise_rl.commands import evaluation as evaluations
from concise_rl.commands import run_folder as folders
from concise_rl.commands import train as training
from concise_rl.commands.entry import through_hydra
from concise_rl.commands.guarded import Start
from concise_rl.commands.naming import run_name, title_of, tracking_of
from concise_rl.commands.run_evaluations import RunEvaluations
from concise_rl.engine.stopping import StopSignals
from concise_rl.errors import UserError


def main() -> None:
    """Hydra's entry: overrides on the command line."""
    through_hydra(run, "tune")


def run(config: DictConfig) -> None:
    """Evaluate, tune, evaluate again, and write what came of it into the run folder."""
    # What can be refused without a model is refused before one is loaded.
    configuration.verifier_of(config)
    evaluations.settings_of(config)

    from concise_rl.offline.rows import read_rows

    rows = read_rows(config.rows, config.recipe)
    folder = training.run_folder(config)
    training.quiet_libraries()
    args = arguments_of(config, folder)

    from accelerate import PartialState

    from concise_rl.model.loading import check_policy

    check_policy(config.model, config.peft)
    PartialState()  # names the ranks
    training.in_own_folder(config, folder, lambda signals: run_locked(config, args, folder, rows, signals))


def arguments_of(config: DictConfig, folder: Path) -> Any:
    """The recipe's TRL configuration from `tuning.*`.

    Raises:
        UserError: a field that it lacks, with the closest that it has, or a value that it refuses.
    """
    from concise_rl.methods.recipes import closest
    from concise_rl.offline.trainers import TUNERS

    _, kind = TUNERS[config.recipe]
    fields = configuration.plain(config.tuning)
    known = {f.name for f in dataclasses.fields(kind)}
    for name in fields:
        if name not in known:
            raise UserError(f"tuning.{name} is no field of trl.{kind.__name__}{closest(name, known)}")
    if fields.get("eval_strategy", "no") != "no":
        raise UserError("tuning.eval_strategy: a run evaluates before and after tuning (evaluation.*); leave it out")
    try:
        return kind(output_dir=str(folder), **fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"tuning: {' '.join(str(error).split())}") from error


def run_locked(config: DictConfig, args: Any, folder: Path, rows: Sequence[Any], signals: StopSignals) -> None:
    """The run, once its folder is its own."""
    import torch
    from accelerate import PartialState

    from concise_rl.model.loading import context_of, load_policy, load_test, load_tokenizer, on_device, whole
    from concise_rl.ranks import first_decides
    from concise_rl.reporting.session import Session

    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    verifier = configuration.verifier_of(config)
    source = configuration.to_object(config.data, "data")
    test = load_test(config, source, verifier)
    tokenizer = load_tokenizer(config.model)
    dataset = dataset_of(config, rows, tokenizer, context_of(config.model))
    session = Session(
        title_of(config),
        folder,
        total_steps=steps_of(args, len(dataset)),
        active=PartialState().is_main_process,
        show_progress=config.run.progress,
        name=run_name(_root_=config),
        tracking=tracking_of(config),
    )
    start = training.begin(config, folder, session)
    evaluated = RunEvaluations(config, tokenizer, verifier, session, signals, test=test, watched=())
    evaluated.check_stored(resumed=start.folder is not None)
    model = on_device(load_policy(config.model, config.peft, session.warn), args.device)
    with whole(model):
        evaluated.begin(model, stored=start.folder is not None)
    trained_on = source.load("train")
    named = None if config.resume == "auto" else start.folder
    first_decides(lambda: folders.begin_steps(folder, named, trained_on, session.progress.message))
    with session.training(configuration.resolved(config), step=start.step):
        trainer = tune(config, args, model, tokenizer, dataset, session, start, signals)
    if signals.received is not None:
        training.leave_stopped(signals, folder, f"ended after step {trainer.state.global_step}")
    training.save_model(trainer, folder)
    evaluated.end(trainer.accelerator.unwrap_model(trainer.model))
    session.finish(evaluated.before, evaluated.after, facts=costs(config, session.metrics()))


def dataset_of(config: DictConfig, rows: Sequence[Any], tokenizer: Any, context: int | None) -> Any:
    """The rows as the recipe's trainer takes them."""
    from datasets import Dataset

    from concise_rl.offline.rows import tokenised

    return Dataset.from_list(tokenised(rows, tokenizer, context=context, path=config.rows))


def steps_of(args: Any, rows: int) -> int:
    """Optimizer steps of the whole run."""
    if args.max_steps > 0:
        return args.max_steps
    size = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return math.ceil(-(-rows // size) * args.num_train_epochs)


def tune(
    config: DictConfig,
    args: Any,
    model: Any,
    tokenizer: Any,
    dataset: Any,
    session: Any,
    start: Start,
    signals: StopSignals,
) -> Any:
    """Train to the end, or to the step in which a signal came; returns the trainer."""
    from accelerate.utils import is_peft_model
    from transformers import PrinterCallback

    from concise_rl.engine.guards import SaveOnStop
    from concise_rl.files import file_checksum
    from concise_rl.model.adapters import lora
    from concise_rl.offline.trainers import TUNERS
    from concise_rl.ranks import on_every_rank

    kind, _ = TUNERS[config.recipe]
    adapter = None if is_peft_model(model) else lora(config.peft, config.model.revision)
    trainer = kind(model, args=args, train_dataset=dataset, processing_class=tokenizer, peft_config=adapter)
    trainer.settings, trainer.sinks, trainer.rows = start.settings, session.sinks, file_checksum(Path(config.rows))
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(SaveOnStop(signals, lambda here: any(on_every_rank(here))))
    trainer.train(resume_from_checkpoint=str(start.folder) if start.folder else None)
    return trainer


def costs(config: DictConfig, metrics: Sequence[Any]) -> dict[str, Any]:
    """What the run took: tokens that were sampled for its rows, where their report says so, and tokens trained on."""
    from concise_rl.offline.rows import selected

    found = {"sampled_tokens": selected(Path(config.rows)).get("sampled_tokens")}
    found["trained_tokens"] = next((int(m["num_tokens"]) for m in reversed(metrics) if "num_tokens" in m), None)
    return {name: value for name, value in found.items() if value is not None}
