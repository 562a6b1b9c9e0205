"""Scripts that are run by hand, some once a quarter, still find what they import."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("script", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_a_benchmark_finds_its_names(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (FOLDER, FOLDER.parent):  # as `python benchmarks/x.py` has them, and the scripts add
        monkeypatch.syspath_prepend(place)
    monkeypatch.setattr(sys, "path", [*sys.path])  # a script's own additions end here
    importlib.import_module(f"benchmarks.{script}")
