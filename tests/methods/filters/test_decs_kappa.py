"""DECS's kappa by hand: the moves of kappa, how many all-right groups join, and what is carried."""

from __future__ import annotations

import pytest

from concise_rl.batch import RolloutBatch
from concise_rl.errors import UserError
from concise_rl.methods.filters.decs_kappa import DecsKappa


def batch_of(mixed: int, solved: int = 0, failed: int = 0, nrp: float = 0.55, step: int = 0, **others) -> RolloutBatch:
    correct = [True, False] * mixed + [True, True] * solved + [False, False] * failed
    n = mixed + solved + failed
    return RolloutBatch.of(
        prompt_keys=[f"q{p}" for p in range(n)],
        group_size=2,
        lengths=[1] * (2 * n),
        correct=correct,
        step=step,
        parts={"nrp": others.pop("nrps", [nrp if right else 0.0 for right in correct])},
        **others,
    )


def groups(keep) -> list[int]:
    return [p for p in range(len(keep) // 2) if keep[2 * p]]


def test_kappa_follows_what_is_needed_and_acts_from_the_next_step_on():
    component = DecsKappa()
    state = component.init()
    assert state == {"kappa": 0.0, "last": 0.5, "kept": 0}
    keep, state = component(batch_of(100, 20, 5, nrp=0.55), state)
    assert groups(keep.tolist()) == list(range(100)), "kappa was 0: only groups with variance"
    assert state["kappa"] == pytest.approx(0.01)
    assert (state["last"], state["kept"]) == (pytest.approx(0.55), 0)
    keep, after = component(batch_of(100, 20, 5), state)
    extra = groups(keep.tolist())[100:]
    assert len(extra) == 1, "int(.01 * 100 / .99)"
    assert 100 <= extra[0] < 120
    assert after["kept"] == 0


def test_too_few_kept_are_carried_until_some_are_added():
    component, state = DecsKappa(), {"kappa": 0.01, "last": 0.55, "kept": 0}
    keep, state = component(batch_of(90, 20), state)
    assert len(groups(keep.tolist())) == 90, "int(.909) = 0"
    assert state["kept"] == 90
    keep, state = component(batch_of(9, 20, step=1), state)
    assert len(groups(keep.tolist())) == 10, "int(.01 * 99 / .99) = 1"
    assert state["kept"] == 0


def test_no_more_join_than_there_are():
    state = {"kappa": 0.5, "last": 0.55, "kept": 0}
    keep, after = DecsKappa()(batch_of(10, 3), state)
    assert len(groups(keep.tolist())) == 13
    assert after["kept"] == 0
    for variant, carried in (("clamp", 10), ("code", 0)):
        keep, after = DecsKappa(variant=variant)(batch_of(10, 0), state)
        assert len(groups(keep.tolist())) == 10
        assert after["kept"] == carried, "the released code forgets them though nothing was added"


def test_the_choice_is_seeded_and_groups_are_whole():
    state = {"kappa": 0.5, "last": 0.55, "kept": 0}

    def chosen(seed: int, step: int) -> list[int]:
        keep = DecsKappa(seed=seed)(batch_of(3, 40, step=step), state)[0].tolist()
        assert all(keep[2 * p] == keep[2 * p + 1] for p in range(43))
        return groups(keep)[3:]

    assert chosen(0, 0) == chosen(0, 0)
    assert len({tuple(chosen(seed, step)) for seed in range(3) for step in range(3)}) > 5


def test_kappa_over_several_steps():
    component = DecsKappa()
    state, kappas = component.init(), []
    for step, nrp in enumerate((0.6, 0.7, 0.65)):
        _, state = component(batch_of(1, nrp=nrp, step=step), state)
        kappas.append(state["kappa"])
    assert kappas == pytest.approx([0.02, 0.04, 0.03])


def test_clamp_and_code_differ_only_outside():
    for variant, low, high in (("clamp", 0.0, 0.99), ("code", -0.08, 1.06)):
        component = DecsKappa(variant=variant)
        assert component(batch_of(1, nrp=0.1), component.init())[1]["kappa"] == pytest.approx(low)
        grown = component(batch_of(1, nrp=0.8), {"kappa": 0.98, "last": 0.4, "kept": 0})[1]
        assert grown["kappa"] == pytest.approx(high)
        keep, _ = component(batch_of(4, 500), {**grown, "kept": 0})
        assert len(groups(keep.tolist())) == (4 + 395 if variant == "clamp" else 4), "int(.99 * 4 / .01), in binary"


def test_a_last_share_of_zero_moves_nothing():
    _, state = DecsKappa()(batch_of(1, nrp=0.7), {"kappa": 0.3, "last": 0.0, "kept": 0})
    assert state["kappa"] == 0.3
    assert state["last"] == pytest.approx(0.7)


def test_shares_are_of_kept_rows_that_have_one():
    component = DecsKappa()
    batch = batch_of(1, 1, nrps=[0.6, 0.0, 0.9, 0.9])
    assert component(batch, component.init())[1]["last"] == pytest.approx(0.6), "the all-right group is left out"
    nothing = batch_of(1, nrps=[0.0, 0.0])
    assert component(nothing, component.init())[1] == component.init()
    unscorable = batch_of(2, nrps=[0.6, 0.0, 0.9, 0.0], scorable=[True, True, False, True])
    assert component(unscorable, component.init())[1]["last"] == pytest.approx(0.6)


def test_rows_without_a_verdict_do_not_make_a_group_right():
    state = {"kappa": 0.5, "last": 0.55, "kept": 5}
    batch = batch_of(0, 2, scorable=[True, False, False, False])
    keep = DecsKappa()(batch, state)[0].tolist()
    assert groups(keep) == [0]


@pytest.mark.parametrize(
    ("fields", "message"), [({"variant": "paper"}, "choose one of clamp, code"), ({"rate": 0}, "DecsKappa.rate=0")]
)
def test_refusals(fields, message):
    with pytest.raises(UserError, match=message):
        DecsKappa(**fields)


def test_the_share_is_asked_for():
    assert DecsKappa().needs == {"parts.nrp"}
    with pytest.raises(ValueError, match="parts has no 'nrp'"):
        DecsKappa()(batch_of(1).replace(parts={}), DecsKappa().init())
