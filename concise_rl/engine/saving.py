"""`Resumable`: what any `transformers.Trainer` needs so that a run that is killed and resumed stays one experiment.

transformers writes and reads weights, optimizer, schedule and random states; this mixin makes its checkpoints complete
or absent, adds the states of components, looks after what transformers lets pass (another optimizer layout, a run that
is already at its end), and makes settings that changed take effect, where transformers goes on with the checkpoint's.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from concise_rl.engine import checkpoint
from concise_rl.errors import UserError

OPTIMIZER_SETTINGS = ("betas", "eps", "weight_decay", "momentum")
"""What an optimizer's parameter groups hold of the configuration, beside the rate."""

Trainer: Any = object
"""Stands for `transformers.Trainer`, whose subclass this is mixed into."""


class Resumable(Trainer):
    """Saves and restores the states of components beside the weights; a subclass says what must not change.

    Attributes:
        states: of the components, by slot.
        settings: the run's configuration as plain values, kept in checkpoints for `settings.check_settings`.
        rollbacks: how often the learning rate is halved; None until training begins, for what the checkpoint says.
        ended: why a guard ended the run; a checkpoint keeps it, and a run that goes on from there takes no step.
        honours_end: False where a run goes on though a guard ended it.
        kept_steps: whose checkpoints `save_total_limit` leaves alone, such as the best one's.
    """

    states: dict[str, Any]
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
                if self.accelerator.is_main_process:
                    self._save_beside(staging / name)
        finally:
            self._staging_dir = None
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoint.save_state(staging / name, self.states, self._facts())
            checkpoint.publish(staging / name, run_dir / name, self._ancestor)
            self._ancestor = checkpoint.identity(run_dir / name)
        self._rotate(run_dir)
        self.accelerator.wait_for_everyone()

    def _rotate(self, run_dir: Path) -> None:
        """Keep `save_total_limit` checkpoints up to this step."""
        if self.accelerator.is_main_process and self.args.save_total_limit:
            newest = self.state.global_step
            checkpoint.rotate(run_dir, self.args.save_total_limit, newest=newest, spare=self.kept_steps)

    def _save_beside(self, folder: Path) -> None:
        """What a subclass keeps beside weights and states, on the main process."""

    def _load_beside(self, folder: Path) -> None:
        """The inverse of `_save_beside`, on every rank."""

    def _facts(self) -> dict[str, Any]:
        """What must be the same, or be known, when a run goes on."""
        plugin = getattr(self.accelerator.state, "deepspeed_plugin", None)
        return {
            "step": self.state.global_step,
            "ranks": self.accelerator.num_processes,
            "optimizer": f"zero{plugin.zero_stage}" if plugin else "fsdp" if self.is_fsdp_enabled else "whole",
            "learning_rate": self.args.learning_rate,
            "rollbacks": self.rollbacks or 0,
            "ended": self.ended,
            "settings": dict(self.settings),
        }

    def _check_continues(self, folder: str, saved: Mapping[str, Any]) -> None:
        """Raises `UserError` where the run would go on without its optimizer, or as another experiment."""
        check_optimizer(folder, saved, self._facts())

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
            self._check_continues(resume_from_checkpoint, saved)
            self.states = states
            self._saved, self._ancestor = saved, checkpoint.identity(Path(resume_from_checkpoint))
            self.ended = saved.get("ended") if self.honours_end else None
            self._load_beside(Path(resume_from_checkpoint))
            if self.rollbacks is None:  # the schedule was saved at the rate of the rollbacks before it
                self.rollbacks = saved.get("rollbacks_to_here", saved.get("rollbacks", 0))
        trained = super().train(resume_from_checkpoint, *args, **kwargs)
        self._rotate(Path(self.args.output_dir))  # a run that was killed after its last save did not get to it
        return trained

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
        now = args.learning_rate / 2.0 ** (self.rollbacks or 0)
        factor = now / before if before else 1.0
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if not hasattr(schedule, "lr_lambdas"):
            if factor != 1:
                raise UserError(
                    f"trainer.learning_rate={args.learning_rate}: the schedule {args.lr_scheduler_type} cannot be set "
                    f"to another rate on the way, it was trained with {saved['learning_rate']}: keep that one"
                )
            return
        schedule.base_lrs = [rate * factor if before else now for rate in schedule.base_lrs]
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


def check_optimizer(folder: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose optimizer this run cannot read.

    Raises:
        UserError: it lies in another layout, or is not there.
    """
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
