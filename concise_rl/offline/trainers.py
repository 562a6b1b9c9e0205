"""TRL's tuning trainers with resumable checkpoints; with the engine the only place that knows TRL.

Each takes rows that `rows.tokenised` made. The losses are TRL's, but for O1-Pruner's, which TRL has not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from concise_rl.engine.saving import Resumable
from concise_rl.errors import UserError
from concise_rl.rollouts import StepSink


class Tuner(Resumable):
    """What all of them share: steps are told to sinks, and a checkpoint knows the rows that it was tuned on.

    Attributes:
        sinks: told of every optimizer step, on the main process.
        rows: checksum of the file that is tuned on.
    """

    sinks: Sequence[StepSink] = ()
    rows = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.states: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def _facts(self) -> dict[str, Any]:
        args = self.args
        own = args.per_device_train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes
        return super()._facts() | {"rows": self.rows, "rows_per_step": own, "recipe": type(self).__name__}

    def _check_continues(self, folder: str, saved: Any) -> None:
        super()._check_continues(folder, saved)
        now = self._facts()
        for name in ("recipe", "rows", "rows_per_step"):
            if saved.get(name) != now[name]:
                raise UserError(
                    f"{folder} was tuned with {name}={saved.get(name)}, now {name}={now[name]}: it would be another "
                    f"run; keep it, or start anew with model.path={folder} in another run.dir"
                )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the trainer does; an optimizer step also goes to the sinks."""
        super().log(logs, start_time)
        if "loss" in logs and self.accelerator.is_main_process:
            numbers = {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
            for sink in self.sinks:
                sink.on_metrics(self.state.global_step, numbers)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes a README beside every checkpoint; only a model that is pushed needs one."""
        if self.args.push_to_hub:
            super().create_model_card(*args, **kwargs)


class SFT(Tuner, SFTTrainer):
    """The mean negative log-prob of the completions' tokens."""

    def __init__(self, model: Any, *, args: SFTConfig, **kwargs: Any) -> None:
        # Left to itself TRL spares only the prompts that it cut into tokens itself; these rows come as tokens.
        if args.completion_only_loss is None:
            args.completion_only_loss = True
        super().__init__(model, args=args, **kwargs)


class Weighted(SFT):
    """O1-Pruner: rows pull the policy towards them or away, by weight, within a clip of the model that it began with.

        ratio_n = exp((log pi(y_n) - log pi_start(y_n)) / tokens of y_n)
        loss    = - mean over rows of min(ratio w, clip(ratio, 1 - c, 1 + c) w)              c = 0.2

    Source: arXiv 2501.12570. The start's log-probs are made once, before the first step.
    """

    clip = 0.2
    data_collator: Any
    _signature_columns: list[str] | None

    def __init__(self, model: Any, *, train_dataset: Dataset, **kwargs: Any) -> None:
        self._extras = [{"weight": row["weight"], "start_logprob": 0.0} for row in train_dataset]
        numbered = train_dataset.add_column("place", list(range(len(train_dataset)))).remove_columns("weight")
        super().__init__(model, train_dataset=numbered, **kwargs)
        collate = self.data_collator

        def with_extras(examples: list[dict[str, Any]]) -> dict[str, Any]:
            extras = [self._extras[example["place"]] for example in examples]
            batch = collate([{k: v for k, v in example.items() if k != "place"} for example in examples])
            return batch | {name: torch.tensor([row[name] for row in extras]) for name in ("weight", "start_logprob")}

        self.data_collator = with_extras
        self._score_start(collate)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list({*(self._signature_columns or ()), "place"})

    @torch.no_grad()
    def _score_start(self, collate: Any) -> None:
        """Mean log-prob of each row's completion under the model that training begins with."""
        self.model.eval()
        size = self.args.per_device_train_batch_size
        for first in range(0, len(self.train_dataset), size):
            examples = [self.train_dataset[n] for n in range(first, min(first + size, len(self.train_dataset)))]
            batch = collate([{k: v for k, v in example.items() if k != "place"} for example in examples])
            batch = {name: value.to(self.model.device) for name, value in batch.items()}
            for example, logprob in zip(examples, self._row_logprobs(self.model, batch).tolist(), strict=True):
                self._extras[example["place"]]["start_logprob"] = logprob
        self.model.train()

    def _row_logprobs(self, model: Any, batch: dict[str, Any]) -> torch.Tensor:
        """Mean log-prob of each row's completion, (B,)."""
        outputs = model(**batch, use_cache=False, fused_lm_head=True)
        return outputs.log_probs.sum(dim=1) / outputs.label_mask.sum(dim=1).clamp(min=1)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The clipped, weighted ratio; a step's micro-batches weigh alike, as rows do."""
        weight, start = inputs.pop("weight"), inputs.pop("start_logprob")
        ratio = (self._row_logprobs(model, inputs) - start).exp()
        gain = torch.minimum(ratio * weight, ratio.clamp(1 - self.clip, 1 + self.clip) * weight)
        if self.model.training:
            self._total_train_tokens += int(self.accelerator.reduce(inputs["attention_mask"].sum(), reduction="sum"))
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            self._metrics["train"]["ratio"].append(float(ratio.detach().mean()))
        loss = -gain.mean() / self.current_gradient_accumulation_steps
        return (loss, None) if return_outputs else loss


class DPO(Tuner, DPOTrainer):
    """DPO (arXiv 2305.18290) against the model that it began with."""

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """The rows are tokens already; TRL would make tokens of texts anew."""
        return dataset


class SimPO(Tuner, CPOTrainer):
    """SimPO (arXiv 2405.14734): by mean log-prob, with a margin, without a reference; TRL's CPO trainer."""

    def __init__(self, model: Any, *, args: CPOConfig, train_dataset: Dataset, **kwargs: Any) -> None:
        # The rows fit the model's context; left to itself TRL cuts them at 512 tokens.
        pairs = [[len(row[f"{side}_ids"]) for side in ("prompt", "chosen", "rejected")] for row in train_dataset]
        args.max_length = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in pairs)
        args.remove_unused_columns = False  # its collator reads what no model takes
        super().__init__(model, args=args, train_dataset=train_dataset, **kwargs)

    def tokenize_row(self, feature: Any, model: Any = None) -> dict[str, Any]:
        """The rows are tokens already; TRL would make tokens of texts anew."""
        prompt = feature["prompt_ids"]
        made = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"]
            made[f"{side}_input_ids"] = prompt + answer
            made[f"{side}_attention_mask"] = [1] * len(prompt + answer)
            made[f"{side}_labels"] = [-100] * len(prompt) + answer
        return made

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's, and the tokens are counted, in what a checkpoint keeps."""
        own = inputs["chosen_attention_mask"].sum() + inputs["rejected_attention_mask"].sum()
        self.state.num_input_tokens_seen += int(self.accelerator.reduce(own, reduction="sum"))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs | ({"num_tokens": self.state.num_input_tokens_seen} if "loss" in logs else {}), start_time)


TUNERS: dict[str, tuple[type, type]] = {
    "sft": (SFT, SFTConfig),
    "weighted": (Weighted, SFTConfig),
    "dpo": (DPO, DPOConfig),
    "simpo": (SimPO, CPOConfig),
}
"""Recipe to trainer and its configuration."""
