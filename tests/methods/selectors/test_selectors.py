"""Offline selections: the papers' numbers, ties, problems without a right answer; and laws that each keeps."""

from __future__ import annotations

import random

import pytest

from concise_rl.errors import UserError
from concise_rl.methods import Choice, Preference, Sample, load_selector
from concise_rl.methods.registry import SELECTORS
from concise_rl.methods.selectors.ruler import meets


def problem(key: str, right: list[int] = (), wrong: list[int] = (), **others) -> list[Sample]:  # type: ignore[assignment]
    rows = [(length, True) for length in right] + [(length, False) for length in wrong]
    return [Sample(key, length, correct, number=n, **others) for n, (length, correct) in enumerate(rows)]


def lengths(selection) -> list:
    return [(p.chosen.length, p.rejected.length) if isinstance(p, Preference) else p.sample.length for p in selection]


def test_kimis_long2short():
    samples = problem("a", [120, 170, 185], [110, 119, 300]) + problem("b", [], [5]) + problem("c", [7, 7])
    assert lengths(load_selector("long2short")(samples)) == [120, 7]
    assert load_selector("long2short")(samples)[1].sample.number == 0, "the first of several"
    pairs = load_selector("long2short", {"kind": "dpo"})(samples)
    assert lengths(pairs) == [(120, 185), (120, 300)], "185 >= 180; shorter wrong answers are no negatives"
    assert lengths(load_selector("long2short", {"kind": "dpo"})(problem("d", [2, 3], [2]))) == [(2, 3)], "3 >= 1.5 x 2"


def test_tops():
    dpo = load_selector("tops", {"kind": "dpo"})
    assert lengths(dpo(problem("a", [700, 1500], [500, 2000]))) == [(700, 2000), (700, 500)]
    assert lengths(dpo(problem("a", [700], [500]))) == [(700, 500)], "one row stands once"
    assert lengths(dpo(problem("a", [700], [900, 800]))) == [(700, 900)]
    assert dpo(problem("a", [700])) == dpo(problem("a", [], [5])) == []
    seed = load_selector("tops", {"kind": "seed"})
    assert lengths(seed(problem("a", [400, 701, 1002]))) == [400, 701, 1002]
    assert seed(problem("a", [400, 700, 1100])) == [], "300 itself is no gap"
    assert seed(problem("a", [400, 701], [1002])) == seed(problem("a", [400, 1000])) == []
    assert lengths(load_selector("tops")(problem("a", [9, 5], [1]) + problem("b", [], [3]))) == [5]


def test_darts_quotas():
    samples = problem("a", [1] * 30, [1] * 10) + problem("b", [2] * 10, [2] * 30) + problem("c", [3] * 40)
    kept = lengths(load_selector("dart_prop2diff")(samples))
    assert [kept.count(n) for n in (1, 2, 3)] == [17, 10, 1], "quotas 17, 50, 1; short ones stay short"
    kept = lengths(load_selector("dart_prop2diff", {"kind": "uniform", "k": 12})(samples))
    assert [kept.count(n) for n in (1, 2, 3)] == [12, 10, 12]


def test_o1_pruners_weights():
    samples = [Sample("a", n, c, number=i) for i, (n, c) in enumerate([(500, 1), (1000, 0), (1500, 1), (3000, 0)])]
    pruner = load_selector("o1_pruner", {"rows": 4})
    assert pruner.weights(samples) == pytest.approx([3, -0.5, 1, -1.5])
    assert sum(choice.weight for choice in pruner(samples)) == pytest.approx(0)
    two = load_selector("o1_pruner")(samples)
    assert sorted(choice.weight for choice in two) == pytest.approx([-1, 1])
    assert [choice.weight for choice in load_selector("o1_pruner")(problem("a", [5, 5]))] == [0, 0]
    with pytest.raises(UserError, match="sample of 0 tokens"):
        pruner(problem("a", [0, 5]))


def test_rulers_bands():
    asked = [130, 150, 171, 201]
    assert [meets(n, "150") for n in asked] == [False, True, False, False]
    assert [meets(n, "150", flexible=True) for n in asked] == [True, True, True, False]
    samples = [Sample("a", 9, True, words=n, number=n) for n in (5, 6, 15, 16, 150, 155, 156, 801)]
    chosen = load_selector("ruler")(samples)
    assert [(c.sample.words, c.suffix) for c in chosen] == [
        (6, "[MLT:10]"), (15, "[MLT:10]"), (150, "[MLT:150]"), (155, "[MLT:150]"), (801, "[MLT:>800]")
    ]  # fmt: skip
    with pytest.raises(UserError, match="level='151'"):
        meets(1, "151")


def test_controls():
    samples = problem("a", [4, 8, 16], [2]) + problem("b", [], [1])
    assert lengths(load_selector("all_right", {"limit": 8})(samples)) == [4, 8]
    assert load_selector("all_right")([Sample("a", 9, True, truncated=True)]) == []
    drawn = {lengths(load_selector("random_right", {"seed": seed})(samples))[0] for seed in range(40)}
    assert drawn == {4, 8, 16}


def store(seed: int) -> list[Sample]:
    rng = random.Random(seed)
    return [
        Sample(
            f"p{rng.randrange(8)}", rng.choice([3, 5, 8, 900, 1400]), rng.random() < 0.5, rng.random() < 0.9,
            number=n, words=rng.randrange(1, 900),
        )
        for n in range(60)
    ]  # fmt: skip


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("seed", range(3))
def test_a_selector_is_pure_blind_to_order_and_leaves_out_what_has_no_verdict(name, seed):
    samples = store(seed)
    kinds = [{}] if name not in ("long2short", "tops") else [{}, {"kind": "dpo"}]
    for fields in kinds:
        selection = load_selector(name, fields)(samples)
        assert selection or name == "ruler"
        shuffled = random.Random(seed).sample(samples, len(samples))
        assert load_selector(name, fields)(shuffled) == selection
        seen = [s for s in samples if s.scorable]
        assert load_selector(name, fields)(seen) == selection
        for item in selection:
            best = item.sample if isinstance(item, Choice) else item.chosen
            assert best.scorable
            assert best.correct or name == "o1_pruner"
            if isinstance(item, Preference):
                assert item.rejected.problem == best.problem
                assert item.rejected != best
    assert load_selector(name)([]) == []


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("long2short", {"ratio": 1.0}, "Long2Short.ratio=1.0"),
        ("long2short", {"kind": "longest"}, "Long2Short.kind='longest'"),
        ("tops", {"gap": -1}, "Tops.gap=-1"),
        ("dart_prop2diff", {"k": 0}, "DartProp2Diff.k=0"),
        ("o1_pruner", {"rows": 0}, "O1Pruner.rows=0"),
        ("ruler", {"template": "short"}, "Ruler.template='short'"),
        ("all_right", {"limit": 0}, "AllRight.limit=0"),
        ("tops", {"gaps": 1}, "selector.tops.gaps is not known; did you mean gap"),
        ("topps", {}, "selector='topps' is not known; did you mean tops"),
    ],
)
def test_refusals(name, fields, message):
    with pytest.raises(UserError, match=message):
        load_selector(name, fields)
