"""Replay: the same rewards and credits as a loop over the steps by hand, state carried along."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.evaluation import replay
from concise_rl.evaluation.replay import AS_IN_RUN, as_in_run
from concise_rl.methods import Advantage, Method, Out, Plain, Shaper
from concise_rl.methods.statistics import group_mean, zero_where_out


@dataclass
class ShortestSoFar(Shaper):
    """A right row pays `weight` for each token beyond the shortest right one of its prompt in earlier steps."""

    weight: float = 0.1

    def init(self):
        return {}

    def __call__(self, batch, value, state):
        owners = [prompt_id for prompt_id in batch.prompt_keys for _ in range(batch.group_size)]
        rows = list(zip(owners, batch.lengths.tolist(), (batch.correct & batch.scorable).tolist(), strict=True))
        loss = [self.weight * max(0, n - state.get(p, n)) if right else 0.0 for p, n, right in rows]
        for p, n, right in rows:
            if right:
                state[p] = min(n, state.get(p, n))
        return Out(value - torch.tensor(loss, dtype=torch.float64)), state


@dataclass
class Centred(Advantage):
    def apply(self, batch, value):
        return Out(zero_where_out(batch, value - group_mean(batch, value)))


def method(*links):
    return Method("m", {f"{'shaper' if isinstance(c, Shaper) else 'advantage'}.{n}": c for n, c in enumerate(links)})


def step(number, lengths, correct, **others):
    return RolloutBatch.of(
        prompt_keys=("p", "q"), group_size=3, step=number, lengths=lengths, correct=correct, **others
    )


STEPS = [
    step(0, [10, 20, 30, 5, 6, 7], [True, True, False, True, True, True]),
    step(1, [40, 10, 12, 15, 5, 9], [True, False, False, True, True, True], scorable=[True] * 5 + [False]),
]


def test_what_the_run_itself_gave_is_counted_as_a_replay_of_its_method_is():
    own, states = method(ShortestSoFar(), Centred()), method(ShortestSoFar(), Centred()).init()
    given = []
    for batch in STEPS:
        result, states = own.apply(batch, states)
        given.append((batch.replace(counts=result.counts), result.reward, result.credit))
    statistics, rows = as_in_run(given)
    expected = replay([(batch, None) for batch in STEPS], {AS_IN_RUN: own})
    assert rows == expected.rows
    flips = expected.methods[AS_IN_RUN].pop("flipped_correct_frac")
    assert flips >= 0, "which needs the method, and is left out"
    assert statistics == expected.methods[AS_IN_RUN]


def test_worked_replay():
    methods = {"short": method(ShortestSoFar(), Centred()), "plain": method(Plain(), Centred())}
    outcome = replay([(batch, None) for batch in STEPS], methods)
    found = outcome.methods["short"]
    second = [r for r in outcome.rows if r["method"] == "short" and r["step"] == 1]
    # Step 0 stores p: 10, q: 5. Step 1, p: 40 pays 3, so rewards are -2, 0, 0 with mean -2/3; q: 15 pays 1, 5 nothing,
    # and the row without a verdict is out of the baseline: rewards 0, 1 with mean 1/2.
    assert [r["shaped_reward"] for r in second] == pytest.approx([-2, 0, 0, 0, 1, 1])
    assert [r["credit"] for r in second] == pytest.approx([-4 / 3, 2 / 3, 2 / 3, -1 / 2, 1 / 2, 0])
    assert [(r["prompt_key"], r["sample"], r["scorable"]) for r in second][-1] == ("q", 2, False)
    # Step 0 has no history: nothing is negative among right rows. Step 1: right rows are p0 (task credit +2/3, now
    # negative: flipped), q0 (task credit 0, now negative: wiped alone) and q1.
    assert found["wiped_correct_frac"] == pytest.approx((0 + 2 / 3) / 2)
    assert found["flipped_correct_frac"] == pytest.approx((0 + 1 / 3) / 2)
    assert found["reward_correct"] == pytest.approx((1 + (-2 + 0 + 1) / 3) / 2)
    assert found["reward_wrong"] == 0
    assert found["mean_abs_credit"] == pytest.approx(((2 / 3 + 2 / 3) / 6 + (8 / 3 + 1) / 6) / 2)
    assert outcome.methods["plain"]["flipped_correct_frac"] == 0
    assert found["accuracy"] == outcome.methods["plain"]["accuracy"]


def test_equals_a_direct_loop_whatever_else_is_replayed():
    generator = torch.Generator().manual_seed(0)
    batches = [
        step(t, torch.randint(1, 50, (6,), generator=generator), torch.rand(6, generator=generator) < 0.6)
        for t in range(8)
    ]
    methods = {name: method(ShortestSoFar(weight), Centred()) for name, weight in (("a", 0.1), ("b", 0.5))}
    outcome = replay(((batch, None) for batch in batches), methods)
    for name, own in methods.items():
        (shaper,), (advantage,) = own.shapers, own.advantages
        state, rewards, credits = shaper.init(), [], []
        for batch in batches:
            shaped, state = shaper(batch, batch.task_reward, state)
            rewards += shaped.value.tolist()
            credits += advantage.apply(batch, shaped.value).value.tolist()
        rows = [r for r in outcome.rows if r["method"] == name]
        assert [r["shaped_reward"] for r in rows] == rewards
        assert [r["credit"] for r in rows] == credits
        assert any(state.values())


def test_several_shapers_and_a_given_reward():
    batch = STEPS[0]
    reward = torch.arange(6, dtype=torch.float64)
    both = method(ShortestSoFar(0.1), ShortestSoFar(0.2), Centred())
    steps = [(batch, reward), (batch, reward)]
    outcome = replay(steps, {"both": both, "one": method(ShortestSoFar(0.1 + 0.2), Centred())})
    both_rows, one_rows = ([r["credit"] for r in outcome.rows if r["method"] == name] for name in ("both", "one"))
    assert both_rows == pytest.approx(one_rows)
    assert [r["shaped_reward"] for r in outcome.rows[:6]] == reward.tolist()


def test_correlation_of_credit_and_length():
    """Among right rows of step 1 of the worked example credit falls with length: -4/3, -1/2, 1/2 at 40, 15, 5."""
    outcome = replay([(batch, None) for batch in STEPS], {"short": method(ShortestSoFar(), Centred())})
    x, y = torch.tensor([40.0, 15, 5]), torch.tensor([-4 / 3, -1 / 2, 1 / 2])
    step_0 = torch.corrcoef(torch.stack([torch.tensor([10.0, 20, 5, 6, 7]), torch.tensor([1 / 3, 1 / 3, 0, 0, 0])]))[
        0, 1
    ]
    expected = (torch.corrcoef(torch.stack([x, y]))[0, 1] + step_0) / 2
    assert outcome.methods["short"]["credit_length_correlation"] == pytest.approx(float(expected), abs=1e-6)
    flat = step(0, [5] * 6, [True] * 6)
    plain = replay([(flat, None)], {"plain": method(Plain(), Centred())}).methods["plain"]
    assert "credit_length_correlation" not in plain


def test_credit_a_token_is_summed():
    class PerToken(Centred):
        def apply(self, batch, value):
            return Out(super().apply(batch, value).value[:, None].expand(-1, 4))

    outcome = replay([(STEPS[0], None)], {"one": method(Plain(), Centred()), "four": method(Plain(), PerToken())})
    one, four = ([r["credit"] for r in outcome.rows if r["method"] == name] for name in ("one", "four"))
    assert four == pytest.approx([4 * credit for credit in one])


@pytest.mark.parametrize("need", ["entropies", "think_entropy", "columns.difficulty", "parts.repetition"])
def test_missing_fields_name_the_method_and_the_field(need):
    class Needy(Plain):
        needs = frozenset({need})

    with pytest.raises(UserError, match=f"'needy' needs '{need}'"):
        replay([(STEPS[0], None)], {"needy": method(Needy(), Centred())})
    filled = STEPS[0].replace(
        entropies=torch.zeros(6, 30),
        think_entropy=torch.zeros(6, dtype=torch.float64),
        columns={"difficulty": [1, 2]},
        parts={"repetition": torch.zeros(6, dtype=torch.float64)},
    )
    assert len(replay([(filled, None)], {"needy": method(Needy(), Centred())}).rows) == 6


def test_no_steps():
    with pytest.raises(UserError, match="stored no rollouts"):
        replay([], {"plain": method(Plain(), Centred())})
