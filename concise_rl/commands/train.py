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
from concise_rl.commands import evaluation as evaluations
from concise_rl.commands import run_folder as folders
from concise_rl.commands.entry import through_hydra
from concise_rl.commands.guarded import Start, train_guarded
from concise_rl.engine import checkpoint
from concise_rl.engine.run_lock import run_lock
from concise_rl.engine.settings import check_settings, experiment, flat
from concise_rl.engine.stopping import Stopped, StopSignals
from concise_rl.methods.method import Method
from concise_rl.methods.schedules import out_of_reach

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
    evaluations.settings_of(config)
    checks.check_trainer_fields(configuration.trainer_fields(config))

    from accelerate import PartialState

    from concise_rl.engine.groups import check_teaching
    from concise_rl.engine.trainer import ConciseConfig
    from concise_rl.model.loading import check_policy
    from concise_rl.ranks import first_decides

    quiet_libraries()
    check_policy(config.model, config.peft)
    folder = run_folder(config)
    args = ConciseConfig(output_dir=str(folder), **configuration.trainer_fields(config))
    check_teaching(method, configuration.teaching_of(config), args.num_generations)
    PartialState()  # names the ranks
    with StopSignals() as signals, ExitStack() as held:

        def claim() -> None:
            held.enter_context(run_lock(folder))
            folders.prepare(folder, resume=config.resume, overwrite=config.overwrite)

        try:
            first_decides(claim)
            run_locked(config, args, folder, method, signals)
        except Stopped:
            leave_stopped(signals, folder)


def run_locked(config: DictConfig, args: Any, folder: Path, method: Method, signals: StopSignals) -> None:
    """The run, once its folder is its own."""
    import torch
    from accelerate import PartialState

    from concise_rl.reporting.session import Session

    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    session = Session(
        f"{config.method.name} on {HydraConfig.get().runtime.choices['data']}, {config.model.name}, seed {config.seed}",
        folder,
        total_steps=args.max_steps,
        active=PartialState().is_main_process,
        show_progress=config.run.progress,
        rollouts_every=config.run.rollouts_every,
        tracking=config.tracking,
    )
    for sentence in unreached(config, method):
        session.warn(sentence)
    train_and_evaluate(config, args, session, begin(config, folder, session), method, signals)


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
    from concise_rl.model.loading import load_policy, load_tokenizer, whole
    from concise_rl.ranks import first_decides

    folder = session.folder
    verifier = configuration.verifier_of(config)
    tokenizer = load_tokenizer(config.model)
    train, test = checked_prompts(config, args, method, tokenizer, verifier, start, session.progress.message)
    evaluated = {"run": evaluation_settings(config, test)}
    if start.folder is not None:
        folders.check_stored_evaluation(folder / "evaluation-before.jsonl", evaluated["run"])

    def load() -> Any:
        return load_policy(config.model, config.peft, session.warn)

    def build(model: Any) -> Any:
        return build_trainer(config, args, model, tokenizer, train, sinks=session.sinks)

    def evaluation(name: str, model: Any, *, stored: bool) -> Any:
        def run() -> Any:
            return evaluate(config, model, tokenizer, test, verifier)

        return session.evaluation(name, run, stored=stored, settings=evaluated)

    model, before = load(), None
    if test:
        with whole(model):
            before = evaluation("before", model, stored=start.folder is not None)
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
    after = None
    if test:
        with trainer.generation_model() as trained:
            after = evaluation("after", trained, stored=False)
    session.finish(before, after)


def checked_prompts(
    config: DictConfig,
    args: Any,
    method: Method,
    tokenizer: Any,
    verifier: Any,
    start: Start,
    tell: Callable[[str], None],
) -> tuple[list[Any], list[Any]]:
    """The problems to train and to test on, once they fit the run.

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
    if test:
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
        (test, config.evaluation.max_new_tokens, "evaluation.max_new_tokens"),
    ):
        checks.check_lengths(
            prompts, tokenizer, config.system_prompt, context=context, limit=limit, field=field, template=template
        )
    return train, test


def evaluation_settings(config: DictConfig, test: Sequence[Any]) -> dict[str, Any]:
    """What an evaluation before training must share with the one after it."""
    from concise_rl.engine.resuming import fingerprint

    resolved = configuration.resolved(config)
    names = ("evaluation", "verifier", "system_prompt", "verify_deadline_seconds")
    shared = {name: resolved[name] for name in names} | {"model": {"think_end": config.model.think_end}}
    shared["trainer"] = {"chat_template_kwargs": resolved["trainer"].get("chat_template_kwargs")}
    return flat(shared) | {"data": fingerprint(prompt.id for prompt in test)}


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
    with reference_from(lambda: load_model(config.model, lambda _: None)):
        return (kind or ConciseTrainer)(model, args=args, processing_class=tokenizer, **described | options)


def quiet_libraries() -> None:
    """Keep warnings of the libraries that tell a user nothing to do, and their bars, out of the progress display."""
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def evaluate(config: DictConfig, model: Any, tokenizer: Any, prompts: Sequence[Any], verifier: Any) -> Any:
    """This run's evaluation of a model; several ranks each take every n-th problem, and all get the whole."""
    from concise_rl.engine.order import edit_prompt
    from concise_rl.evaluation import Evaluation
    from concise_rl.ranks import on_every_rank, own_share

    method = configuration.method_of(config)
    edited = [edit_prompt(method, prompt, config.seed) for prompt in own_share(prompts)]
    share = evaluations.evaluate(config, model, tokenizer, edited, verifier)
    return Evaluation([row for rows in on_every_rank(share.rows) for row in rows], on_every_rank(share.settings)[0])


def run_folder(config: DictConfig) -> Path:
    """`run.dir`, or the sweep's own folder for each of its jobs."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.runtime.output_dir)
    return Path(config.run.dir)


if __name__ == "__main__":
    main()
