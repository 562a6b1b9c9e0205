"""reasoning-gym tasks by name."""

from __future__ import annotations

import sys

import pytest

from concise_rl.commands.config import compose
from concise_rl.data import ReasoningGym
from concise_rl.errors import DataError, UserError


@pytest.fixture
def _package():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'concise-rl[tasks]'")


@pytest.mark.usefixtures("_package")
def test_splits_are_disjoint_distinct_and_repeatable():
    source = ReasoningGym(task="chain_sum", size=60, test_size=20, config={"max_terms": 3})
    train, test = source.load("train"), source.load("test")
    assert (len({p.id for p in train}), len({p.id for p in test})) == (60, 20)
    other_seed = ReasoningGym(task="chain_sum", size=60, test_size=20, seed=5, config={"max_terms": 3})
    both_train = {p.messages[0]["content"] for p in train + other_seed.load("train")}
    both_test = {p.messages[0]["content"] for p in test + other_seed.load("test")}
    assert not both_train & both_test
    assert source.load("train") == train
    for prompt in train:
        expression = prompt.columns["expression"]
        assert int(prompt.reference) == eval(expression)
        assert prompt.columns["num_terms"] <= 3


@pytest.mark.usefixtures("_package")
def test_what_cannot_be_made_is_refused_with_its_remedy():
    with pytest.raises(UserError, match=r"no task 'chain_sums'; close names: \['chain_sum'"):
        ReasoningGym(task="chain_sums").load("train")
    with pytest.raises(UserError, match=r"refuses config={'terms': 3}"):
        ReasoningGym(config={"terms": 3}).load("train")
    with pytest.raises(UserError, match=r"refuses config={'min_terms': -1}"):
        ReasoningGym(config={"min_terms": -1}).load("train")
    narrow = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    with pytest.raises(DataError, match=r"distinct train problems in .* draws; lower size=500"):
        ReasoningGym(size=500, config=narrow).load("train")
    with pytest.raises(UserError, match=r"size=0"):
        ReasoningGym(size=0)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"pip install 'concise-rl\[tasks\]'"):
        ReasoningGym().load("train")


def test_a_field_of_the_task_is_an_override_like_any_other():
    overrides = ["data=reasoning_gym", "data.task=chain_sum", "data.config={min_terms: 2}", "data.config.max_terms=3"]
    assert compose(overrides).data.config == {"min_terms": 2, "max_terms": 3}
