"""`ResumableTrainer`: a run of reinforcement learning that is killed and resumed stays one experiment.

Between `lean.py`, the step, and `trainer.py`, the method. `saving.py` has what any trainer needs; here is what a run of
RL must share with its checkpoint: components, prompts, and which rollouts a step holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_model

from concise_rl.engine.lean import LeanTrainer
from concise_rl.engine.reference import REFERENCE_FILE, load_beside
from concise_rl.engine.saving import Resumable, check_optimizer
from concise_rl.engine.settings import REFUSED
from concise_rl.errors import UserError
from concise_rl.methods.method import Method, States


class ResumableTrainer(Resumable, LeanTrainer):
    """A run of reinforcement learning that can be resumed; a subclass sets method and states."""

    method: Method
    states: States

    @property
    def _follows(self) -> bool:
        """Whether the KL term's reference follows the policy, and so is state."""
        return bool(self.args.sync_ref_model)

    def _save_beside(self, folder: Path) -> None:
        if self._follows:
            save_model(self.accelerator.unwrap_model(self.ref_model), str(folder / REFERENCE_FILE))

    def _load_beside(self, folder: Path) -> None:
        if self._follows:
            reference = self.accelerator.unwrap_model(self.ref_model)
            load_beside(reference, folder / REFERENCE_FILE, field="trainer.sync_ref_model")

    def _facts(self) -> dict[str, Any]:
        args, ranks = self.args, self.accelerator.num_processes
        return super()._facts() | {
            "components": self.method.class_names,
            "rows_per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * ranks,
            "num_generations": self.num_generations,
            "num_iterations": self.num_iterations,
            "prompts": fingerprint(self.train_dataset["prompt_key"]),
        }

    def _check_continues(self, folder: str, saved: Mapping[str, Any]) -> None:
        check_continues(folder, saved, self._facts())


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
    check_optimizer(folder, saved, now)
    for name in ("rows_per_step", "num_generations", "num_iterations"):
        if saved[name] != now[name]:
            raise UserError(
                f"{name}={now[name]}, {folder} was trained with {saved[name]}, so prompts would be skipped or "
                "repeated: keep trainer.num_generations, trainer.num_iterations and the product of ranks, "
                "trainer.per_device_train_batch_size and trainer.gradient_accumulation_steps"
            )
    for name in ("max_staleness", "weight_sync_steps"):
        if saved.get(name) != now.get(name):
            raise UserError(
                f"{name}={now.get(name)}, {folder} was trained with {saved.get(name)}: "
                f"{REFUSED['trainer.max_staleness']}; keep it, or start anew in another run.dir"
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
