"""Toggle by hand: phases, budgets, the warm-up that takes them, and a run that stops in it."""

from __future__ import annotations

import json
import math

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods import History, Toggle, load_method


def shape(shaper: Toggle, state, lengths: list[int], correct: list[int], *, keys=("q",), **others):
    batch = RolloutBatch.of(
        prompt_keys=keys, group_size=len(lengths) // len(keys), lengths=lengths, correct=correct, **others
    )
    out, state = shaper(batch, batch.task_reward, state)
    return out.value.tolist(), state


def budgets(**tokens: float) -> History:
    return History.empty().assign(list(tokens), list(tokens.values()), [1] * len(tokens))


GROUP = ([400, 900, 700, 1600], [1, 1, 0, 1])


def test_by_hand():
    assert shape(Toggle(), budgets(q=1000), *GROUP)[0] == [1, 1, 0, 0]
    assert shape(Toggle(lam=0.8), budgets(q=1000), *GROUP)[0] == [1, 1, 0, 1]
    assert shape(Toggle(), budgets(q=225), [150, 220, 300, 90], [1, 1, 1, 0])[0] == [1, 1, 0, 0]


def test_the_mean_at_lam_and_the_length_at_the_budget():
    assert shape(Toggle(lam=0.75), budgets(q=900), *GROUP)[0] == [1, 1, 0, 0]
    assert shape(Toggle(lam=0.75), budgets(q=899), *GROUP)[0] == [1, 0, 0, 0]


def test_the_phase_follows_the_step():
    shaper = Toggle(m=3)
    over = [shape(shaper, budgets(q=10), [5, 20], [1, 1], step=step)[0][1] for step in range(9)]
    assert over == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_a_group_over_budget_is_all_zero_and_no_budget_is_no_limit():
    assert shape(Toggle(), budgets(q=10), [50, 60], [1, 1])[0] == [0, 0]
    assert shape(Toggle(), History.empty(), [50, 60], [1, 1])[0] == [1, 1]
    assert shape(Toggle(), budgets(q=0), [0, 1], [1, 1])[0] == [1, 0]


def test_budgets_of_the_warm_up():
    shaper = Toggle(warmup_steps=1)
    first, state = shape(shaper, shaper.init(), *GROUP)
    assert first == [1, 1, 0, 1]
    assert state.lookup(["q"])[0] == 1250
    assert shape(Toggle(warmup_steps=1, rho=50), {}, [100, 140, 200, 300], [1] * 4)[1].lookup(["q"])[0] == 170


def test_a_warm_up_of_several_steps_adds_every_right_row_and_then_stands():
    shaper = Toggle(warmup_steps=3, lam=0.0, rho=75)
    state = shaper.init()
    _, state = shape(shaper, state, [1600, 5, 400, 7], [1, 0, 1, 0], step=0)
    _, state = shape(shaper, state, [900, 5, 60, 50], [1, 1, 1, 1], step=1, keys=("q", "other"), scorable=[1, 0, 1, 1])
    assert state == {"q": [400, 900, 1600], "other": [50, 60]}
    late, state = shape(shaper, state, [9000, 9000], [1, 0], step=2, keys=("new", "hopeless"))
    assert late == [1, 0]
    values, counts = state.lookup(["q", "other", "new", "hopeless"])
    assert values[:3].tolist() == [1250, 57.5, 9000]
    assert math.isnan(values[3])
    assert counts.tolist() == [3, 2, 1, 0]
    held, after = shape(shaper, state, [1250, 1251, 57, 58], [1] * 4, step=3, keys=("q", "other"))
    assert held == [1, 0, 1, 0]
    assert after.lookup(["q", "other"])[0].tolist() == [1250, 57.5]


def test_a_step_past_the_warm_up_settles_it_even_if_its_last_step_was_never_seen():
    shaper = Toggle(warmup_steps=5)
    _, state = shape(shaper, shaper.init(), [10, 20], [1, 1], step=0)
    assert isinstance(state, dict)
    held, state = shape(shaper, state, [17, 18], [1, 1], step=8)
    assert held == [1, 0]
    assert isinstance(state, History)


def test_a_run_that_stops_in_the_warm_up_goes_on_alike():
    shaper = Toggle(warmup_steps=3)
    steps = [([10 * s + 5, 20 + s, 7, 40], [1, s % 2, 1, 0]) for s in range(6)]
    straight = resumed = shaper.init()
    for s, (lengths, correct) in enumerate(steps):
        if s in (1, 2):
            resumed = json.loads(json.dumps(resumed))
        if s == 4:
            resumed = History.from_arrays(resumed.arrays())
        out, straight = shape(shaper, straight, lengths, correct, step=s, keys=("a", "b"))
        out_resumed, resumed = shape(shaper, resumed, lengths, correct, step=s, keys=("a", "b"))
        assert out == out_resumed
    assert straight == resumed


def test_budgets_from_a_column():
    shaper = Toggle(column="tokens")
    assert shaper.needs == {"columns.tokens"}
    columns = {"tokens": [10, None]}
    assert shape(shaper, shaper.init(), [10, 11, 10, 11], [1] * 4, keys=("a", "b"), columns=columns)[0] == [1, 0, 1, 1]
    for entry in ("10", -1, True, math.nan):
        with pytest.raises(UserError, match=r"Toggle\.column='tokens' holds"):
            shape(shaper, shaper.init(), [10, 11], [1, 1], columns={"tokens": [entry]})


def test_the_recipe_takes_budgets_and_then_holds_to_them():
    method = load_method("toggle", warmup_steps=1, m=1)
    states = method.init()
    rewards = []
    for step in range(3):
        batch = RolloutBatch.of(
            prompt_keys=["q"], group_size=4, lengths=[400, 900, 700, 1600], correct=[1, 1, 0, 1], step=step
        )
        result, states = method.apply(batch, states)
        rewards.append(result.reward.tolist())
    assert rewards == [[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lam": math.inf}, r"Toggle\.lam=inf"),
        ({"m": 0}, r"Toggle\.m=0"),
        ({"rho": 101}, r"Toggle\.rho=101"),
        ({"warmup_steps": -1}, r"Toggle\.warmup_steps=-1"),
        ({"warmup_steps": 2, "column": "tokens"}, "leave out the other"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Toggle(**fields)
