"""One training run from its configuration: `concise-rl train` and `accelerate launch -m concise_rl.train`."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

# Before torch is imported: spinning OpenMP threads stall every neighbour on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from concise_rl.commands import checks
from concise_rl.commands import config as configuration
from concise_rl.commands import run_folder as folders
from concise_rl.commands.async_server import build_server_trainer, served_by
from concise_rl.commands.entry import through_hydra
from concise_rl.commands.evaluation import settings_of
from concise_rl.commands.guarded import Start, train_guarded
from concise_rl.commands.hub import check_push, push
from concise_rl.commands.naming import run_name, title_of, tracking_of
from concise_rl.commands.run_evaluations import RunEvaluations, check_window_of, problems_to_watch
from concise_rl.engine import checkpoint
from concise_rl.engine.settings import check_settings, experiment
from concise_rl.engine.stopping import Stopped, StopSignals
from concise_rl.methods.method import Method
from concise_rl.methods.schedules import out_of_reach
from concise_rl.reporting.tracking import check_tracker

EXIT_PREEMPTED = 75
"""Exit code after SIGTERM or Ctrl-C: sysexits' "try again later", for a scheduler to requeue on."""


def main() -> None:
    """Hydra's entry: overrides on the command line, `-m` for sweeps."""
    through_hydra(run, "train")


def run(config: DictConfig) -> None:
    """Evaluate, train, evaluate again, and write what came of it into the run folder."""
    # What can be refused without a model is refused before one is loaded.
    method = configuration.method_of(config)
    unreached(config, method)
    configuration.verifier_of(config)
    configuration.to_object(config.data, "data")
    configuration.guard_of(config)
    configuration.distill_of(config)
    settings_of(config)
    validation = configuration.validation_of(config)
    checks.check_trainer_fields(configuration.trainer_fields(config))
    check_push(config.trainer)
    if config.tracking is not None:
        check_tracker(config.tracking.tracker)

    from accelerate import PartialState

    from concise_rl.engine.async_trainer import check_async
    from concise_rl.engine.groups import check_teaching
    from concise_rl.engine.reference import check_moving
    from concise_rl.engine.trainer import ConciseConfig
    from concise_rl.model.loading import check_policy

    quiet_libraries()
    check_policy(config.model, config.peft)
    folder = run_folder(config)
    # The trained model is pushed at the end, with its card; the trainer would push every checkpoint.
    args = ConciseConfig(output_dir=str(folder), **configuration.trainer_fields(config) | {"push_to_hub": False})
    check_window_of(validation, args)
    teaching = configuration.teaching_of(config)
    check_teaching(method, teaching, args.num_generations)
    check_async(args, method, teaching, adapter=config.peft is not None)
    if args.async_server:
        served_by(config, args, method, teaching)
    check_moving(args, adapter=config.peft is not None)
    PartialState()  # names the ranks
    in_own_folder(config, folder, lambda signals: run_locked(config, args, folder, method, signals))


def in_own_folder(config: DictConfig, folder: Path, job: Callable[[StopSignals], None]) -> None:
    """Do a job in a run folder that nobody else writes to; a signal that stops it ends the process.

    Raises:
        UserError: another process holds the folder, or it holds another run.
    """
    from concise_rl.ranks import first_decides

    with StopSignals() as signals, ExitStack() as held:

        def claim() -> None:
            held.enter_context(folders.run_lock(folder))
            folders.prepare(folder, resume=config.resume, overwrite=config.overwrite)

        try:
            first_decides(claim)
            job(signals)
        except Stopped:
            leave_stopped(signals, folder)


def run_locked(config: DictConfig, args: Any, folder: Path, method: Method, signals: StopSignals) -> None:
    """The run, once its folder is its own."""
    import torch
    from accelerate import PartialState

    from concise_rl.ranks import first_decides
    from concise_rl.reporting.session import Session

    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    session = Session(
        title_of(config),
        folder,
        total_steps=args.max_steps,
        active=PartialState().is_main_process,
        show_progress=config.run.progress,
        rollouts_every=config.run.rollouts_every,
        name=run_name(_root_=config),
        tracking=tracking_of(config),
    )
    for sentence in unreached(config, method):
        session.warn(sentence)
    chosen = HydraConfig.get().runtime.choices["method"]
    node, fields = configuration.plain(config.method), configuration.plain(config.trainer)
    for sentence in checks.losses_of_guests(chosen, node, fields):
        session.progress.message(sentence)
    try:
        train_and_evaluate(config, args, session, begin(config, folder, session), method, signals)
    finally:
        session.close()
    if config.trainer.get("push_to_hub"):
        first_decides(lambda: push(folder, config.trainer, session.progress.message))


def unreached(config: DictConfig, method: Method) -> list[str]:
    """What of the method's schedules this run does not come to, for people.

    Raises:
        UserError: a schedule would never move, or the run's steps are not known.
    """
    return out_of_reach(method.schedules, configuration.steps_of(config)) if method.schedules else []


def leave_stopped(signals: StopSignals, folder: Path, saved: str = "ended at once") -> NoReturn:
    """Exit on a signal, and say on the first rank where the run can go on."""
    from concise_rl.ranks import rank

    if rank()[0] == 0:
        # By sizes alone: whoever sent the signal does not wait for checksums of large weights.
        saves = [folder / f"checkpoint-{step}" for step in checkpoint.steps(folder)]
        whole = [found for found in saves if checkpoint.verify(found, contents=False) is None]
        step = f"step {checkpoint.step_of(whole[-1])}" if whole else "step 0, as nothing is saved yet"
        sys.stderr.write(f"{signals.received or 'SIGTERM'}: {saved}; resume=auto goes on from {step}\n")
    sys.exit(EXIT_PREEMPTED)


def begin(config: DictConfig, folder: Path, session: Any) -> Start:
    """Find what to go on from, say so, and refuse or tell what changed since it was saved.

    Raises:
        UserError: nothing can be gone on from, or the run would be another experiment.
    """
    from concise_rl.ranks import first_decides

    tell, settings = session.progress.message, experiment(configuration.resolved(config))

    def find() -> Path | None:
        found = folders.find_checkpoint(folder, config.resume, tell, session.warn)
        if found is not None:
            _, saved = checkpoint.load_state(found)
            in_shards = str(saved.get("optimizer")).startswith("zero")
            for text in check_settings(str(found), saved.get("settings", {}), settings, in_shards=in_shards):
                tell(text)
        return found

    found = first_decides(find)
    return Start(found, checkpoint.load_state(found)[1] if found else {}, settings)


def train_and_evaluate(
    config: DictConfig, args: Any, session: Any, start: Start, method: Method, signals: StopSignals
) -> None:
    """Load, evaluate, train, save, evaluate, report."""
    from concise_rl.engine.async_sampler import SamplerProcess
    from concise_rl.model.loading import load_policy, load_tokenizer, on_device, whole
    from concise_rl.ranks import first_decides

    folder = session.folder
    own_process = args.max_staleness is not None and not args.async_server
    ahead = [SamplerProcess()] if own_process else []  # starts while this process loads
    verifier = configuration.verifier_of(config)
    tokenizer = load_tokenizer(config.model)
    train, test, watched = checked_prompts(config, args, method, tokenizer, verifier, start, session.progress.message)
    evaluations = RunEvaluations(config, tokenizer, verifier, session, signals, test=test, watched=watched)
    evaluations.check_stored(resumed=start.folder is not None)

    def load() -> Any:
        return on_device(load_policy(config.model, config.peft, session.warn), args.device)

    def build(model: Any) -> Any:
        if args.async_server:
            del model  # TRL loads it anew
            trainer = build_server_trainer(config, args, tokenizer, train, sinks=session.sinks)
        else:
            sampler = ahead.pop() if ahead else None  # a trainer that is built anew starts its own
            trainer = build_trainer(config, args, model, tokenizer, train, sinks=session.sinks, sampler=sampler)
        evaluations.watch(trainer)
        return trainer

    model = load()
    with whole(model):
        evaluations.begin(model, stored=start.folder is not None)
    held = [model]
    del model
    # What `auto` skipped is damaged, and stays to be looked at.
    named = None if config.resume == "auto" else start.folder
    first_decides(lambda: folders.begin_steps(folder, named, train, session.progress.message))
    with session.training(configuration.resolved(config), step=start.step):
        trainer, preempted = train_guarded(
            args, configuration.guard_of(config), load, build, held, session, start, signals
        )
    if preempted:
        leave_stopped(signals, folder, f"ended after step {trainer.state.global_step}")
    save_model(trainer, folder)
    if test:
        with trainer.generation_model() as trained:
            evaluations.end(trained)
    session.finish(evaluations.before, evaluations.after)


def checked_prompts(
    config: DictConfig,
    args: Any,
    method: Method,
    tokenizer: Any,
    verifier: Any,
    start: Start,
    tell: Callable[[str], None],
) -> tuple[list[Any], list[Any], list[Any]]:
    """The problems to train on, to test on, and to evaluate on in training, once they fit the run.

    Raises:
        DataError: they do not, and how.
        UserError: the checkpoint was trained on others.
    """
    from concise_rl.engine.order import edit_prompt
    from concise_rl.engine.resuming import check_prompts, check_window, fingerprint
    from concise_rl.model.loading import context_of, load_prompts

    check_window(args)
    source = configuration.to_object(config.data, "data")
    train, test = load_prompts(config, source, verifier)
    watched = problems_to_watch(config, source, verifier, test, tell)
    if test or watched:
        train = folders.without_test_problems(train, source.load(config.evaluation.split), tell)
    check_prompts(str(start.folder), start.saved, fingerprint(prompt.id for prompt in train))
    checks.check_generation(args, train)
    checks.check_tokens(method, args, tokenizer, config.model.think_end)
    checks.check_parts(method.needs - (method.sampler.gives if method.sampler else set()), verifier, train)
    edited = [edit_prompt(method, prompt, config.seed) for prompt in train]
    checks.check_columns(method.needs, edited)
    checks.check_column_values(method, edited)
    context, template = context_of(config.model), args.chat_template_kwargs
    for prompts, limit, field in (
        (train, args.max_completion_length, "trainer.max_completion_length"),
        ([*test, *watched], config.evaluation.max_new_tokens, "evaluation.max_new_tokens"),
    ):
        checks.check_lengths(
            prompts, tokenizer, config.system_prompt, context=context, limit=limit, field=field, template=template
        )
    return train, test, watched


def save_model(trainer: Any, folder: Path) -> None:
    """Write `model/` aside and rename it: a run that dies here saves it when it is resumed.

    Raises:
        UserError: the disk refuses, or the run folder is gone.
    """
    from concise_rl.ranks import first_decides, on_every_rank

    staging = checkpoint.staging_dir(folder) / "model"

    def publish() -> None:
        shutil.rmtree(staging / "ref", ignore_errors=True)  # TRL's copy of the adapter that the run began with
        shutil.copy(folder / folders.TRAINED_ON, staging)
        checkpoint.replace_folder(staging, folder / "model")
        with contextlib.suppress(OSError):
            staging.parent.rmdir()

    def check() -> None:
        if not folder.is_dir():
            raise checkpoint.CheckpointError(
                f"{folder / 'model'} cannot be saved: its folder was removed; bring it back and go on with resume=auto"
            )

    first_decides(check)
    with checkpoint.saving(folder / "model"):
        trainer.save_model(str(staging))
        on_every_rank(None)  # all have written their part
        first_decides(publish)


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
    from accelerate.utils import is_peft_model

    from concise_rl.engine.reference import reference_from
    from concise_rl.engine.trainer import ConciseTrainer, training_dataset
    from concise_rl.model.adapters import lora
    from concise_rl.model.loading import load_model

    described = {
        "method": configuration.method_of(config),
        "verifier": configuration.verifier_of(config),
        "train_dataset": training_dataset(prompts, tokenizer, config.system_prompt),
        "think_end": config.model.think_end,
        "verify_deadline_seconds": config.verify_deadline_seconds,
        "teaching": configuration.teaching_of(config),
        # An adapter that the run begins with goes on training: its own settings are in its folder.
        "peft_config": None if is_peft_model(model) else lora(config.peft, config.model.revision),
    }
    distill = configuration.distill_of(config)
    if distill is not None:
        from concise_rl.engine.distill import DistillingTrainer

        kind, described["distill"] = DistillingTrainer, distill
    with reference_from(lambda: load_model(config.model, lambda _: None)):
        return (kind or ConciseTrainer)(model, args=args, processing_class=tokenizer, **described | options)


def quiet_libraries() -> None:
    """Keep warnings of the libraries that tell a user nothing to do, and their bars, out of the progress display."""
    import warnings

    from datasets import disable_progress_bars
    from transformers.utils import logging as transformers_logging

    disable_progress_bars()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", message="You are importing from 'trl.experimental'")


def run_folder(config: DictConfig) -> Path:
    """`run.dir`, or the sweep's own folder for each of its jobs."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.runtime.output_dir)
    return Path(config.run.dir)


if __name__ == "__main__":
    main()
