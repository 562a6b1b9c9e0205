"""`ConciseTrainer`: TRL's GRPO with its reward and credit taken over by a shaper and an advantage.

With `lean.py` the only file that knows TRL. `LeanTrainer` samples and computes the loss, TRL does the rest (prompts,
optimizer, sharding, logging); between sampling and loss this class builds the `RolloutBatch`, shapes the reward, and
writes the credit of this rank's rows. `minimal.py` is the same algorithm on one screen.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Collection, Sequence
from typing import Any

import torch
from accelerate.utils import gather
from datasets import Dataset
from torch import Tensor

from concise_rl.batch import RolloutBatch
from concise_rl.data import Prompt, render
from concise_rl.engine.collect import collect
from concise_rl.engine.groups import Row, Sample, draw_rows, judge, leave_out, refill
from concise_rl.engine.lean import ConciseConfig
from concise_rl.engine.resuming import ResumableTrainer, check_window
from concise_rl.errors import UserError
from concise_rl.methods.advantages import Advantage
from concise_rl.methods.advantages.base import check_credit
from concise_rl.methods.metrics import step_metrics
from concise_rl.methods.shapers import Compose, Shaper
from concise_rl.options import Teaching, Truncated, ZeroVariance
from concise_rl.rollouts import REPETITION_PART, LocalRollout, StepRecord, StepSink, TokenVocabulary, single_token
from concise_rl.verifiers import Verifier

SIGNALS = frozenset({"think_entropy", "answer_entropy", "mean_entropy", "entropies", "logprobs"})
"""What only a forward pass under the sampling policy can tell."""


def training_dataset(prompts: Sequence[Prompt], tokenizer: Any, system: str | None) -> Dataset:
    """The rows TRL iterates over: rendered prompt, content key, reference, and the columns as JSON."""
    return Dataset.from_list(
        [
            {
                "prompt": render(prompt, tokenizer, system),
                "prompt_id": prompt.id,
                "reference": prompt.reference,
                "columns": json.dumps(dict(prompt.columns)),
            }
            for prompt in prompts
        ]
    )


class ConciseTrainer(ResumableTrainer):
    """GRPO whose reward is shaped and whose credit is assigned by plug-in components.

    Args:
        model: a causal language model or its name.
        shapers: applied left to right to the task reward.
        advantage: shaped reward to credit.
        verifier: completion and reference to `Verdict`; called once a completion.
        train_dataset: made by `training_dataset`.
        args: any `trl.GRPOConfig`, with the fields of `ConciseConfig`.
        sinks: told of every generation and every optimizer step, on the main process.
        think_end: the tag that ends the thinking phase; one token of the tokenizer, or phases do not exist.
        verify_deadline_seconds: after this a verification is killed and its row counted as not scorable.
        teaching: what becomes of completions that were cut off and of groups without variance.
        kwargs: passed on to `trl.GRPOTrainer` (`peft_config`, `callbacks`, ...).

    Raises:
        UserError: a component needs what tokenizer, data or schedule cannot give.
    """

    def __init__(
        self,
        model: Any,
        *,
        shapers: Sequence[Shaper],
        advantage: Advantage,
        verifier: Verifier,
        train_dataset: Dataset,
        args: ConciseConfig,
        processing_class: Any,
        sinks: Sequence[StepSink] = (),
        think_end: str = "</think>",
        verify_deadline_seconds: float = 5.0,
        teaching: Teaching | None = None,
        **kwargs: Any,
    ) -> None:
        self.shaper = Compose(list(shapers))
        self.shaper_state = self.shaper.init()
        self.advantage = advantage
        self.verifier = verifier
        self.verify_deadline_seconds = verify_deadline_seconds
        self.teaching = teaching or Teaching()
        self.sinks = list(sinks)
        self.needs = self.shaper.needs | advantage.needs
        self._repetition_ngram = max(
            (getattr(s, "repetition_ngram", 0) for s in shapers if REPETITION_PART in s.needs), default=0
        )
        self._awaiting_signals = False
        self._signals: tuple[Tensor, Tensor] | None = None
        super().__init__(
            model=model,
            reward_funcs=[task_reward],
            args=args,
            train_dataset=train_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self.vocabulary = TokenVocabulary(frozenset(self.eos_token_ids), single_token(self._tokenizer, think_end))
        self.vocabulary.check(self.needs, think_end)
        check_window(self.args)

    def visits_per_prompt(self) -> float:
        """How often the whole run draws each prompt, on average."""
        args = self.args
        if args.max_steps <= 0:
            return float(args.num_train_epochs)
        generations = (
            args.max_steps * args.gradient_accumulation_steps / args.steps_per_generation / self.num_iterations
        )
        return generations * args.generation_batch_size / args.num_generations / len(self.train_dataset)

    # -- rollouts ---------------------------------------------------------------------------------------------------

    def _generate(self, prompts: list) -> tuple:
        """Sample and judge this rank's rows; under `zero_variance=refill` other prompts take the places of some."""
        self._generate_seconds = 0.0
        samples, generated = self._sample(self._inputs, prompts)
        if self._mode == "train" and self.teaching.zero_variance is ZeroVariance.refill:
            samples, cost = self._refill(samples, generated)
            self._inputs[:] = [s.row for s in samples]
            prompts[:] = [s.row["prompt"] for s in samples]
            for name, value in cost.items():
                self._metrics["train"][name].append(value)
            generated = (
                [s.prompt_ids for s in samples],
                [s.rollout.token_ids for s in samples],
                None,
                [s.message for s in samples],
                None if generated[4] is None else [s.sampler_logprobs for s in samples],
                *generated[5:],
            )
        self._samples, self._completion_ids = samples, generated[1]
        self._metrics[self._mode]["generate_seconds"].append(self._generate_seconds)
        return generated

    def _sample(self, rows: list[Row], prompts: list) -> tuple[list[Sample], tuple]:
        """One completion of each row's prompt, judged, and all that TRL's sampling returns."""
        started = time.perf_counter()
        generated = super()._generate(prompts)
        self._generate_seconds += time.perf_counter() - started
        prompt_ids, completion_ids, _, messages, logprobs, *_ = generated
        skip = self.vocabulary.eos_ids | {self._tokenizer.pad_token_id}
        texts = self._tokenizer.batch_decode([[token for token in ids if token not in skip] for ids in completion_ids])
        cut_off = [self.vocabulary.cut_off(ids) for ids in completion_ids]
        verdicts = judge(
            self.verifier,
            [(text, row["reference"]) for text, row in zip(texts, rows, strict=True)],
            cut_off,
            truncated=self.teaching.truncated,
            deadline_seconds=self.verify_deadline_seconds,
        )
        samples = [
            Sample(
                row=row,
                prompt_ids=prompt_ids[b],
                message=messages[b],
                sampler_logprobs=None if logprobs is None else logprobs[b],
                rollout=LocalRollout(
                    prompt_id=row["prompt_id"],
                    prompt=prompt_text(row["prompt"]),
                    token_ids=completion_ids[b],
                    completion=texts[b],
                    verdict=verdicts[b],
                    columns=json.loads(row["columns"]),
                ),
                cut_off=cut_off[b],
            )
            for b, row in enumerate(rows)
        ]
        return samples, generated

    def _refill(self, samples: list[Sample], generated: tuple) -> tuple[list[Sample], dict[str, float]]:
        _, _, tool_mask, _, _, extra_fields, images, _ = generated
        if tool_mask is not None or images is not None or extra_fields:
            raise UserError("zero_variance=refill samples plain text, not tools, images or a rollout_func: use drop")
        # Counted within the optimizer step, which may span several generations, so that a resumed run draws the same.
        generation = self._step % self.args.gradient_accumulation_steps

        def draw(n: int, used: Collection[str], round_number: int) -> list[Row]:
            seed = [self.args.seed, self.state.global_step, generation, round_number]
            return draw_rows(self.train_dataset, n, used, seed)

        return refill(
            samples,
            group_size=self.num_generations,
            teaching=self.teaching,
            draw=draw,
            sample=lambda rows: self._sample(rows, [row["prompt"] for row in rows])[0],
        )

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        """The task rewards of all ranks as TRL takes them, (N, 1), NaN where unscorable."""
        verdicts = [s.rollout.verdict for s in self._samples]
        rewards = [[v.reward if v.scorable else torch.nan] for v in verdicts]
        return gather(torch.tensor(rewards, dtype=torch.float32, device=self.accelerator.device))

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **options
    ):
        """While signals are awaited, the first scoring pass yields them, with entropies."""
        awaited, self._awaiting_signals = self._awaiting_signals, False
        scored = super()._get_per_token_logps_and_entropies(
            model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy or awaited, **options
        )
        if awaited:
            self._signals = scored[:2]
        return scored

    # -- one generation -----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training = self._mode == "train"
        wants_signals = bool(SIGNALS & self.needs)
        self._signals, self._awaiting_signals = None, wants_signals
        self._inputs = inputs
        output = super()._generate_and_score_completions(inputs)
        if wants_signals and training:
            output["old_per_token_logps"] = self._score(output)[0]
        elif wants_signals:
            self._score(output)
        self._awaiting_signals = False

        batch, prompts, completions = self._collect()
        taught, teaches = leave_out(batch, self.teaching)
        # Evaluation sees the state of training and must not move it.
        state = self.shaper_state if training else copy.deepcopy(self.shaper_state)
        shaped, state = self.shaper(taught, taught.task_reward, state)
        if training:
            self.shaper_state = state
        credit = self.advantage(taught, shaped.reward)
        check_credit(self.advantage, taught, credit)
        metrics = step_metrics(batch, shaped.reward, credit, taught=taught) | shaped.metrics
        self._replace_trl_logs(metrics, shaped.reward, credit)
        output["advantages"] = self._own_credit(credit, output["completion_ids"].shape[1])
        self._leave_out(output, teaches)
        if training and self.accelerator.is_main_process:
            record = StepRecord(taught, shaped.reward, credit, prompts, completions, metrics)
            for sink in self.sinks:
                sink.on_rollouts(record)
        return output

    def _score(self, output: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Old log-probs and entropies, (B, T) each: those of TRL's own pass if it ran one, else of one pass now."""
        if self._signals is None:
            ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
            mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
            with torch.no_grad():
                self._get_per_token_logps_and_entropies(
                    self.model, ids, mask, output["completion_ids"].shape[1], compute_entropy=True
                )
        assert self._signals is not None
        return self._signals

    def _collect(self) -> tuple[RolloutBatch, list[str], list[str]]:
        signals: list[tuple[Any, Any]] = [(None, None)] * len(self._samples)
        if self._signals is not None:
            logprobs, entropies = (signal.detach().float().cpu().numpy() for signal in self._signals)
            sizes = [len(ids) for ids in self._completion_ids]
            signals = [(logprobs[b, :size], entropies[b, :size]) for b, size in enumerate(sizes)]
        local = [
            dataclasses.replace(s.rollout, logprobs=logprobs, entropies=entropies)
            for s, (logprobs, entropies) in zip(self._samples, signals, strict=True)
        ]
        return collect(
            local,
            group_size=self.num_generations if self._mode == "train" else self.num_generations_eval,
            step=self.state.global_step,
            vocabulary=self.vocabulary,
            needs=self.needs,
            repetition_ngram=self._repetition_ngram,
        )

    def _own_rows(self, rows_N: Tensor) -> Tensor:
        """This rank's rows of what all ranks hold."""
        size = len(self._samples)
        return rows_N[self.accelerator.process_index * size :][:size].to(self.accelerator.device)

    def _own_credit(self, credit: Tensor, local_T: int) -> Tensor:
        """This rank's credit, as TRL's loss takes it: (B,) or (B, T)."""
        own = self._own_rows(credit)
        if own.ndim == 2:
            own = torch.nn.functional.pad(own, (0, max(0, local_T - own.shape[1])))[:, :local_T]
        return own.to(torch.float32)

    def _leave_out(self, output: dict[str, Any], teaches_N: Tensor) -> None:
        """Take the rows that do not teach out of the loss, its denominators and the KL term."""
        if self.teaching.truncated is not Truncated.mask and self.teaching.zero_variance is ZeroVariance.keep:
            return
        mask = output["completion_mask"]
        mask *= self._own_rows(teaches_N)[:, None].to(mask.dtype)
        loss_mask = mask * output.get("tool_mask", 1)
        output["num_items_in_batch"] = self.accelerator.gather(loss_mask.sum()).sum()
        self._metrics[self._mode]["left_out_frac"].append(float((~teaches_N).double().mean()))

    # -- logs ---------------------------------------------------------------------------------------------------------

    def _replace_trl_logs(self, metrics: dict[str, float], reward: Tensor, credit: Tensor) -> None:
        """TRL logged its own rewards and advantages of this batch; what trains are ours."""
        logged = self._metrics[self._mode]
        for key in [k for k in logged if k.startswith("rewards/")] + ["reward", "reward_std", "frac_reward_zero_std"]:
            logged.pop(key, None)
        for name, value in metrics.items():
            logged[name].append(value)
        credit_N = credit if credit.ndim == 1 else credit.mean(dim=1)
        for column, values in (("advantages", credit_N), ("rewards", reward)):
            rows = self._logs[column] if column == "advantages" else self._logs["rewards"][task_reward.__name__]
            for _ in range(min(len(values), len(rows))):
                rows.pop()
            rows.extend(values.tolist())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)  # puts the metrics of this step into `logs`
        if "loss" in logs and self._mode == "train" and self.accelerator.is_main_process:
            for sink in self.sinks:
                sink.on_metrics(self.state.global_step, {k: v for k, v in logs.items() if v is not None})

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """TRL writes a README beside every checkpoint; only a model that is pushed needs one."""
        if self.args.push_to_hub:
            super().create_model_card(*args, **kwargs)


def task_reward(**_: Any) -> list[float]:
    """The name under which TRL lists the reward; `ConciseTrainer._calculate_rewards` computes it."""
    raise RuntimeError("ConciseTrainer judges completions itself; TRL must not call this")


def prompt_text(prompt: str | list[dict[str, str]]) -> str:
    """A prompt for people: the text, or the last message of a conversation."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]
