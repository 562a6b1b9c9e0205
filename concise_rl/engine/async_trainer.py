"""`AsyncTrainer`: with `trainer.max_staleness` set, the next steps are sampled while this one updates.

Between `rows.py` and `trainer.py`. Only tokens come from elsewhere: `async_sampler.py` samples the prompts of steps to
come, in the order of the data, and everything else (verdicts, shaping, histories, logs) happens here, step by step.

With s = max_staleness, step k publishes its weights as version k, orders the rows of step k + s, then waits for those
of step k, which version k - s sampled (version 0 where k < s). No clock decides which weights sample what: a run gives
the same bits each time, and with s = 0 those of a synchronous one. What is on order when a checkpoint is saved is
awaited, and part of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model

from concise_rl.engine.async_sampler import Order, SamplerProcess
from concise_rl.engine.disk import CheckpointError
from concise_rl.engine.forward import other_back_end
from concise_rl.engine.resuming import generation_window
from concise_rl.engine.rows import RowsTrainer
from concise_rl.errors import UserError
from concise_rl.methods.losses.importance import Importance
from concise_rl.methods.method import Method
from concise_rl.options import Teaching, ZeroVariance
from concise_rl.rollouts import LocalRollout, Sampled

AHEAD_FILE = "sampled_ahead.json"
"""The generations that were sampled ahead of a checkpoint's step."""


@dataclass
class Ahead:
    """A generation on order.

    Attributes:
        step: that will use it, optimizer steps before it.
        version: of the weights that sample it, as optimizer steps taken.
        prompt_ids: of its rows.
        rows: what was sampled, once it is here.
    """

    step: int
    version: int
    prompt_ids: list[list[int]]
    rows: list[Sampled] | None = None


class AsyncTrainer(RowsTrainer):
    """Takes its rows from a process that samples ahead, where `args.max_staleness` is set.

    Args:
        sampler: a process that was started before, while model and data were loaded; else `train` starts one.

    Raises:
        UserError: what decides on prompts or rows cannot be known ahead, or the model cannot go to another process.
    """

    def __init__(self, *args: Any, sampler: SamplerProcess | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sampler = sampler
        self._ahead: deque[Ahead] = deque()
        self._version = 0
        if self.args.async_server:
            raise UserError("async_server=true: ServerTrainer has the server; use it, or set async_server=false")
        if self.args.max_staleness is None:
            return
        check_async(self.args, self.method, self.teaching, adapter=is_peft_model(self.model))
        self._check_model()
        if self.vllm_importance_sampling_correction:
            low, high = self.vllm_importance_sampling_clip_min, self.vllm_importance_sampling_clip_max
            self._importance = Importance(self.vllm_importance_sampling_mode, low, high)

    def _check_model(self) -> None:
        given = [name for name in ("tools", "environment_factories", "rollout_func") if getattr(self, name)]
        if given:
            raise UserError(f"{_asked(self.args)}: {given[0]} makes rows that cannot be sampled ahead: leave it out")
        kind = type(self.accelerator.unwrap_model(self.model))
        if not (self._samples_itself(None, {}) and kind.__module__.startswith("transformers.models.")):
            raise UserError(
                f"{_asked(self.args)}: the sampler process rebuilds models of transformers that have a plain key-value "
                f"cache, and {kind.__name__} is none: set trainer.max_staleness=null"
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The process lives as long as training does."""
        staleness = self.args.max_staleness
        if staleness is None:
            return super().train(*args, **kwargs)
        self._ahead.clear()
        self._sampler = self._sampler or SamplerProcess()
        try:
            self._sampler.hold(self.accelerator.unwrap_model(self.model), slots=staleness + 1)
            return super().train(*args, **kwargs)
        finally:
            self._sampler.end()
            self._sampler = None

    # -- rows ---------------------------------------------------------------------------------------------------------

    @property
    def _samples_ahead(self) -> bool:
        return self.args.max_staleness is not None and self._mode == "train"

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, *args, **kwargs):
        if not self._samples_ahead:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)
        self._order()
        step = self.state.global_step
        foreseen = bool(self._ahead) and self._ahead[0].step == step
        self._version = self._ahead[0].version if foreseen else step
        self._metrics["train"]["staleness"].append(step - self._version)
        if not foreseen:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *args, **kwargs)
        ahead = self._ahead.popleft()
        if ahead.prompt_ids != [list(ids) for ids in prompt_ids]:
            raise RuntimeError(f"step {step} draws other prompts than were sampled ahead for it")
        rows = self._rows_of(ahead)
        return [list(row.token_ids) for row in rows], [list(row.logprobs or ()) for row in rows]

    def _order(self) -> None:
        """Publish the weights of this step, and order with them what is within `max_staleness` of it.

        A first step that nobody foresaw is not ordered but sampled here, while the process starts.
        """
        step = self.state.global_step
        first = self._ahead[-1].step + 1 if self._ahead else step + min(1, self.args.max_staleness)
        last = min(step + self.args.max_staleness, self.state.max_steps - 1)
        if first > last:
            return
        assert self._sampler is not None
        slot = step % (self.args.max_staleness + 1)  # whoever was to sample from it has answered
        self._sampler.publish(self.accelerator.unwrap_model(self.model), slot)
        for at in range(first, last + 1):
            ahead = Ahead(at, step, self._prompts_at(at))
            self._ahead.append(ahead)
            self._sampler.ask(Order(slot, ahead.prompt_ids, self._settings_at(at, len(ahead.prompt_ids))))

    def _prompts_at(self, step: int) -> list[list[int]]:
        """The tokens of the prompts that a step draws, each as often as it is sampled."""
        rows = [self.train_dataset[i] for i in self.prompt_order.prompts_of(step)]
        prompts = [self.prompt_source.edited(row, step)["prompt"] for row in rows]
        return [list(ids) for ids in self._tokenize_prompts(prompts)[0] for _ in range(self.num_generations)]

    def _settings_at(self, step: int, rows: int) -> dict[str, Any]:
        temperature, limit = self._sampling_at(step)
        seeds = torch.randint(2**62, (rows,)).tolist()
        return self._draw_settings(limit) | {"temperature": temperature, "seeds": seeds}

    def _rows_of(self, ahead: Ahead) -> list[Sampled]:
        if ahead.rows is None:
            assert self._sampler is not None
            ahead.rows = self._sampler.answer()
        return ahead.rows

    def _rollout(self, *args: Any) -> LocalRollout:
        rollout = super()._rollout(*args)
        if not self._samples_ahead:
            return rollout
        return dataclasses.replace(rollout, version=self._version)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Rows of the weights that learn from them need no correction, which would be that of rounding."""
        output = super()._generate_and_score_completions(inputs)
        if self.args.max_staleness is not None and self._version == self.state.global_step:
            output.pop("sampling_per_token_logps", None)
        return output

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {"max_staleness": self.args.max_staleness}

    def _save_beside(self, folder: Path) -> None:
        super()._save_beside(folder)
        if self.args.max_staleness is not None:
            for ahead in self._ahead:
                self._rows_of(ahead)
            (folder / AHEAD_FILE).write_text(json.dumps([dataclasses.asdict(ahead) for ahead in self._ahead]))

    def _load_beside(self, folder: Path) -> None:
        super()._load_beside(folder)
        if self.args.max_staleness is not None:
            try:
                saved = json.loads((folder / AHEAD_FILE).read_text())
                self._ahead.extend(
                    Ahead(**entry | {"rows": [Sampled(**row) for row in entry["rows"]]}) for entry in saved
                )
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise CheckpointError(f"{folder / AHEAD_FILE} cannot be read ({error}): resume from another") from error


def check_async(args: Any, method: Method, teaching: Teaching, *, adapter: bool) -> None:
    """Refuse what cannot be sampled ahead, or not as the trainer would; nothing where sampling is synchronous.

    Raises:
        UserError: the setting, and what to set instead.
    """
    if args.max_staleness is None or args.async_server:
        return
    if args.max_staleness < 0:
        raise UserError(f"trainer.max_staleness={args.max_staleness}: give 0 or more steps, 1 is usual")
    back_end, late = other_back_end(args), "it decides by verdicts that are not there yet"
    curriculum, sampler = type(method.curriculum).__name__, type(method.sampler).__name__
    refused = [
        (args.world_size > 1, f"{args.world_size} ranks", "one process trains; start one"),
        (args.device.type != "cpu", f"device {args.device}", "weights go through the host's memory; use_cpu=true"),
        (back_end, f"trainer.{back_end}", "the sampler process has our own sampling loop alone; leave it out"),
        (args.bf16 or args.fp16, "bf16 or fp16", "autocast is not handed over; leave it out"),
        (args.deepspeed or args.fsdp, "deepspeed or fsdp", "weights lie in shards; leave it out"),
        (adapter, "an adapter", "all weights are handed over; set peft=none, or model.merge_adapter=true"),
        (generation_window(args) > 1, "several steps a generation", "set num_iterations=1, no steps_per_generation"),
        (args.ignore_data_skip, "trainer.ignore_data_skip", "prompts follow from the step; leave it out"),
        (args.loss_type == "vespo", "trainer.loss_type=vespo", "it weighs ratios itself; take another loss"),
        (method.curriculum, f"the curriculum {curriculum}", f"{late}; take a method without"),
        (teaching.zero_variance is ZeroVariance.refill, "zero_variance=refill", f"{late}; use drop"),
        (method.sampler, f"the sampler {sampler}", "it asks for tokens in turns; take a method without"),
    ]
    for present, what, remedy in refused:
        if present:
            raise UserError(f"{_asked(args)} does not go with {what}: {remedy}, or set engine=sync")


def _asked(args: Any) -> str:
    return f"trainer.max_staleness={args.max_staleness} (engine=async)"
