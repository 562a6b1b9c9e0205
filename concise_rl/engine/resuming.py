"""`ResumableTrainer`: a run that is killed and resumed, on another number of ranks too, stays one experiment.

Between `lean.py`, the step, and `trainer.py`, the method. transformers writes and reads weights, optimizer, schedule
and random states; this class makes its checkpoints complete or absent, adds the state of the components, and looks
after what transformers lets pass: another optimizer layout, another batch, a run that is already at its end.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils import set_seed

from concise_rl.engine import checkpoint
from concise_rl.engine.lean import LeanTrainer
from concise_rl.errors import UserError
from concise_rl.methods.method import Method, States


class ResumableTrainer(LeanTrainer):
    """Saves and restores the states of the method's components beside the weights; a subclass sets both attributes."""

    method: Method
    states: States
    _staging_dir: str | None = None
    _saved_ranks: int | None = None

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
            checkpoint.publish(staging / name, run_dir / name)
            if self.args.save_total_limit:
                checkpoint.rotate(run_dir, self.args.save_total_limit)
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
            self._saved_ranks = saved["ranks"]
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_rng_state(self, folder: str | None) -> None:
        """Random states belong to ranks: on another number of them each draws anew, never what was drawn before."""
        if self._saved_ranks in (None, self.accelerator.num_processes):
            super()._load_rng_state(folder)
        else:
            anew = random.Random(f"{self.args.seed}/{self.state.global_step}/{self._saved_ranks}")
            set_seed(anew.getrandbits(31), device_specific=True)

    def _run_epoch(self, **kwargs: Any) -> None:
        """transformers takes one step beyond the last where a run is resumed at its end."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)


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
