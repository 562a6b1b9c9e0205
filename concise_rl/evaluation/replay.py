"""What any method would have made of rollouts that are already there: rewards and credits again, without a model."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, OPTIONAL_FIELDS, PART_PREFIX, RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.contracts import Shaper
from concise_rl.methods.method import Method, States
from concise_rl.methods.metrics import step_metrics
from concise_rl.rollouts import per_row


@dataclass(frozen=True)
class Replay:
    """The outcome of a replay.

    Attributes:
        methods: method name to its statistics, each the mean over the steps in which it is defined:

            - those of `concise_rl.rollouts.step_metrics`, as the training log has them;
            - `reward_correct`, `reward_wrong`: mean shaped reward of the right and of the wrong scorable rows;
            - `mean_abs_credit`: mean |credit| over all rows;
            - `flipped_correct_frac`: the share of right rows that count that the unshaped task reward credits above 0
              under the same advantage, and the shaped reward below 0. `wiped_correct_frac` counts every right row with
              negative credit, those of all-right groups among them;
            - `credit_length_correlation`: Pearson's, of credit and length over the right rows that count; left out
              where either does not vary.
        rows: one dict a method and completion, in the order of the steps: `method`, `step`, `prompt_key`, `sample`,
            `length`, `correct`, `scorable`, `task_reward`, `shaped_reward`, `credit` (summed where it is a token's).
        as_sampled: method name to those of its slots and schedules that would have sampled or cut otherwise, and have
            no part in a replay; methods without any are left out.
    """

    methods: dict[str, dict[str, float]]
    rows: list[dict[str, Any]]
    as_sampled: dict[str, list[str]] = field(default_factory=dict)


def replay(batches: Iterable[tuple[RolloutBatch, Tensor | None]], methods: Mapping[str, Method]) -> Replay:
    """Shape stored rollouts with each method, its state carried from step to step.

    Args:
        batches: the steps in the order of training, each with the reward to be shaped, (N,) float64; None takes the
            batch's task reward.
        methods: by name.

    Raises:
        UserError: no steps, or a method needs a field or column that the stored rollouts lack; names both.
        ValueError: a component returns a wrong shape or a number that is not finite.
    """
    states = {name: method.init() for name, method in methods.items()}
    per_step: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    rows: list[dict[str, Any]] = []
    for batch, reward in batches:
        reward = batch.task_reward if reward is None else reward
        batch = batch.replace(task_reward=reward)
        for name, method in methods.items():
            check_needs(name, method.needs, batch)
            task_credit_N = per_row(unshaped_credit(method, batch, states[name]))
            result, states[name] = method.apply(batch, states[name])
            states[name] = method.observe(batch.replace(counts=result.counts), states[name])
            taught = batch.replace(counts=result.counts)
            per_step[name].append(
                step_metrics(batch, result.reward, result.credit, taught=taught)
                | credit_statistics(taught, result.reward, per_row(result.credit), task_credit_N)
            )
            rows += _rows(name, taught, result.reward, per_row(result.credit))
    if not rows and methods:
        raise UserError("nothing to replay: the run stored no rollouts; train with run.rollouts_every=1")
    as_sampled = {name: method.of_sampling for name, method in methods.items() if method.of_sampling}
    return Replay({name: _mean_over_steps(steps) for name, steps in per_step.items()}, rows, as_sampled)


AS_IN_RUN = "as in this run"


def as_in_run(steps: Iterable[tuple[RolloutBatch, Tensor, Tensor]]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Statistics and rows as in `Replay`, of the rewards and credits that the run itself gave.

    Without the method, what the task reward alone would have credited is not known: `flipped_correct_frac` is left out.

    Args:
        steps: batch, shaped reward (N,) and credit (N,) or (N, T) of each step, in order.
    """
    per_step: list[dict[str, float]] = []
    rows: list[dict[str, Any]] = []
    for batch, reward, credit in steps:
        credit_N = per_row(credit)
        per_step.append(step_metrics(batch, reward, credit, taught=batch) | credit_statistics(batch, reward, credit_N))
        rows += _rows(AS_IN_RUN, batch, reward, credit_N)
    return _mean_over_steps(per_step), rows


def unshaped_credit(method: Method, batch: RolloutBatch, states: States) -> Tensor:
    """What the method's filters and advantages make of the task reward, its shapers left out; no state moves."""
    bare = {slot: c for slot, c in method.components.items() if not isinstance(c, Shaper)}
    own = {slot: copy.deepcopy(state) for slot, state in states.items() if slot in bare}
    return replace(method, components=bare).apply(batch, own)[0].credit


def check_needs(method: str, needs: Iterable[str], batch: RolloutBatch) -> None:
    """Refuse a method whose fields the batch lacks.

    Raises:
        UserError: names the method and the field.
    """
    for need in sorted(needs):
        if not can_serve([need], batch):
            raise UserError(
                f"method {method!r} needs {need!r}, which the stored rollouts of step {batch.step} lack: "
                "leave the method out, or record the run with a method that needs the same"
            )


def can_serve(needs: Iterable[str], batch: RolloutBatch) -> bool:
    """Whether the batch holds every field, part and column that is named."""
    for need in needs:
        if need.startswith(COLUMN_PREFIX):
            there = need.removeprefix(COLUMN_PREFIX) in batch.columns
        elif need.startswith(PART_PREFIX):
            there = need.removeprefix(PART_PREFIX) in batch.parts
        else:
            there = need not in OPTIONAL_FIELDS or getattr(batch, need) is not None
        if not there:
            return False
    return True


def credit_statistics(
    batch: RolloutBatch, reward: Tensor, credit_N: Tensor, task_credit_N: Tensor | None = None
) -> dict[str, float]:
    """The statistics of one step that `Replay.methods` adds to `step_metrics`; those without a row are left out."""
    right, wrong = batch.correct & batch.counts, ~batch.correct & batch.counts
    statistics = {"mean_abs_credit": float(credit_N.abs().mean())}
    if bool(wrong.any()):
        statistics["reward_wrong"] = float(reward[wrong].mean())
    if bool(right.any()):
        statistics["reward_correct"] = float(reward[right].mean())
        if task_credit_N is not None:
            statistics["flipped_correct_frac"] = float(((credit_N < 0) & (task_credit_N > 0))[right].double().mean())
        pair = torch.stack([credit_N[right].double(), batch.lengths[right].double()])
        if bool((pair != pair[:, :1]).any(dim=1).all()):
            statistics["credit_length_correlation"] = float(torch.corrcoef(pair)[0, 1])
    return statistics


def _rows(method: str, batch: RolloutBatch, reward: Tensor, credit_N: Tensor) -> list[dict[str, Any]]:
    columns = {
        "length": batch.lengths,
        "correct": batch.correct,
        "scorable": batch.scorable,
        "task_reward": batch.task_reward,
        "shaped_reward": reward,
        "credit": credit_N,
    }
    values = [column.tolist() for column in columns.values()]
    return [
        {
            "method": method,
            "step": batch.step,
            "prompt_key": batch.prompt_keys[n // batch.group_size],
            "sample": n % batch.group_size,
            **dict(zip(columns, row, strict=True)),
        }
        for n, row in enumerate(zip(*values, strict=True))
    ]


def _mean_over_steps(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = list(dict.fromkeys(name for step in steps for name in step))
    found = {name: [step[name] for step in steps if name in step] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
