"""One training run from its configuration: `concise-rl train` and `accelerate launch -m concise_rl.train`."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: spinning OpenMP threads stall every neighbour on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from concise_rl.commands import config as configuration
from concise_rl.commands.entry import through_hydra
from concise_rl.engine import checkpoint
from concise_rl.errors import UserError
from concise_rl.methods.schedules import out_of_reach
from concise_rl.options import Action, Guard

EXIT_PREEMPTED = 75
"""Exit code after a checkpoint on SIGTERM: sysexits' "try again later", for a scheduler to requeue on."""

RUN_FILES = (
    "config.json", "metrics.jsonl", "rollouts.jsonl", "summary.json", "evaluation-before.jsonl",
    "evaluation-after.jsonl", "training.png", "report.html",
)  # fmt: skip
"""What a run writes into its folder beside `checkpoint-*` and `model`; `overwrite=true` removes these alone."""


def main() -> None:
    """Hydra's entry: overrides on the command line, `-m` for sweeps."""
    through_hydra(run, "train")


def run(config: DictConfig) -> None:
    """Evaluate, train, evaluate again, and write what came of it into the run folder."""
    # What can be refused without a model is refused before one is loaded.
    schedules = configuration.method_of(config).schedules
    unseen = out_of_reach(schedules, configuration.steps_of(config)) if schedules else []
    configuration.teaching_of(config)
    verifier = configuration.verifier_of(config)
    source = configuration.to_object(config.data, "data")
    guard = configuration.guard_of(config)
    folder = run_folder(config)

    import torch
    from accelerate import PartialState

    from concise_rl.engine.trainer import ConciseConfig
    from concise_rl.model.loading import load_model, load_prompts, load_tokenizer, whole
    from concise_rl.reporting.session import Session

    quiet_libraries()
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    args = ConciseConfig(output_dir=str(folder), **configuration.trainer_fields(config))
    ranks = PartialState()
    if ranks.is_main_process:
        prepare(folder, resume=config.resume, overwrite=config.overwrite)
    ranks.wait_for_everyone()

    tokenizer = load_tokenizer(config.model)
    train, test = load_prompts(config, source, verifier)
    model = load_model(config.model)
    session = Session(
        f"{config.method.name} on {HydraConfig.get().runtime.choices['data']}, {config.model.name}, seed {config.seed}",
        folder,
        total_steps=args.max_steps,
        active=ranks.is_main_process,
        show_progress=config.run.progress,
        rollouts_every=config.run.rollouts_every,
        tracking=config.tracking,
    )
    for sentence in unseen:
        session.warn(sentence)
    start = find_checkpoint(folder, config.resume, session.warn)

    def evaluation(name: str, evaluated: Any, *, stored: bool) -> Any:
        return session.evaluation(name, lambda: evaluate(config, evaluated, tokenizer, test, verifier), stored=stored)

    before = None
    if test:
        with whole(model):
            before = evaluation("before", model, stored=start is not None)
    held = [model]
    del model
    with session.training(configuration.resolved(config), step=checkpoint.step_of(start) if start else 0):
        trainer, preempted = train_guarded(config, args, held, tokenizer, train, session, guard, start)
    if preempted:
        session.warn(f"SIGTERM: saved at step {trainer.state.global_step}; go on with resume=auto")
        sys.exit(EXIT_PREEMPTED)
    trainer.save_model(str(folder / "model"))
    after = None
    if test:
        with trainer.generation_model() as trained:
            after = evaluation("after", trained, stored=False)
    session.finish(before, after)


def train_guarded(
    config: DictConfig,
    args: Any,
    held: list[Any],
    tokenizer: Any,
    prompts: Sequence[Any],
    session: Any,
    guard: Guard,
    start: Path | None,
) -> tuple[Any, bool]:
    """Train to the end under the guards; where they say so, go back to an older checkpoint at half the rate.

    Args:
        held: the model, taken out here: one that is given up is to leave the memory.
        start: the checkpoint to go on from.

    Returns:
        The trainer, and whether SIGTERM ended the run.
    """
    import gc

    from transformers import PrinterCallback

    from concise_rl.engine.guards import MAX_ROLLBACKS, rollbacks
    from concise_rl.model.loading import load_model

    folder, halvings = Path(args.output_dir), None
    while True:
        trainer = build_trainer(config, args, held.pop(), tokenizer, prompts, sinks=session.sinks)
        if halvings is None:
            warn_of_idle_history(trainer, session.warn)
        trainer.remove_callback(PrinterCallback)
        collapse, preemption = watch(trainer, guard, session.warn, earlier=session.metrics(), halvings=halvings)
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        sign_step = collapse.rollback_from
        if preemption.asked or sign_step is None:
            return trainer, preemption.asked
        older = go_back(folder, sign_step - guard.window, session)
        if older is None:
            session.warn(f"no complete checkpoint is {guard.window} steps older: training ends here")
            return trainer, False
        start, halvings = older, rollbacks(args, trainer.lr_scheduler) + 1
        session.warn(
            f"rollback {halvings} of {MAX_ROLLBACKS}: on from {start} at a learning rate of "
            f"{args.learning_rate / 2**halvings:g}"
        )
        del trainer, collapse, preemption
        gc.collect()
        held.append(load_model(config.model))


def warn_of_idle_history(trainer: Any, warn: Callable[[str], None]) -> None:
    """Tell when a shaper that compares with a prompt's earlier answers will never see a prompt again."""
    from concise_rl.methods.history import History

    names = [type(c).__name__ for c in trainer.method.components.values() if isinstance(c.init(), History)]
    visits = trainer.visits_per_prompt()
    if names and visits <= 1:
        warn(
            f"{names[0]} compares with a prompt's earlier answers, but this run draws {visits:.0%} of its prompts, "
            "none twice, so it changes nothing: raise trainer.max_steps, or train on fewer problems"
        )


def go_back(folder: Path, until: int, session: Any) -> Path | None:
    """The newest complete checkpoint up to a step, as all ranks see it; later ones and what was logged after it go."""
    from concise_rl.ranks import on_every_rank

    found = checkpoint.newest_complete(folder, session.warn, until=until) if session.active else None
    if found is not None:
        checkpoint.discard_after(folder, checkpoint.step_of(found))
        session.rewind(checkpoint.step_of(found))
    return on_every_rank(found)[0]


def build_trainer(
    config: DictConfig,
    args: Any,
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    kind: type | None = None,
    **options: Any,
) -> Any:
    """The trainer that a configuration describes, a `ConciseTrainer` or the subclass `kind`; `options` override."""
    from concise_rl.engine.trainer import ConciseTrainer, training_dataset
    from concise_rl.model.loading import lora

    described = {
        "method": configuration.method_of(config),
        "verifier": configuration.verifier_of(config),
        "train_dataset": training_dataset(prompts, tokenizer, config.system_prompt),
        "think_end": config.model.think_end,
        "verify_deadline_seconds": config.verify_deadline_seconds,
        "teaching": configuration.teaching_of(config),
        "peft_config": lora(config.peft),
    }
    return (kind or ConciseTrainer)(model, args=args, processing_class=tokenizer, **described | options)


def watch(
    trainer: Any,
    guard: Guard,
    warn: Callable[[str], None],
    *,
    earlier: Sequence[Mapping[str, float]] = (),
    halvings: int | None = None,
) -> tuple[Any, Any]:
    """Set the guards of `concise_rl.engine.guards` over a run; returns those that tell of a collapse and of preemption.

    Args:
        earlier: what the main process has logged so far.
        halvings: of the learning rate; None leaves it.
    """
    from concise_rl.engine.guards import LowerRate, SaveOnTerm, SkipNonFinite, WatchCollapse
    from concise_rl.ranks import on_every_rank

    def record(name: str, value: float) -> None:
        trainer._metrics["train"][name].append(value)

    collapse = WatchCollapse(guard, warn, earlier=on_every_rank(earlier)[0])
    preemption = SaveOnTerm(lambda here: any(on_every_rank(here)))
    callbacks = [SkipNonFinite(guard.nonfinite_steps, record, lambda: trainer.model_wrapped), collapse, preemption]
    if guard.action is Action.rollback:
        callbacks.append(LowerRate(halvings, record))
    for callback in callbacks:
        trainer.add_callback(callback)
    return collapse, preemption


def quiet_libraries() -> None:
    """Keep warnings of the libraries that tell a user nothing to do, and their bars, out of the progress display."""
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def evaluate(config: DictConfig, model: Any, tokenizer: Any, prompts: Sequence[Any], verifier: Any) -> Any:
    """This run's evaluation of a model; several ranks each take every n-th problem, and all get the whole."""
    from concise_rl.evaluation import Evaluation
    from concise_rl.evaluation import evaluate as evaluate_prompts
    from concise_rl.ranks import on_every_rank, own_share

    options = config.evaluation
    share = evaluate_prompts(
        model,
        tokenizer,
        own_share(prompts),
        verifier,
        system=config.system_prompt,
        samples=options.samples,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        seed=options.seed,
    )
    return Evaluation(rows=[row for rows in on_every_rank(share.rows) for row in rows])


def run_folder(config: DictConfig) -> Path:
    """`run.dir`, or the sweep's own folder for each of its jobs."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.runtime.output_dir)
    return Path(config.run.dir)


def prepare(folder: Path, *, resume: str, overwrite: bool) -> None:
    """Make the run folder, and refuse to mix two runs in one.

    Raises:
        UserError: the folder holds a run and neither resume nor overwrite was asked for, it cannot be written, or a
            link in it leads elsewhere.
    """
    if (folder / "metrics.jsonl").exists() and resume == "never":
        if not overwrite:
            raise UserError(
                f"run.dir={folder} already holds a run: go on with resume=auto, "
                "choose another run.dir, or throw it away with overwrite=true"
            )
        checkpoint.clean_staging(folder)
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
        for old in [*folder.glob("checkpoint-*"), folder / "model"]:
            shutil.rmtree(old, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*RUN_FILES, "model", "wandb", ".writable"):
            if (folder / name).is_symlink():
                raise UserError(
                    f"{folder / name} is a symbolic link, and a run writes into its own folder alone: "
                    "remove it, or choose another run.dir"
                )
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"run.dir={folder} cannot be written ({error.strerror}): choose another run.dir") from error
    checkpoint.clean_staging(folder)


def find_checkpoint(folder: Path, resume: str, warn: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from: none, the newest complete one, or the one that was named."""
    if resume == "never":
        return None
    if resume == "auto":
        return checkpoint.newest_complete(folder, warn)
    damage = checkpoint.verify(Path(resume))
    if damage:
        raise UserError(f"resume={resume}: {damage}; name a complete checkpoint folder, or use resume=auto")
    return Path(resume)


if __name__ == "__main__":
    main()
