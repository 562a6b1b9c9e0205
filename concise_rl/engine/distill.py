"""`DistillingTrainer`: CRISP. The policy is drawn to itself under a conciseness instruction, on its own samples.

Sampling, verdicts, metrics, stored rollouts and checkpoints are `ConciseTrainer`'s; only the loss is another:

    loss = mean over the sampled tokens of sum_j p_j (log p_j - log q_j)

p is the policy after the prompt, q the teacher after the prompt with the instruction, both at the sampling temperature.
The teacher is a copy of the policy's weights, made at the start and again every `refresh` steps.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_model
from torch import Tensor
from transformers import TrainerCallback

from concise_rl.engine.reference import load_beside
from concise_rl.engine.trainer import ConciseTrainer
from concise_rl.errors import UserError
from concise_rl.kernels.reverse_kl import linear_reverse_kl
from concise_rl.model.cache import positions, takes_positions
from concise_rl.model.sampling import left_pad
from concise_rl.model.scoring import LossRows, logit_options
from concise_rl.model.shared_prompts import PromptStates
from concise_rl.options import Distillation

TEACHER_FILE = "teacher.safetensors"


@dataclass(frozen=True)
class DistillRows(LossRows):
    """Rows with the prompts that the teacher reads, (N, Q), padded on the left."""

    teacher_ids: Tensor | None = None
    teacher_mask: Tensor | None = None

    def take(self, rows: Tensor) -> Self:
        assert self.teacher_ids is not None
        assert self.teacher_mask is not None
        plain = dataclasses.replace(self, teacher_ids=None, teacher_mask=None)
        mask = self.teacher_mask[rows]
        columns = slice(-max(1, int(mask.sum(dim=1).max())), None)
        own = {"teacher_ids": self.teacher_ids[rows][:, columns], "teacher_mask": mask[:, columns]}
        return dataclasses.replace(super(DistillRows, plain).take(rows), **own)


@dataclass(frozen=True)
class States:
    """Given to a model's forward as `scoring`: the hidden states that predict the last T tokens, and the head."""

    completion_T: int

    def run(self, model: Any, *, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> tuple[Tensor, Any]:
        places = {"position_ids": positions(attention_mask)} if takes_positions(model.base_model) else {}
        output = model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **places)
        return output.last_hidden_state[:, -self.completion_T - 1 : -1], model.get_output_embeddings()


@dataclass(frozen=True)
class ReverseKL:
    """Given to the policy's forward as `scoring`: the divergence from the teacher's states."""

    mask_NT: Tensor
    weight_NT: Tensor
    temperature: float
    teacher_NTH: Tensor
    teacher_head: Any

    def run(self, model: Any, *, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        states_NTH, head = States(self.mask_NT.shape[1]).run(model, input_ids=input_ids, attention_mask=attention_mask)
        return linear_reverse_kl(
            states_NTH,
            head.weight,
            self.teacher_NTH,
            self.teacher_head.weight,
            self.weight_NT,
            bias=head.bias,
            teacher_bias=self.teacher_head.bias,
            temperature=self.temperature,
            mask=self.mask_NT,
            **logit_options(model.config.get_text_config()),  # type: ignore[arg-type]
        )


class DistillingTrainer(ConciseTrainer):
    """A `ConciseTrainer` whose loss is the reverse KL to a concise teacher; the method's credit is logged alone.

    Args:
        distill: instruction and refresh.
        kwargs: those of `ConciseTrainer`.

    Raises:
        UserError: weights in shards, from which no teacher can be copied.
    """

    def __init__(self, *args: Any, distill: Distillation, **kwargs: Any) -> None:
        self.distill = distill
        super().__init__(*args, **kwargs)
        if self.args.max_staleness is not None:
            raise UserError("distill has no ratios to correct for older weights: leave out max_staleness")
        if self._sharded or self.is_deepspeed_enabled:
            raise UserError("distill copies the policy's weights, which DeepSpeed and FSDP hold in shards: use DDP")
        self._share_prompts = self._drop_idle_rows = False
        self.teacher = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.teacher_step = 0
        self.add_callback(_Refresh(self))

    def copy_teacher(self) -> None:
        """The teacher becomes the policy as it is now."""
        for mine, theirs in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            mine.copy_(theirs.detach())
        self.teacher_step = self.state.global_step

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        return super()._facts() | {"teacher_step": self.teacher_step}

    def _save_beside(self, folder: Path) -> None:
        super()._save_beside(folder)
        if self.distill.refresh:
            save_model(self.teacher, str(folder / TEACHER_FILE))

    def _load_beside(self, folder: Path) -> None:
        """A teacher that is never copied anew is the model that the run begins with, which is there already."""
        super()._load_beside(folder)
        if self.distill.refresh:
            load_beside(self.teacher, folder / TEACHER_FILE, field="distill.refresh")
            self.teacher_step = self._saved["teacher_step"]

    # -- the step -----------------------------------------------------------------------------------------------------

    def _write(self, output: dict[str, Any], *args: Any) -> None:
        super()._write(output, *args)
        ids, *_ = self._tokenize_prompts([self._instructed(row["prompt"]) for row in self.generation.rows])
        output["teacher_ids"], output["teacher_mask"] = left_pad(
            ids, self._tokenizer.pad_token_id, output["prompt_ids"].device
        )

    def _instructed(self, prompt: Any) -> Any:
        """A prompt, text or messages, with the instruction, as the teacher reads it."""
        if isinstance(prompt, str):
            return self.distill.instructed(prompt, "")
        *before, last = prompt
        return [*before, {**last, "content": self.distill.instructed(last["content"], "\n\n")}]

    def _loss_rows(self, inputs: dict[str, Any]) -> DistillRows:
        rows = super()._loss_rows(inputs)
        fields = {field.name: getattr(rows, field.name) for field in dataclasses.fields(rows)}
        return DistillRows(**fields, teacher_ids=inputs["teacher_ids"], teacher_mask=inputs["teacher_mask"])

    def _loss_and_logs(
        self, model: Any, rows: LossRows, prompts: PromptStates | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(rows, DistillRows)
        assert rows.teacher_ids is not None
        assert rows.teacher_mask is not None
        mask = rows.loss_mask
        with torch.no_grad(), self.accelerator.autocast():
            teacher_NTH, head = self.teacher(
                input_ids=torch.cat([rows.teacher_ids, rows.completion_ids], dim=1),
                attention_mask=torch.cat([rows.teacher_mask, rows.completion_mask], dim=1),
                scoring=States(mask.shape[1]),
            )
        scoring = ReverseKL(mask, rows.weight, self.temperature, teacher_NTH, head)
        with self.accelerator.autocast():
            loss, kl, entropy = model(
                input_ids=torch.cat([rows.prompt_ids, rows.completion_ids], dim=1),
                attention_mask=torch.cat([rows.prompt_mask, rows.completion_mask], dim=1),
                scoring=scoring,
            )
        sums = {"kl_to_teacher": kl.sum(), "entropy": entropy.sum(), "scored_tokens": mask.sum().float()}
        return loss, sums


class _Refresh(TrainerCallback):
    """Copies the teacher anew every `refresh` steps, before the step's checkpoint is written."""

    def __init__(self, trainer: DistillingTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        refresh = self.trainer.distill.refresh
        if refresh and state.global_step % refresh == 0:
            with torch.no_grad():
                self.trainer.copy_teacher()
