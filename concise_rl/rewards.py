"""Shapers as a reward function of an unmodified `trl.GRPOTrainer`.

    reward = as_reward("hapo", weight=0.5)
    GRPOTrainer(model, reward_funcs=reward, callbacks=[reward], args=GRPOConfig(..., **reward.config), ...)

TRL calls a reward function once a generation on every process, with that process's rows. A group may lie astride two
processes, so the rows of all are gathered here, each process computes the same, and each hands back its own part. The
object is a callback too: that is how it learns the group size, the tokenizer, whether the model trains or is evaluated,
and how its memory gets into the checkpoint's `trainer_state.json` and back.

A reward function sees neither log-probs nor the loss. What needs them is refused, with the remedy.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from concise_rl.batch import OPTIONAL_FIELDS
from concise_rl.engine.collect import collect, repetition_ngram_of
from concise_rl.engine.dataset import key_of
from concise_rl.engine.groups import judge
from concise_rl.engine.resuming import check_window
from concise_rl.engine.rows import prompt_text, visible_text
from concise_rl.engine.state import state_from_json, state_to_json
from concise_rl.errors import UserError
from concise_rl.methods.advantages.group_relative import GroupRelative
from concise_rl.methods.contracts import Component, Shaper
from concise_rl.methods.method import Method
from concise_rl.methods.recipes import as_method, load_method
from concise_rl.options import Truncated, choose
from concise_rl.ranks import every_rank, rank
from concise_rl.rollouts import LocalRollout, TokenVocabulary, single_token
from concise_rl.verifiers import MathAnswer, Verifier

REMEDY = "use concise_rl.ConciseTrainer, which is a GRPOTrainer with these places"


def as_reward(
    method: str | Method | Component | Sequence[Component],
    /,
    *,
    verifier: Verifier | None = None,
    answer_column: str = "answer",
    think_end: str = "</think>",
    truncated: Truncated | str = Truncated.as_is,
    verify_deadline_seconds: float = 5.0,
    **fields: Any,
) -> ShapedReward:
    """A method's shapers as a reward function, which is a callback too: give it to `reward_funcs` and `callbacks`.

    Args:
        method: a recipe's name, shapers such as `Hapo(weight=0.5)`, or a `Method`.
        verifier: completion and answer to `Verdict`; `MathAnswer()` where none is given.
        answer_column: of the data set, what the verifier compares with. Other columns serve the shapers that ask.
        think_end: the tag that ends the thinking phase.
        truncated: `as_is`, or `wrong`: a completion that was cut off counts as wrong.
        verify_deadline_seconds: after this a verification is killed, and TRL gets None for the row.
        fields: of the recipe's components, as `load_method` takes them.

    Raises:
        UserError: the method has a component that no reward function can stand for; says which, and the remedy.
    """
    if fields and not isinstance(method, str):
        raise UserError(f"{', '.join(fields)}: fields change a recipe, give its name; or make the component with them")
    made = load_method(method, fields) if isinstance(method, str) else as_method(method)
    check_servable(made)
    return ShapedReward(
        made, verifier or MathAnswer(), answer_column, think_end, choose("truncated", Truncated, truncated),
        verify_deadline_seconds,
    )  # fmt: skip


def check_servable(method: Method) -> None:
    """Refuse a method whose effect is not all in its reward.

    Raises:
        UserError: names the component or the field.
    """
    for slot, component in method.components.items():
        if isinstance(component, Shaper):
            signals = sorted(set(OPTIONAL_FIELDS) & component.needs)
            if signals:
                raise UserError(f"{slot} needs {', '.join(signals)}, which TRL hands no reward function: {REMEDY}")
        elif type(component) is not GroupRelative or component != GroupRelative(scale=component.scale):
            raise UserError(f"{slot} is no shaper, and a reward function can be nothing else: {REMEDY}")
    for name in method.schedules:
        if name.startswith("trainer."):
            raise UserError(f"{name} follows a schedule, which no reward function can set: {REMEDY}")


class ShapedReward(TrainerCallback, ExportableState):
    """What `as_reward` makes.

    Attributes:
        method: whose shapers apply.
        states: what its components remember, by slot.
        config: the fields of `trl.GRPOConfig` that the recipe asks for: `GRPOConfig(..., **reward.config)`.
    """

    def __init__(
        self,
        method: Method,
        verifier: Verifier,
        answer_column: str,
        think_end: str,
        truncated: Truncated,
        verify_deadline_seconds: float,
    ) -> None:
        if truncated is Truncated.mask:
            raise UserError(
                "truncated=mask is for the loss, which a reward function does not reach: set "
                "mask_truncated_completions=True in GRPOConfig"
            )
        self.method, self.states = method, method.init()
        self.verifier, self.answer_column, self.think_end = verifier, answer_column, think_end
        self.truncated, self.verify_deadline_seconds = truncated, verify_deadline_seconds
        scale = next(c.scale for c in method.advantages if isinstance(c, GroupRelative))
        self.config: dict[str, Any] = {**method.loss, "scale_rewards": scale.value}
        self.__name__ = method.name
        self.args: Any = None
        self.model: Any = None

    # -- what TRL tells a callback -------------------------------------------------------------------------------------

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Learn of the run, and refuse what could not be resumed."""
        self.args, self.model, self.tokenizer = args, kwargs["model"], kwargs["processing_class"]
        if args.restore_callback_states_from_checkpoint:
            raise UserError(
                "restore_callback_states_from_checkpoint=True would put another object in place of this reward, which "
                "restores itself: leave it out"
            )
        if getattr(self.tokenizer, "tokenizer", None) is not None:
            raise UserError(f"a reward function cannot tell sampled tokens from those of images: {REMEDY}")
        check_window(args)
        ends = self.model.generation_config.eos_token_id  # as `trl.GRPOTrainer` decides what ends a completion
        self.vocabulary = TokenVocabulary(
            frozenset(({ends} if isinstance(ends, int) else set(ends or ())) | {self.tokenizer.eos_token_id}),
            single_token(self.tokenizer, self.think_end),
            self.think_end,
        )
        for name, value in self.config.items():
            if getattr(args, name) != value:
                warnings.warn(
                    f"{name}={getattr(args, name)} stands; {self.method.name} asks for {value}: "
                    "GRPOConfig(..., **reward.config)",
                    stacklevel=2,
                )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin anew, or where the checkpoint was saved."""
        self.model = kwargs.get("model", self.model)
        self.states = self.method.init()
        if state.global_step:
            self._restore(state.stateful_callbacks.get(type(self).__name__))

    def state(self) -> dict[str, Any]:
        """What transformers writes into `trainer_state.json`."""
        return {"args": {}, "attributes": {"components": self.method.class_names, **state_to_json(self.states)}}

    def _restore(self, saved: Any) -> None:
        if isinstance(saved, list):
            raise UserError("two rewards of concise_rl in one trainer: give all shapers to one as_reward([...])")
        if saved is None:
            raise UserError(
                f"the checkpoint has no state of {self.method.name}: it was trained without callbacks=[reward]; "
                "start anew"
            )
        found, own = saved["attributes"], self.method.class_names
        if found["components"] != own:
            raise UserError(
                f"the checkpoint was trained with {found['components']}, this run has {own}: resume with the same "
                "shapers, or start anew"
            )
        self.states = state_from_json(found)

    # -- what TRL asks of a reward function ----------------------------------------------------------------------------

    def __call__(
        self, *, prompts: list, completions: list, completion_ids: list, trainer_state: Any, **columns: Any
    ) -> list[float | None]:
        """The shaped rewards of this process's rows; None where no verdict could be had."""
        self._check_call(completions, columns)
        log_metric = columns.pop("log_metric", None)
        columns.pop("log_extra", None)
        training = bool(self.model.training)
        group_size = self.args.num_generations
        if not training:
            group_size = self.args.num_generations_eval or group_size
        own = self._judged(prompts, completion_ids, columns)
        batch = collect(
            every_rank(own),
            group_size=group_size,
            step=trainer_state.global_step,
            vocabulary=self.vocabulary,
            needs=self.method.needs,
            repetition_ngram=repetition_ngram_of(self.method.components.values()),
        ).batch
        result, states = self.method.apply(batch, self.states if training else copy.deepcopy(self.states))
        if training:
            self.states = states
        for name, value in result.metrics.items() if log_metric else ():
            log_metric(name, value)
        first = rank()[0] * len(own)
        rows = zip(result.reward.tolist(), result.counts.tolist(), strict=True)
        return [reward if counts else None for reward, counts in list(rows)[first : first + len(own)]]

    def _check_call(self, completions: list, columns: dict[str, Any]) -> None:
        if self.args is None:
            raise UserError(
                "this reward was not told of the run: GRPOTrainer(..., callbacks=[reward]) with the same one"
            )
        if "environments" in columns or any(isinstance(c, list) and len(c) > 1 for c in completions):
            raise UserError(f"a reward function cannot tell sampled tokens from those of tools: {REMEDY}")
        if self.answer_column not in columns:
            raise UserError(f"answer_column={self.answer_column!r}: the data set has {sorted(columns)}")

    def _judged(self, prompts: list, completion_ids: list, columns: dict[str, list]) -> list[LocalRollout]:
        """This process's rows with their verdicts."""
        answers = [str(answer) for answer in columns.pop(self.answer_column)]
        # TRL's own text is without special tokens, and so without the tag that ends the thought of most models.
        texts = [visible_text(self.tokenizer, self.vocabulary, ids) for ids in completion_ids]
        verdicts = judge(
            self.verifier,
            list(zip(texts, answers, strict=True)),
            [self.vocabulary.cut_off(ids) for ids in completion_ids],
            truncated=self.truncated,
            deadline_seconds=self.verify_deadline_seconds,
            think_end=self.think_end,
        )
        return [
            LocalRollout(
                key_of(prompts[b], answers[b]), prompt_text(prompts[b]), list(map(int, ids)), texts[b],
                verdicts[b], {name: values[b] for name, values in columns.items()}, self.args.max_completion_length,
                answers[b],
            )
            for b, ids in enumerate(completion_ids)
        ]  # fmt: skip
