"""One training run from its configuration: `concise-rl train` and `accelerate launch -m concise_rl.train`."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: spinning OpenMP threads stall every neighbour on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from concise_rl import config as configuration
from concise_rl.errors import UserError

RUN_FILES = (
    "config.json", "metrics.jsonl", "rollouts.jsonl", "summary.json", "evaluation-before.jsonl",
    "evaluation-after.jsonl", "training.png", "report.html",
)  # fmt: skip
"""What a run writes into its folder beside `checkpoint-*` and `model`; `overwrite=true` removes these alone."""


def main() -> None:
    """Hydra's entry: overrides on the command line, `-m` for sweeps."""
    configuration.register()
    sys.argv[1:] = configuration.open_trainer(sys.argv[1:])
    hydra.main(version_base="1.3", config_path=str(configuration.RECIPES), config_name="train")(guarded(run))()


def guarded(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Show an error that a person can mend as one line and exit with 2; CONCISE_RL_TRACEBACK=1 shows where it arose."""

    def guarded_task(config: DictConfig) -> None:
        try:
            task(config)
        except (ValueError, OSError, ImportError) as error:
            if os.environ.get("CONCISE_RL_TRACEBACK"):
                raise
            sys.stderr.write(f"error: {configuration.one_line(error)}\n")
            sys.exit(2)
        except KeyboardInterrupt:
            sys.stderr.write("interrupted; go on with resume=auto\n")
            sys.exit(130)

    return guarded_task


def run(config: DictConfig) -> None:
    """Evaluate, train, evaluate again, and write what came of it into the run folder."""
    # What can be refused without a model is refused before one is loaded.
    shapers, advantage = configuration.shapers_and_advantage(config)
    verifier = configuration.verifier_of(config)
    fields = configuration.trainer_fields(config)
    folder = run_folder(config)

    import torch
    from accelerate import PartialState
    from transformers import PrinterCallback
    from transformers.utils import logging as transformers_logging

    from concise_rl import checkpoint
    from concise_rl.loading import load_model, load_prompts, load_tokenizer, lora
    from concise_rl.reporting.session import Session
    from concise_rl.trainer import ConciseTrainer, GRPOConfig, training_dataset

    transformers_logging.set_verbosity_error()
    if config.model.threads:
        torch.set_num_threads(config.model.threads)
    args = GRPOConfig(output_dir=str(folder), **fields)
    ranks = PartialState()
    if ranks.is_main_process:
        prepare(folder, resume=config.resume, overwrite=config.overwrite)
    ranks.wait_for_everyone()

    tokenizer = load_tokenizer(config.model)
    train, test = load_prompts(config, verifier)
    model = load_model(config.model, training=True)
    session = Session(config, folder, total_steps=args.max_steps, active=ranks.is_main_process)
    with session:
        before = session.evaluation("before", lambda: evaluate(config, model, tokenizer, test, verifier, session))
        trainer = ConciseTrainer(
            model,
            shapers=shapers,
            advantage=advantage,
            verifier=verifier,
            train_dataset=training_dataset(train, tokenizer, config.system_prompt),
            args=args,
            processing_class=tokenizer,
            sinks=session.sinks,
            think_end=config.model.think_end,
            verify_deadline_seconds=config.verify_deadline_seconds,
            peft_config=lora(config.peft),
        )
        trainer.remove_callback(PrinterCallback)
        start = find_checkpoint(folder, config.resume, session.warn)
        session.start_training(config=configuration.resolved(config), step=checkpoint.step_of(start) if start else 0)
        started = time.perf_counter()
        trainer.train(resume_from_checkpoint=str(start) if start else None)
        session.training_seconds = time.perf_counter() - started
        trainer.save_model(str(folder / "model"))
        with trainer.generation_model() as trained:
            after = session.evaluation(
                "after", lambda: evaluate(config, trained, tokenizer, test, verifier, session), fresh=True
            )
        session.finish(before, after)


def evaluate(config: DictConfig, model: Any, tokenizer: Any, prompts: Sequence[Any], verifier: Any, session: Any) -> Any:
    """This run's evaluation of a model; several ranks each take every n-th problem."""
    from concise_rl.evaluation import evaluate as evaluate_model
    from concise_rl.evaluation import gather_ranks

    options = config.evaluation

    def one_share(share: Sequence[Any]) -> Any:
        return evaluate_model(
            model,
            tokenizer,
            share,
            verifier,
            system=config.system_prompt,
            samples=options.samples,
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed,
            on_progress=session.evaluation_progress,
        )

    return gather_ranks(one_share, list(prompts))


def run_folder(config: DictConfig) -> Path:
    """`run.dir`, or the sweep's own folder for each of its jobs."""
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        return Path(hydra_config.runtime.output_dir)
    return Path(config.run.dir)


def prepare(folder: Path, *, resume: str, overwrite: bool) -> None:
    """Make the run folder, and refuse to mix two runs in one.

    Raises:
        UserError: the folder holds a run and neither resume nor overwrite was asked for, or it cannot be written.
    """
    if (folder / "metrics.jsonl").exists() and resume == "never":
        if not overwrite:
            raise UserError(
                f"run.dir={folder} already holds a run: go on with resume=auto, "
                "choose another run.dir, or throw it away with overwrite=true"
            )
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
        for old in [*folder.glob("checkpoint-*"), folder / "model"]:
            shutil.rmtree(old, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"run.dir={folder} cannot be written ({error.strerror}): choose another run.dir") from error


def find_checkpoint(folder: Path, resume: str, warn: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from: none, the newest complete one, or the one that was named."""
    from concise_rl import checkpoint

    if resume == "never":
        return None
    if resume == "auto":
        return checkpoint.newest_complete(folder, warn)
    damage = checkpoint.verify(Path(resume))
    if damage:
        raise UserError(f"resume={resume}: {damage}; name a complete checkpoint folder, or use resume=auto")
    return Path(resume)


def resolved_yaml(config: DictConfig) -> str:
    """The configuration as a person would write it."""
    return OmegaConf.to_yaml(OmegaConf.create(configuration.resolved(config)))


if __name__ == "__main__":
    main()
