"""Methods as points: who is drawn, who is named below."""

from __future__ import annotations

import math

from concise_rl.reporting.plots import outer_fences, plot_methods


def row(name, tokens, accuracy):
    return {
        "method": name, "mean_tokens": tokens, "mean_tokens_interval": [tokens - 1, tokens + 1],
        "accuracy": accuracy, "accuracy_interval": [accuracy - 0.01, accuracy + 0.01],
    }  # fmt: skip


def drawn(rows, path):
    before = row("", 11, 0.8)
    plot_methods([one | {"before": before} for one in rows], path)
    return path.read_text()


def test_a_method_far_off_is_named_below_and_squeezes_nobody(tmp_path):
    near = [row(f"near{n}", 10 + n / 4, 0.8 + n / 100) for n in range(9)]
    text = drawn([*near, row("far", 64, 0.01)], tmp_path / "far.svg")
    assert "not drawn: far (1 % at 64)" in text
    assert "<!-- 60 -->" not in text, "the axis ends where the others do"
    few = drawn([*near[:3], row("far", 64, 0.01)], tmp_path / "few.svg")
    assert "not drawn" not in few
    assert "<!-- far -->" in few


def test_fences_by_hand():
    assert outer_fences([1, 2, 3, 4, 5, 6, 7, 8, 9]) == (3 - 12, 7 + 12)
    assert outer_fences([1, 2, 99]) == (-math.inf, math.inf)
