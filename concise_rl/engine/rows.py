"""`RowsTrainer`: which prompts a generation gets, and how its rows come about and are judged.

Between `resuming.py` and `trainer.py`. Prompts come by epoch or from the method's curriculum, edited; rows from TRL's
back ends (our sampling loop, vLLM, tools) or from the method's sampler; groups without variance are refilled.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor

from concise_rl.batch import SAMPLED_TOKENS
from concise_rl.data.templates import PromptTokens
from concise_rl.engine.collect import Collected
from concise_rl.engine.generate import DealtGenerate
from concise_rl.engine.groups import DatasetRow, Sample, refill
from concise_rl.engine.order import EpochSampler, PromptSource
from concise_rl.engine.outcome import batch_of, judged
from concise_rl.engine.resuming import ResumableTrainer
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Component, Cut
from concise_rl.methods.drawing import seeded
from concise_rl.methods.method import Method
from concise_rl.options import Teaching, ZeroVariance
from concise_rl.ranks import every_rank
from concise_rl.rollouts import LocalRollout, PolicyPrompt, Sampled, TokenRequest, TokenVocabulary
from concise_rl.verifiers import Verifier


@dataclass
class Generation:
    """One generation on its way through TRL's hooks: what each of them leaves for the next.

    Attributes:
        rows: of the training set, this rank's.
        asked: the rows that are being sampled now: those, or the ones of a refill.
        samples: the completions of `rows`, judged.
        thrown: judged completions of groups that a refill threw away, this rank's.
        rolled: what the method's sampler made of them, until they are judged.
        awaiting: the next scoring pass is to yield the signals.
        signals: log-probs and entropies, (B, T) each, under the sampling policy.
        seconds: of sampling.
    """

    rows: list[DatasetRow]
    asked: list[DatasetRow] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    thrown: list[Sample] = field(default_factory=list)
    rolled: list[LocalRollout] = field(default_factory=list)
    awaiting: bool = False
    signals: tuple[Tensor, Tensor] | None = None
    seconds: float = 0.0


class RowsTrainer(ResumableTrainer):
    """Samples and judges the rows of a generation; a subclass sets these attributes before `super().__init__`."""

    method: Method
    states: dict[str, Any]
    verifier: Verifier
    verify_deadline_seconds: float
    teaching: Teaching
    vocabulary: TokenVocabulary
    prompt_source: PromptSource
    generation: Generation
    temperature: float
    _prompt_tokens: PromptTokens | None = None

    # -- prompts ------------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Dataset | None = None) -> EpochSampler:
        stock = super()._get_train_sampler(dataset)
        self.prompt_order = EpochSampler(
            stock.data_source, stock.mini_repeat_count, stock.batch_size, stock.repeat_count, stock.shuffle, stock.seed
        )
        return self.prompt_order

    def _run_epoch(self, **kwargs: Any) -> None:
        self.prompt_order.set_epoch(kwargs["epoch"])
        super()._run_epoch(**kwargs)

    @property
    def _place(self) -> list[int]:
        """Optimizer step and generation within it, which may be several, so that a resumed run draws the same."""
        return [self.state.global_step, self._step % self.args.gradient_accumulation_steps]

    def _tokenize_prompts(self, prompts: list) -> tuple:
        """Conversations go through the chat template in a bounded process; with tools or images TRL renders them."""
        if isinstance(prompts[0], str) or self.tools or self._is_vlm or self.environment_factories is not None:
            return super()._tokenize_prompts(prompts)
        self._prompt_tokens = self._prompt_tokens or PromptTokens()
        return self._prompt_tokens(self.processing_class, prompts, self.chat_template_kwargs), None, {}

    # -- rollouts -----------------------------------------------------------------------------------------------------

    def _generate(self, prompts: list) -> tuple:
        """Sample, judge and cut this rank's rows; with `zero_variance=refill` other prompts take the places of some."""
        hand = self.generation
        hand.samples, generated = self._sample(hand.rows, prompts)
        refills = self.teaching.zero_variance is ZeroVariance.refill
        if self._mode == "train" and (refills or self.method.cut):
            for name, value in (self._refill(generated) if refills else {}).items():
                self._metrics["train"][name].append(value)
            hand.rows[:] = [s.row for s in hand.samples]
            prompts[:] = [s.row["prompt"] for s in hand.samples]
            masks, logprobs = generated[2], generated[4]
            generated = (
                [s.prompt_ids for s in hand.samples],
                [s.rollout.token_ids for s in hand.samples],
                None if masks is None else [loss_mask(s.rollout) for s in hand.samples],
                [s.message for s in hand.samples],
                None if logprobs is None else [sampler_logprobs(s.rollout) for s in hand.samples],
                *generated[5:],
            )
        self._metrics[self._mode]["generate_seconds"].append(hand.seconds)
        return generated

    def _sample(self, rows: list[DatasetRow], prompts: list) -> tuple[list[Sample], tuple]:
        """One completion of each row's prompt, judged, and all that TRL's sampling returns."""
        started = time.perf_counter()
        self.generation.asked, self.generation.rolled = rows, []
        generated = super()._generate(prompts)
        self.generation.seconds += time.perf_counter() - started
        prompt_ids, completion_ids, masks, messages, logprobs, *_ = generated
        rollouts = self.generation.rolled or [
            self._rollout(
                row, prompt_ids[b], completion_ids[b], masks and masks[b], None if logprobs is None else logprobs[b]
            )
            for b, row in enumerate(rows)
        ]
        samples = [
            Sample(row, prompt_ids[b], messages[b], rollout, self.vocabulary.cut_off(rollout.token_ids))
            for b, (row, rollout) in enumerate(zip(rows, self._judged(rows, rollouts), strict=True))
        ]
        if self.method.cut and self._mode == "train":
            self._refuse_rich(generated, f"cut={type(self.method.cut).__name__} cuts", "leave it out")
            samples = self._cut(samples)
        return samples, generated

    def _judged(self, rows: Sequence[DatasetRow], rollouts: Sequence[LocalRollout]) -> list[LocalRollout]:
        return judged(
            rollouts, rows, self.verifier, self.vocabulary, self.teaching, deadline_seconds=self.verify_deadline_seconds
        )

    def _cut(self, samples: list[Sample]) -> list[Sample]:
        """This rank's samples as the method's cut leaves them; what is shorter than it was is judged again.

        The cost `sampled_tokens` stays that of all that was sampled.
        """
        own = [
            dataclasses.replace(s.rollout, costs={**s.rollout.costs, SAMPLED_TOKENS: float(s.rollout.length)})
            for s in samples
        ]
        cuts = [c for _, c in self.method.of_kind(Cut)]
        everything = self._batch_of(every_rank(own), self.num_generations, cuts).batch
        kept = self.method.kept_tokens(everything).tolist()[self.accelerator.process_index * len(own) :]
        shorter = [b for b, rollout in enumerate(own) if kept[b] < rollout.length]
        heads = [own[b].first(kept[b]) for b in shorter]
        heads = [dataclasses.replace(head, completion=self._text(head.token_ids)) for head in heads]
        for b, rollout in zip(shorter, self._judged([samples[b].row for b in shorter], heads), strict=True):
            own[b] = rollout
        return [
            dataclasses.replace(
                s, rollout=rollout, message=_reworded(s.message, rollout.completion) if b in shorter else s.message,
                cut_off=self.vocabulary.cut_off(rollout.token_ids),
            )
            for b, (s, rollout) in enumerate(zip(samples, own, strict=True))
        ]  # fmt: skip

    def _batch_of(self, rows: list[LocalRollout], group_size: int, components: Sequence[Component]) -> Collected:
        """Rows of all ranks as the batch that these components ask for."""
        step = self.state.global_step
        return batch_of(rows, components, group_size=group_size, step=step, vocabulary=self.vocabulary)

    def _rollout(
        self, row: DatasetRow, prompt_ids: Sequence[int], ids: Sequence[int], mask: Any, logprobs: Any
    ) -> LocalRollout:
        """A completion that TRL sampled; tokens that its mask takes out came from a tool or an environment.

        The verdict reads what the policy wrote, or all where the verifier says `reads_all`.
        """
        sampled = None if mask is None else [bool(own) for own in mask]
        written = ids if sampled is None or getattr(self.verifier, "reads_all", False) else _where(ids, sampled)
        return LocalRollout(
            prompt_key=row["prompt_key"],
            prompt=prompt_text(row["prompt"]),
            token_ids=ids,
            completion=self._text(written),
            verdict=None,
            columns=json.loads(row["columns"]),
            limit=max(self.max_completion_length, len(ids) if sampled is None else sum(sampled)),
            sampled=sampled,
            sampler_logprobs=logprobs,
            costs={} if sampled is None else costs_of(len(prompt_ids), sampled),
        )

    def _text(self, ids: Sequence[int]) -> str:
        return visible_text(self._tokenizer, self.vocabulary, ids)

    def _refuse_rich(self, generated: tuple, who: str, remedy: str) -> None:
        _, _, tool_mask, _, _, extra_fields, images, _ = generated
        if (tool_mask is not None and not self.method.sampler) or images is not None or extra_fields:
            raise UserError(f"{who} plain text, not tools, images or a rollout_func: {remedy}")

    def _refill(self, generated: tuple) -> dict[str, float]:
        self._refuse_rich(generated, "zero_variance=refill samples", "use drop")

        def draw(n: int, used: Collection[str], round_number: int) -> list[DatasetRow]:
            place = [*self._place, round_number]
            drawn = self.prompt_source.draw(n, used, self.states, place)
            return [self.prompt_source.edited(row, self.state.global_step) for row in drawn]

        self.generation.samples, self.generation.thrown, cost = refill(
            self.generation.samples,
            group_size=self.num_generations,
            teaching=self.teaching,
            draw=draw,
            sample=lambda rows: self._sample(rows, [row["prompt"] for row in rows])[0],
        )
        return cost

    # -- rows that the method's sampler makes --------------------------------------------------------------------------

    def _roll_out(self, prompts: list, _: Any) -> dict[str, Any]:
        """TRL's `rollout_func`: this rank's rows of the groups that the method's sampler makes on all ranks."""
        group_size = self.num_generations if self._mode == "train" else self.num_generations_eval
        own_ids = self._tokenize_prompts(prompts)[0]
        own = [
            PolicyPrompt(
                row["prompt_key"], prompt_text(row["prompt"]), tuple(ids), json.loads(row["columns"]),
                self.max_completion_length, row["reference"],
            )
            for row, ids in zip(self.generation.asked, own_ids, strict=True)
        ]  # fmt: skip
        groups = every_rank(own)[::group_size]
        rng = seeded("rows", self.args.seed, self._mode, *self._place)
        generate = DealtGenerate(self._complete, self._tokenizer, self.vocabulary)
        slot = next(slot for slot, c in self.method.components.items() if c is self.method.sampler)
        made = self.method.at(slot, self.state.global_step)(groups, group_size, generate, rng)
        if len(made) != len(groups) * group_size:
            raise ValueError(
                f"{type(self.method.sampler).__name__} made {len(made)} rows; {len(groups)} prompts x "
                f"{group_size} make {len(groups) * group_size}"
            )
        first = self.accelerator.process_index * len(own)
        self.generation.rolled = [
            dataclasses.replace(row, completion=self._text(row.token_ids)) for row in made[first : first + len(own)]
        ]
        rolled = self.generation.rolled
        known = all(row.sampler_logprobs is not None for row in rolled)
        return {
            "prompt_ids": [list(ids) for ids in own_ids],
            "completion_ids": [list(row.token_ids) for row in rolled],
            "logprobs": [sampler_logprobs(row) for row in rolled] if known and self.use_vllm else None,
            "env_mask": [loss_mask(row) for row in rolled],
        }

    def _complete(self, requests: Sequence[TokenRequest], limit: int) -> list[Sampled]:
        """This rank's requests of one limit, by whichever back end samples."""
        ids = [[*request.prompt_ids, *request.start] for request in requests]
        with self._limited(limit):
            if not self._samples_itself(None, {}):
                sampled, logprobs = self._generate_single_turn(ids, None, {}, 1)
                pairs = zip(sampled, logprobs or [None] * len(sampled), strict=True)
                return [Sampled(tuple(tokens), None if lp is None else tuple(lp)) for tokens, lp in pairs]
            with self.generation_model() as model:
                sampled = self._draw(model, ids, limit, [request.seed for request in requests])
        return [Sampled(tuple(tokens)) for tokens in sampled]

    @contextmanager
    def _limited(self, limit: int) -> Iterator[None]:
        """Sampling stops at `limit` tokens inside, whatever samples."""
        engines = [self, *([self.vllm_generation] if self.use_vllm else [])]
        usual = [engine.max_completion_length for engine in engines]
        try:
            for engine in engines:
                engine.max_completion_length = limit
            yield
        finally:
            for engine, before in zip(engines, usual, strict=True):
                engine.max_completion_length = before

    @contextmanager
    def _scheduled(self) -> Iterator[None]:
        """The scheduled limit and temperature of this step; the latter also scores what is sampled."""
        temperature, limit = self._sampling_at(self.state.global_step)
        if temperature != self.temperature:
            self.temperature = temperature
            for engine in [self.generation_config, *([self.vllm_generation] if self.use_vllm else [])]:
                engine.temperature = temperature
        with self._limited(limit):
            yield

    def _sampling_at(self, step: int) -> tuple[float, int]:
        """Temperature and limit of a step."""
        due = self.method.scheduled("trainer", step)
        limit = due.get("max_completion_length") or self.max_completion_length
        return due.get("temperature", self.temperature), int(limit)


def visible_text(tokenizer: Any, vocabulary: TokenVocabulary, ids: Sequence[int]) -> str:
    """A completion as a verifier reads it: without EOS and padding, tags included."""
    skip = vocabulary.eos_ids | {tokenizer.pad_token_id}
    return tokenizer.decode([token for token in ids if token not in skip])


def prompt_text(prompt: str | list[dict[str, str]]) -> str:
    """A prompt for people: the text, or the last message of a conversation."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _reworded(message: Any, text: str) -> Any:
    """A completion as TRL logs it, with another text."""
    return text if isinstance(message, str) else [{**message[-1], "content": text}]


def loss_mask(rollout: LocalRollout) -> list[int]:
    """Which tokens of a completion train, 1 or 0 each."""
    trained = rollout.sampled if rollout.trained is None else rollout.trained
    return [1] * len(rollout.token_ids) if trained is None else [int(own) for own in trained]


def sampler_logprobs(rollout: LocalRollout) -> list[float] | None:
    """Log-probs under the engine that sampled, as TRL takes them: NaN, and so no ratio, where it did not choose."""
    if rollout.sampler_logprobs is None:
        return None
    return [math.nan if place in rollout.drawn else lp for place, lp in enumerate(rollout.sampler_logprobs)]


def costs_of(prompt_length: int, sampled: Sequence[bool]) -> dict[str, float]:
    """What a row with tools or an environment cost besides what it sampled.

    `turns` counts the runs of sampled tokens; `context_tokens` those that the policy read and did not sample.
    """
    own = np.asarray(sampled, dtype=bool)
    turns = int(np.sum(own & ~np.concatenate([[False], own[:-1]])))
    return {"turns": float(max(1, turns)), "context_tokens": float(prompt_length + np.sum(~own))}


def _where(ids: Sequence[int], sampled: Sequence[bool]) -> list[int]:
    return [token for token, own in zip(ids, sampled, strict=True) if own]
