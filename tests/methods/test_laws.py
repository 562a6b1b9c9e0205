"""Laws that every component keeps, whatever its formula; `concise_rl.methods.registry` says which there are."""

from __future__ import annotations

import itertools
import json
import math
import random
import tempfile
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from concise_rl.batch import COLUMN_PREFIX, FIELDS, PART_PREFIX, RolloutBatch
from concise_rl.data import Prompt
from concise_rl.engine.checkpoint import load_state, save_state
from concise_rl.methods.contracts import Advantage, Out, Selector, Shaper, check_keep, check_kept_tokens, check_value
from concise_rl.methods.edits.wording import edited
from concise_rl.methods.history import History
from concise_rl.methods.method import Method
from concise_rl.methods.picking import PerProblem, check_selection
from concise_rl.methods.recipes import configure, load_method, load_selector
from concise_rl.methods.registry import RECIPES, SHELVES, component, method_names, selector_names
from concise_rl.samples import Samples, Selection

LIMIT = 64


def variants(kind: str, name: str) -> dict[str, object]:
    """The component as it is by default, and with each choice and each switch that it has, one at a time."""
    cls = component(kind, name)
    found = {name: cls()}
    hints = get_type_hints(cls)
    for field in fields(cls):
        kinds = [k for k in (hints[field.name], *get_args(hints[field.name])) if isinstance(k, type)]
        enum = next((k for k in kinds if issubclass(k, Enum)), None)
        choices = list(enum) if enum else [True, False] if bool in kinds else []
        for choice in choices:
            try:
                found[f"{name}-{field.name}={getattr(choice, 'value', choice)}"] = cls(**{field.name: choice})
            except ValueError:
                continue  # a choice that asks for another field beside it
    return found


CASES = {
    kind: {case: built for name in shelf for case, built in variants(kind, name).items()}
    for kind, shelf in SHELVES.items()
}
CASES["advantage"] |= {
    "difficulty_weighted-column": component("advantage", "difficulty_weighted")(
        kind="linear", column="difficulty", minimum=0.0, maximum=6.0
    ),
}
LINKS = {**CASES["shaper"], **CASES["advantage"]}


def cases(*kinds: str):
    chosen = {case: built for kind in kinds for case, built in CASES[kind].items()}
    return pytest.mark.parametrize("link", chosen.values(), ids=chosen.keys())


links = cases("shaper", "advantage")
seeds = pytest.mark.parametrize("seed", range(3))


def random_batch(
    seed: int, needs=frozenset(), *, n_prompts: int = 5, group_size: int = 6, step: int = 3, **rows
) -> RolloutBatch:
    """Prompts from a pool of eight, so that some come back and one stands twice; some rows without a verdict, some that
    are scorable and left out."""
    generator = torch.Generator().manual_seed(seed)
    n_rows = n_prompts * group_size

    def uniform(high: float = 1.0, n: int = n_rows) -> Tensor:
        return torch.rand(n, generator=generator, dtype=torch.float64) * high

    pool = torch.randint(8, (n_prompts,), generator=generator).tolist()
    pool[-1] = pool[0]
    lengths = 1 + (uniform() * LIMIT).long()
    named = sorted(need.removeprefix(PART_PREFIX) for need in needs if need.startswith(PART_PREFIX))
    columns = sorted(need.removeprefix(COLUMN_PREFIX) for need in needs if need.startswith(COLUMN_PREFIX))
    defaults = {
        "lengths": lengths,
        "limits": torch.full_like(lengths, LIMIT),
        "correct": uniform() < 0.6,
        "scorable": uniform() < 0.8,
        "truncated": lengths == LIMIT,
        "think_entropy": uniform(2.0),
        "answer_entropy": uniform(2.0),
        "mean_entropy": uniform(2.0),
        "parts": {name: uniform() for name in ("repetition", "short_similarity", "long_similarity")}
        | {name: (uniform() < 0.5).double() for name in named if name != "repetition"},
        "costs": {"context_tokens": uniform(500.0), "turns": 1 + uniform(4.0).floor()},
        "columns": {
            name: [2.0 + v // 1 for v in uniform(4.0, n_prompts).tolist()] for name in {"difficulty", *columns}
        },
    } | rows
    defaults["lengths"] = torch.as_tensor(defaults["lengths"])
    defaults.setdefault("think_lengths", defaults["lengths"] // 2)
    defaults.setdefault("counts", torch.as_tensor(defaults["scorable"], dtype=torch.bool) & (uniform() < 0.9))
    keys = [f"prompt {p}" for p in pool]
    return RolloutBatch.of(prompt_keys=keys, group_size=group_size, step=step, **defaults)


def take_rows(batch: RolloutBatch, rows: Tensor) -> RolloutBatch:
    """The batch with each group's rows in another order."""
    return batch.replace(
        parts={name: part[rows] for name, part in batch.parts.items()},
        costs={name: cost[rows] for name, cost in batch.costs.items()},
        **{name: getattr(batch, name)[rows] for name in FIELDS if getattr(batch, name) is not None},
    )


def shuffled_within_groups(batch: RolloutBatch, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(batch.group_size, generator=generator) for _ in range(batch.n_prompts)]
    return torch.cat([p * batch.group_size + order for p, order in enumerate(orders)])


def saved_and_loaded(state):
    """Through the files of a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder), {"slot": state}, {"step": 1})
        return load_state(Path(folder))[0]["slot"]


def copied(state):
    return saved_and_loaded(state) if state is not None else None


def value_for(link, batch: RolloutBatch) -> Tensor:
    """What a link is handed: the task reward; or the credit of the links before."""
    return batch.task_reward


def state_after(link, *seeds: int):
    state = link.init()
    for seed in seeds:
        batch = random_batch(seed, link.needs, step=seed % 7)
        _, state = link(batch, batch.task_reward, state)
    return state


def assert_close(actual: Tensor, expected: Tensor) -> None:
    if actual.ndim == expected.ndim == 2:  # credit of tokens, as wide as its batch's longest row
        width = max(actual.shape[1], expected.shape[1])
        actual, expected = (
            torch.nn.functional.pad(credit, (0, width - credit.shape[1])) for credit in (actual, expected)
        )
    # A vectorised cosine may round the last bit of a row otherwise than its scalar tail does.
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def assert_same_state(state, other) -> None:
    """Equal; numbers of JSON to rounding, since a mean over rows in another order may differ in its last bit."""
    if isinstance(state, dict):
        assert state.keys() == other.keys()
        for key in state:
            assert_same_state(state[key], other[key])
    elif isinstance(state, list | tuple):
        assert len(state) == len(other)
        for mine, theirs in zip(state, other, strict=True):
            assert_same_state(mine, theirs)
    elif isinstance(state, float):
        assert state == pytest.approx(other, rel=1e-9, abs=1e-12)
    elif hasattr(state, "tolist"):
        assert state.tolist() == pytest.approx(other.tolist())
    else:
        assert state == other


@links
@seeds
def test_a_group_is_treated_the_same_alone_and_among_others(link, seed):
    if link.across_groups:
        pytest.skip("it compares groups by design")
    batch, state = random_batch(seed, link.needs), state_after(link, 100, 101)
    together = batch.by_group(link(batch, batch.task_reward, copied(state))[0].value)
    for p in range(batch.n_prompts):
        alone = batch.take_prompts([p])
        assert_close(link(alone, alone.task_reward, copied(state))[0].value, together[p])


@links
@seeds
def test_permuting_a_group_permutes_its_value_and_records_the_same(link, seed):
    if link.order_matters:
        pytest.skip("ties keep their order by design")
    batch, state = random_batch(seed, link.needs), state_after(link, 100, 101)
    rows = shuffled_within_groups(batch, seed)
    out, after = link(batch, batch.task_reward, copied(state))
    permuted, after_permuted = link(take_rows(batch, rows), batch.task_reward[rows], copied(state))
    assert_close(permuted.value, out.value[rows])
    assert_same_state(after_permuted, after)


@links
@seeds
def test_it_is_pure(link, seed):
    batch, state = random_batch(seed, link.needs), state_after(link, 100)
    untouched, reward = random_batch(seed, link.needs), batch.task_reward.clone()
    first, first_state = link(batch, reward, copied(state))
    second, second_state = link(batch, reward, copied(state))
    assert torch.equal(first.value, second.value)
    assert first.metrics == second.metrics
    assert first_state == second_state
    assert torch.equal(reward, batch.task_reward), "the value handed in is not the component's to change"
    for field in fields(batch):
        before, now = getattr(untouched, field.name), getattr(batch, field.name)
        assert torch.equal(before, now) if isinstance(before, Tensor) else str(before) == str(now)


@links
def test_a_resumed_run_equals_one_that_never_stopped(link):
    batches = [random_batch(seed, link.needs, step=seed) for seed in range(8)]
    straight, resumed = link.init(), link.init()
    for k, batch in enumerate(batches):
        if k in (3, 6):
            resumed = copied(resumed)
        out, straight = link(batch, batch.task_reward, straight)
        out_resumed, resumed = link(batch, batch.task_reward, resumed)
        assert torch.equal(out.value, out_resumed.value)
    assert copied(straight) == copied(resumed)


N_ROWS = 5 * 6
DEGENERATE = {
    "all correct": {"correct": [True] * N_ROWS},
    "all wrong": {"correct": [False] * N_ROWS},
    "equal lengths": {"lengths": [17] * N_ROWS},
    "all truncated": {"lengths": [LIMIT] * N_ROWS, "truncated": [True] * N_ROWS, "correct": [False] * N_ROWS},
    "all unscorable": {"correct": [False] * N_ROWS, "scorable": [False] * N_ROWS},
    "none counts": {"scorable": [True] * N_ROWS, "counts": [False] * N_ROWS},
    "one scorable": {"scorable": [True] + [False] * (N_ROWS - 1)},
    "no tokens": {"lengths": [0] * N_ROWS, "correct": [True] * N_ROWS, "scorable": [True] * N_ROWS},
    "beyond the limit": {"lengths": [50 * LIMIT] * N_ROWS},
    "empty think": {"think_lengths": [0] * N_ROWS, "think_entropy": [0.0] * N_ROWS},
    "group of one": {"n_prompts": N_ROWS, "group_size": 1},
}
degenerate = pytest.mark.parametrize("rows", DEGENERATE.values(), ids=DEGENERATE.keys())


@links
@degenerate
def test_degenerate_groups_stay_finite(link, rows):
    state = state_after(link, 100)
    for seed in (0, 1, 2):
        batch = random_batch(seed, link.needs, **rows)
        out, state = link(batch, batch.task_reward, state)
        assert check_value(link, batch, out).shape[0] == batch.n_rows
        assert out.value.dtype == torch.float64
        assert all(type(value) is float and math.isfinite(value) for value in out.metrics.values())


@links
@seeds
def test_rows_that_do_not_count_keep_their_reward_or_get_no_credit_and_touch_nothing_else(link, seed):
    batch, state = random_batch(seed, link.needs), state_after(link, 100)
    gone = ~batch.counts
    other = random_batch(seed + 50, link.needs)
    replaced = batch.replace(
        lengths=torch.where(gone, other.lengths, batch.lengths),
        think_lengths=torch.where(gone, torch.zeros_like(batch.think_lengths), batch.think_lengths),
        correct=torch.where(gone, ~batch.correct, batch.correct),
        truncated=torch.where(gone, ~batch.truncated, batch.truncated),
        think_entropy=torch.where(gone, other.think_entropy, batch.think_entropy),
        parts={name: torch.where(gone, other.parts[name], part) for name, part in batch.parts.items()},
        costs={name: torch.where(gone, other.costs[name], cost) for name, cost in batch.costs.items()},
    )
    out, after = link(batch, batch.task_reward, copied(state))
    moved = torch.where(gone, 7.0, batch.task_reward) if isinstance(link, Advantage) else batch.task_reward
    out_replaced, after_replaced = link(replaced, moved, copied(state))
    counted = batch.counts
    assert_close(out.value[counted], out_replaced.value[counted])
    if isinstance(link, Shaper):
        assert torch.equal(out.value[gone], batch.task_reward[gone])
        assert torch.equal(out_replaced.value[gone], batch.task_reward[gone])
    assert out.metrics == pytest.approx(out_replaced.metrics)
    assert_same_state(after, after_replaced)


# -- filters -----------------------------------------------------------------------------------------------------------


@cases("filter")
@seeds
def test_a_filter_is_pure_and_leaves_groups_and_resumed_runs_alone(link, seed):
    batches = [random_batch(seed * 10 + k, link.needs, step=k) for k in range(6)]
    straight, resumed = link.init(), link.init()
    for k, batch in enumerate(batches):
        resumed = copied(resumed) if k == 3 else resumed
        again, _ = link(batch, copied(straight))
        keep, straight = link(batch, straight)
        keep_resumed, resumed = link(batch, resumed)
        check_keep(link, batch, keep)
        assert torch.equal(keep, again)
        assert torch.equal(keep, keep_resumed)
    assert copied(straight) == copied(resumed)


@cases("filter")
@degenerate
def test_a_filter_answers_degenerate_groups(link, rows):
    batch = random_batch(0, link.needs, **rows)
    check_keep(link, batch, link(batch, link.init())[0])


# -- cuts --------------------------------------------------------------------------------------------------------------


@cases("cut")
@seeds
def test_a_cut_is_pure_and_keeps_groups_apart(link, seed):
    batch = random_batch(seed, link.needs, group_size=16)
    batch = batch.replace(lengths=torch.where(torch.arange(batch.n_rows) % 16 == 0, 900, batch.think_lengths + 1))
    every = torch.ones_like(batch.correct)
    batch = batch.replace(correct=every, scorable=every, counts=every)
    kept = check_kept_tokens(link, batch, link(batch))
    assert bool((kept < batch.lengths).any())
    assert torch.equal(kept, link(batch))
    order = list(range(batch.n_prompts))[::-1]
    rows = torch.arange(batch.n_rows).reshape(batch.n_prompts, -1)[order].flatten()
    assert torch.equal(link(batch.take_prompts(order)), kept[rows])
    alone = torch.cat([link(batch.take_prompts([p])) for p in range(batch.n_prompts)])
    assert torch.equal(alone, kept)


@cases("cut")
@degenerate
def test_a_cut_answers_degenerate_groups(link, rows):
    batch = random_batch(0, link.needs, **rows)
    check_kept_tokens(link, batch, link(batch))


# -- edits -------------------------------------------------------------------------------------------------------------


@cases("edit")
def test_an_edit_keeps_the_problem_and_is_drawn_by_seed_and_key(link):
    """The same in every step, on every rank and in evaluation; only text and columns change, and JSON holds them."""
    asked = [Prompt.of(f"question {n}", "7", level=n % 3) for n in range(40)]
    changed = [edited(link, prompt, seed=3) for prompt in asked]
    assert changed == [edited(link, prompt, seed=3) for prompt in reversed(asked)][::-1]
    for before, after in zip(asked, changed, strict=True):
        assert (after.id, after.reference) == (before.id, before.reference)
        assert after.messages[-1]["content"].startswith(before.messages[-1]["content"])
        assert before.columns.items() <= after.columns.items()
        assert json.loads(json.dumps(dict(after.columns))) == dict(after.columns)
    assert asked == [Prompt.of(f"question {n}", "7", level=n % 3) for n in range(40)], "what came in stays as it was"
    talk = Prompt("k", ({"role": "system", "content": "s"}, {"role": "user", "content": "q"}), "7")
    assert edited(link, talk, seed=0).messages[0] == talk.messages[0], "the words go behind the question"


# -- curricula ---------------------------------------------------------------------------------------------------------

PROMPTS = [Prompt.of(f"question {n}", "7", level=n % 3, difficulty=float(n % 5)) for n in range(40)]


def observed(curriculum, state, drawn: list[int], step: int):
    """The state after a step on these prompts, some right."""
    needs = curriculum.needs
    columns = {need.removeprefix(COLUMN_PREFIX) for need in needs if need.startswith(COLUMN_PREFIX)}
    batch = random_batch(step, needs, n_prompts=len(drawn), group_size=4, step=step).replace(
        prompt_keys=tuple(PROMPTS[i].id for i in drawn),
        columns={name: [PROMPTS[i].columns[name] for i in drawn] for name in columns},
    )
    return curriculum.observe(batch, state)


@cases("curriculum")
@seeds
def test_a_curriculum_draws_alike_on_every_rank_and_when_resumed(link, seed):
    straight, resumed = link.init(), link.init()
    for step in range(12):
        resumed = copied(resumed) if step in (4, 9) else resumed
        used = {PROMPTS[n].id for n in range(seed)}
        drawn = link.draw(PROMPTS, 6, used, random.Random(f"{seed}/{step}"), straight)
        assert drawn == link.draw(PROMPTS, 6, used, random.Random(f"{seed}/{step}"), resumed)
        assert len(drawn) <= 6
        assert not used & {PROMPTS[i].id for i in drawn}
        straight, resumed = (
            (observed(link, state, drawn, step) for state in (straight, resumed)) if drawn else (straight, resumed)
        )
    assert copied(straight) == copied(resumed)


# -- selectors ---------------------------------------------------------------------------------------------------------


def random_columns(seed: int, **columns) -> dict[str, np.ndarray]:
    """A dozen problems with up to seven completions each; many of equal length, some without a verdict."""
    rng = np.random.default_rng(seed)
    problems = np.repeat([f"problem {n}" for n in range(12)], rng.integers(1, 8, 12)).astype(object)
    n = len(problems)
    return {
        "problems": problems,
        "lengths": rng.integers(1, 6, n) * 400,
        "correct": rng.random(n) < 0.6,
        "scorable": rng.random(n) < 0.9,
        "truncated": rng.random(n) < 0.1,
        "edits": rng.choice(np.array(["", "low", "high"], dtype=object), n),
        "seeds": rng.permutation(n),
        "numbers": rng.integers(0, 3, n),
        "words": rng.choice([10, 12, 20, 50, 900], n),
    } | {name: np.full(n, value) for name, value in columns.items()}


def named(samples: Samples, selection: Selection) -> list[tuple]:
    """A selection by the seeds of its completions, which no order changes."""
    sides = [selection.rows, *([] if selection.rejected is None else [selection.rejected])]
    columns = [samples.seeds[side].tolist() for side in sides]
    columns += [list(extra) for extra in (selection.weights, selection.starts) if extra is not None]
    return list(zip(*columns, strict=True))


@cases("selector")
@seeds
def test_no_order_of_a_store_changes_a_selection(link, seed):
    columns = random_columns(seed)
    samples = Samples.of(**columns)
    selection = check_selection(link, samples, link(samples, seed))
    assert named(samples, selection) == named(samples, link(samples, seed))
    order = np.random.default_rng(seed + 9).permutation(len(samples))
    moved = Samples.of(**{name: column[order] for name, column in columns.items()})
    again = link(moved, seed)
    assert named(moved, again) == named(samples, selection)
    assert again.dropped == selection.dropped
    assert (columns["seeds"][order][moved.places[again.rows]] == samples.seeds[selection.rows]).all()


@cases("selector")
@pytest.mark.parametrize(
    "columns",
    [{}, {"correct": False}, {"correct": True}, {"scorable": False}, {"lengths": 7}, {"truncated": True}],
    ids=["random", "none right", "all right", "no verdict", "equal lengths", "all truncated"],
)
def test_a_selector_keeps_what_is_right_and_says_why_it_drops_a_problem(link, columns):
    for seed in range(4):
        samples = Samples.of(**random_columns(seed, **columns))
        selection = check_selection(link, samples, link(samples, seed))
        kept = {samples.problems[code] for code in samples.problem[selection.rows]}
        assert kept | set(selection.dropped) == set(samples.problems)
        assert not kept & set(selection.dropped)
        assert all(selection.dropped.values())
        for side in (selection.rows, selection.rejected):
            assert side is None or samples.scorable[side].all()


@cases("selector")
@seeds
def test_a_problem_is_selected_the_same_alone_and_among_others(link, seed):
    if not isinstance(link, PerProblem):
        pytest.skip("it shares quotas among problems by design")
    columns = random_columns(seed)
    samples = Samples.of(**columns)
    together = [rows[:2] for rows in named(samples, link(samples, seed))]  # weights may be standardised together
    for key in samples.problems:
        own = Samples.of(**{name: column[columns["problems"] == key] for name, column in columns.items()})
        alone = [rows[:2] for rows in named(own, link(own, seed))]
        if link.takes_wrong:
            alone, together = ([rows[:1] for rows in side] for side in (alone, together))
        assert alone == [rows for rows in together if rows[0] in own.seeds]


@pytest.mark.parametrize("name", selector_names())
def test_every_selector_recipe_is_a_selector(name):
    selector = load_selector(name)
    samples = Samples.of(**random_columns(1))
    check_selection(selector, samples, selector(samples, 0))
    with pytest.raises(ValueError, match="no_such_field is not known"):
        load_selector(name, no_such_field=1)


@pytest.mark.parametrize(
    ("answer", "pairs", "words"),
    [
        ([0], False, "returned list; a selector returns a Selection"),
        (Selection(np.array([0]), np.array([1])), False, "returned pairs, and Odd.pairs=False"),
        (Selection(np.array([0])), True, "returned rows, and Odd.pairs=True"),
        (Selection(np.array([0]), weights=np.array([1.0, 2.0])), False, r"weights of shape \(2,\); it must be \(1,\)"),
        (Selection(np.array([0]), weights=np.array([np.nan])), False, "a weight that is not finite"),
        (Selection(np.array([4])), False, "a row outside 0..3"),
        (Selection(np.array([1])), False, "1 rows that are not right, the first of problem a"),
        (Selection(np.array([0, 0])), False, "a row or a pair twice"),
        (Selection(np.array([0]), np.array([2])), True, "paired completions of two problems"),
        (Selection(np.array([0]), np.array([0])), True, "paired a completion with itself"),
    ],
)
def test_what_a_strangers_selector_gets_wrong_is_said_by_name(answer, pairs, words):
    kind = type("Odd", (Selector,), {"pairs": pairs, "__call__": lambda self, samples, seed: answer})
    samples = Samples.of(["a", "a", "b", "b"], [1, 2, 3, 4], [1, 0, 1, 0])
    with pytest.raises(ValueError, match=f"Odd (returned |chose )?{words}"):
        check_selection(kind(), samples, kind()(samples, 0))


# -- all of them -------------------------------------------------------------------------------------------------------

EVERY = list(itertools.chain.from_iterable(((kind, name) for name in shelf) for kind, shelf in SHELVES.items()))


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_a_component_is_its_own_configuration(kind, name):
    cls = component(kind, name)
    assert cls.__module__.rsplit(".", 1)[-1] == name, "one paper, one stem"
    assert cls() == configure(f"{kind}.{name}", cls, {})[0]
    assert OmegaConf.structured(cls) is not None
    with pytest.raises(ValueError, match="no_such_field is not known"):
        configure(f"{kind}.{name}", cls, {"no_such_field": 1})


@pytest.mark.parametrize("name", method_names())
def test_every_recipe_is_a_method(name):
    method = load_method(name)
    batch = random_batch(3, method.needs)
    states = method.init()
    for step in range(3):
        result, states = method.apply(batch.replace(step=step), states)
        assert result.reward.shape == (batch.n_rows,)
        assert not result.credit[~result.counts].any()
        assert not (result.counts & ~batch.counts).any()
    assert {slot for slot, state in states.items() if state is None} == set()


def test_recipes_hold_what_differs_from_the_defaults():
    import yaml

    for path in itertools.chain((RECIPES / "method").glob("*.yaml"), (RECIPES / "selector").glob("*.yaml")):
        recipe = yaml.safe_load(path.read_text())
        for kind in SHELVES:
            for name, given in (recipe.get(kind) or {}).items():
                default = component(kind, name)()
                same = [
                    f
                    for f, v in (given or {}).items()
                    if v == getattr(getattr(default, f), "value", getattr(default, f))
                ]
                assert not same, f"{path.name}: {kind}.{name}.{same} repeats the class's default"


def test_what_a_strangers_component_gets_wrong_is_said_by_name():
    class Odd(Shaper):
        def __init__(self, answer):
            self.answer = answer

        def __call__(self, batch, value, state):
            return self.answer(batch, value)

    batch = random_batch(0)
    for answer, words in (
        (lambda b, v: v, "Tensor; a component that is called returns a pair"),
        (lambda b, v: (v, None), "Tensor; it must return"),
        (lambda b, v: (Out(v[:-1]), None), r"reward of shape \(29,\); it must be \(30,\)"),
        (lambda b, v: (Out(v[:, None]), None), r"reward of shape \(30, 1\); it must be \(30,\)"),
        (lambda b, v: (Out(v.long()), None), "reward of type torch.int64; it must be float64"),
        (lambda b, v: (Out(v / 0), None), r"reward\[\d+\]=(nan|inf) for prompt prompt \d"),
    ):
        chain = {"shaper.Odd": Odd(answer), "advantage.group_relative": component("advantage", "group_relative")()}
        with pytest.raises(ValueError, match=f"Odd returned {words}"):
            Method("odd", chain).apply(batch, {})


def test_history_holds_zero():
    assert History.empty().record_mean(["a"], [0.0]).lookup(["a"])[0].tolist() == [0.0]
