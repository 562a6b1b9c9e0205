"""`ResumableTrainer`: a run that is killed and resumed, on another number of ranks too, stays one experiment.

Between `lean.py`, the step, and `trainer.py`, the method. transformers writes and reads weights, optimizer, schedule
and random states; this class makes its checkpoints complete or absent, adds the state of the components, and looks
after what transformers lets pass: another optimizer layout, another batch, other data, a run that is already at its
end; and it makes settings that changed take effect, where transformers goes on with those of the checkpoint.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from concise_rl.engine import checkpoint
from concise_rl.engine.lean import LeanTrainer
from concise_rl.errors import UserError
from concise_rl.methods.method import Method, States

OPTIMIZER_SETTINGS = ("betas", "eps", "weight_decay", "momentum")
"""What an optimizer's parameter groups hold of the configuration, beside the rate."""


class ResumableTrainer(LeanTrainer):
    """Saves and restores the states of the method's components beside the weights; a subclass sets the first two.

    Attributes:
        settings: the run's configuration as plain values, kept in checkpoints for `settings.check_settings`.
        rollbacks: how often the learning rate is halved; None until training begins, for what the checkpoint says.
        ended: why a guard ended the run; a checkpoint keeps it, and a run that goes on from there takes no step.
        honours_end: False where a run goes on though a guard ended it.
        kept_steps: whose checkpoints `save_total_limit` leaves alone, such as the best one's.
    """

    method: Method
    states: States
    settings: Mapping[str, Any] = {}
    rollbacks: int | None = None
    ended: str | None = None
    honours_end = True
    kept_steps: Collection[int] = frozenset()
    _staging_dir: str | None = None
    _saved: Mapping[str, Any] = {}
    _ancestor: Mapping[str, Any] | None = None

    # -- saving -------------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return self._staging_dir or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write aside, add the components' state and a manifest, then rename: a checkpoint is complete or absent."""
        run_dir = Path(super()._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        staging = checkpoint.staging_dir(run_dir)
        self._staging_dir = str(staging)
        try:
            with checkpoint.saving(staging):
                super()._save_checkpoint(model, trial)
        finally:
            self._staging_dir = None
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoint.save_state(staging / name, self.states, self._facts())
            checkpoint.publish(staging / name, run_dir / name, self._ancestor)
            self._ancestor = checkpoint.identity(run_dir / name)
            if self.args.save_total_limit:
                keep, newest = self.args.save_total_limit, self.state.global_step
                checkpoint.rotate(run_dir, keep, newest=newest, spare=self.kept_steps)
        self.accelerator.wait_for_everyone()

    def _facts(self) -> dict[str, Any]:
        """What must be the same, or be known, when a run goes on."""
        args, ranks = self.args, self.accelerator.num_processes
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        return {
            "step": self.state.global_step,
            "components": {slot: type(c).__name__ for slot, c in self.method.components.items()},
            "ranks": ranks,
            "optimizer": f"zero{plugin.zero_stage}" if plugin else "fsdp" if self.is_fsdp_enabled else "whole",
            "rows_per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * ranks,
            "num_generations": self.num_generations,
            "num_iterations": self.num_iterations,
            "prompts": fingerprint(self.train_dataset["prompt_key"]),
            "learning_rate": args.learning_rate,
            "rollbacks": self.rollbacks or 0,
            "ended": self.ended,
            "settings": dict(self.settings),
        }

    # -- resuming -----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """`transformers.Trainer.train`; True goes on from the newest complete checkpoint of `output_dir`.

        Raises:
            UserError: the run would go on as another experiment, or a checkpoint's state cannot be read.
        """
        if resume_from_checkpoint is True:
            newest = checkpoint.newest_complete(Path(self.args.output_dir), warnings.warn)
            if newest is None:
                raise UserError(f"{self.args.output_dir} holds no checkpoint: leave resume_from_checkpoint out")
            resume_from_checkpoint = str(newest)
        if resume_from_checkpoint:
            states, saved = checkpoint.load_state(Path(resume_from_checkpoint))
            check_continues(resume_from_checkpoint, saved, self._facts())
            self.states = states
            self._saved, self._ancestor = saved, checkpoint.identity(Path(resume_from_checkpoint))
            self.ended = saved.get("ended") if self.honours_end else None
            self.rollbacks = saved.get("rollbacks", 0) if self.rollbacks is None else self.rollbacks
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> Any:
        """transformers takes `save_steps`, `logging_steps` and `eval_steps` from the checkpoint's state."""
        trained = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)
        return trained

    def _load_optimizer_and_scheduler(self, folder: str | None) -> None:
        """Moments and place in the schedule are the checkpoint's; rate, schedule and the like are this run's."""
        if folder is None:
            return
        groups = self.optimizer.param_groups
        own = [{name: group[name] for name in OPTIMIZER_SETTINGS if name in group} for group in groups]
        super()._load_optimizer_and_scheduler(folder)
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)
        self._set_rate()

    def _set_rate(self) -> None:
        """The rate at this step is what this run's schedule says of this run's learning rate, `rollbacks` times halved.

        Raises:
            UserError: the rate changed, and the schedule follows the losses: it has no rate for a step.
        """
        args, saved = self.args, self._saved
        before = saved.get("learning_rate", args.learning_rate) / 2.0 ** saved.get("rollbacks", 0)
        factor = args.learning_rate / 2.0 ** (self.rollbacks or 0) / before
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if not hasattr(schedule, "lr_lambdas"):
            if factor != 1:
                raise UserError(
                    f"trainer.learning_rate={args.learning_rate}: the schedule {args.lr_scheduler_type} cannot be set "
                    f"to another rate on the way, it was trained with {saved['learning_rate']}: keep that one"
                )
            return
        schedule.base_lrs = [rate * factor for rate in schedule.base_lrs]
        rates = [
            base * at(schedule.last_epoch) for base, at in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        schedule._last_lr = rates
        for group, base, rate in zip(self.optimizer.param_groups, schedule.base_lrs, rates, strict=True):
            group["initial_lr"], group["lr"] = base, rate

    def _load_rng_state(self, folder: str | None) -> None:
        """Random states belong to ranks: on another number of them each draws anew, never what was drawn before."""
        saved_ranks = self._saved.get("ranks")
        if saved_ranks in (None, self.accelerator.num_processes):
            super()._load_rng_state(folder)
        else:
            anew = random.Random(f"{self.args.seed}/{self.state.global_step}/{saved_ranks}")
            set_seed(anew.getrandbits(31), device_specific=True)

    def _run_epoch(self, **kwargs: Any) -> None:
        """transformers takes one step where a run is resumed at its end, or is to stop before its first."""
        if self.state.global_step >= self.state.max_steps or self.ended or self.control.should_training_stop:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)


def generation_window(args: Any) -> int:
    """Optimizer steps that share one generation."""
    return -(-args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps)


def check_window(args: Any) -> None:
    """A checkpoint inside a generation window would replay that window's rollouts, and move histories twice.

    Raises:
        UserError: `save_steps` is no multiple of the window.
    """
    window = generation_window(args)
    if args.save_strategy == "steps" and args.save_steps % window:
        raise UserError(
            f"trainer.save_steps={args.save_steps:g} is no multiple of the {window} optimizer steps that share "
            f"one generation: a resumed run would differ; use a multiple of {window}"
        )


def fingerprint(prompt_keys: Iterable[str]) -> str:
    """The training prompts, in their order, as a short text: the same problems have the same one."""
    ids = list(prompt_keys)
    return f"{len(ids)} prompts ({hashlib.sha256(' '.join(ids).encode()).hexdigest()[:16]})"


def check_continues(folder: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the facts of a checkpoint with those of the run that would go on from it.

    Raises:
        UserError: the run would go on with another method's state, without its optimizer, or with other data.
    """
    if saved["components"] != now["components"]:
        slots = {**saved["components"], **now["components"]}
        differ = [slot for slot in slots if saved["components"].get(slot) != now["components"].get(slot)]
        raise UserError(
            f"{folder} was trained with other components ({', '.join(differ)}): resume with the same method, or start "
            "anew in another run.dir"
        )
    sharded = str(now["optimizer"]).startswith("zero")
    for name in ("optimizer", "ranks") if sharded else ("optimizer",):
        if saved[name] != now[name]:
            raise UserError(
                f"{folder} holds its optimizer as {saved['optimizer']} on {saved['ranks']} ranks, this run would read "
                f"{now['optimizer']} on {now['ranks']}: resume in that layout, or start anew with "
                f"model.path={folder} in another run.dir"
            )
    if not (Path(folder) / "scheduler.pt").exists():
        raise UserError(
            f"{folder} was saved without optimizer and schedule: leave out trainer.save_only_model where a run may be "
            f"resumed; start anew with model.path={folder} in another run.dir"
        )
    for name in ("rows_per_step", "num_generations", "num_iterations"):
        if saved[name] != now[name]:
            raise UserError(
                f"{name}={now[name]}, {folder} was trained with {saved[name]}, so prompts would be skipped or "
                "repeated: keep trainer.num_generations, trainer.num_iterations and the product of ranks, "
                "trainer.per_device_train_batch_size and trainer.gradient_accumulation_steps"
            )
    check_prompts(folder, saved, now["prompts"])


def check_prompts(folder: str, saved: Mapping[str, Any], prompts: str) -> None:
    """Raises `UserError` where the training data are not those that the checkpoint was trained on."""
    if saved.get("prompts", prompts) != prompts:
        raise UserError(
            f"{folder} was trained on {saved['prompts']}, this run would go on with {prompts}: its place in the data "
            "would be another; resume with the same data, or start anew with "
            f"model.path={folder} in another run.dir"
        )
