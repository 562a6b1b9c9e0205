"""HBPO's subgroups: which row announces which budget."""

from __future__ import annotations

import pytest

from concise_rl.engine.rows import loss_mask
from concise_rl.errors import UserError
from concise_rl.methods.samplers.hbpo import AnnouncedBudgets

from .fake import VOCABULARY, Fake, rows_of, shown


def test_each_subgroup_announces_its_budget():
    sampler = AnnouncedBudgets(budgets=[3, 9], words="Say {budget}:")
    rows = rows_of(sampler, Fake(["a$", "b$", "c$", "0123456789"]), limit=9, group_size=4)
    assert [shown(row) for row in rows] == ["[Say 3:]a$", "[Say 3:]b$", "[Say 9:]c$", "[Say 9:]012345678"]
    assert [row.parts["budget"] for row in rows] == [3, 3, 9, 9]
    assert [row.length for row in rows] == [2, 2, 2, 9], "a budget cuts nothing off"
    assert loss_mask(rows[0]) == [0] * 6 + [1, 1]


def test_the_budgets_are_the_papers_share_of_the_limit():
    rows = rows_of(AnnouncedBudgets(), Fake(["$"] * 8), limit=4096, group_size=8)
    assert [row.parts["budget"] for row in rows] == [512, 512, 1024, 1024, 2048, 2048, 2560, 2560]


def test_refusals():
    with pytest.raises(UserError, match="6 rows do not make 4 subgroups of one size"):
        AnnouncedBudgets().check(VOCABULARY, group_size=6, limit=48)
    with pytest.raises(UserError, match="the largest is above"):
        AnnouncedBudgets(budgets=[5, 50]).check(VOCABULARY, group_size=6, limit=48)
    for fields in ({"budgets": []}, {"budgets": [0, 5]}, {"budgets": [5, 5]}, {"words": "Be brief."}):
        with pytest.raises(UserError, match="AnnouncedBudgets"):
            AnnouncedBudgets(**fields)
