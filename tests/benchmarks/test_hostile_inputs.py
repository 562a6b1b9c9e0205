"""The campaign over hostile inputs, short; and proof that it notices what it looks for."""

from __future__ import annotations

import os
import random
import time

import pytest

from benchmarks import hostile_inputs
from benchmarks.hostile_inputs import KINDS, apart, campaign, mutated


@pytest.mark.parametrize(("kind", "count"), [("server", 24), ("summary", 16), ("data", 8), ("template", 4)])
def test_a_few_of_each_kind_hurt_nothing(kind, count):
    tally = apart(kind, count, seed=1)
    assert tally.failures == []
    assert tally.used + tally.refused == count
    assert tally.refused > 0
    assert tally.memory_mib < 1024


def test_it_notices_code_that_runs_tracebacks_late_inputs_and_bad_refusals(monkeypatch):
    def bad(draw, folder):
        if draw is None:
            return
        choice = next(faults)
        if choice == "code":
            (folder / "mark").touch()
        elif choice == "program":
            os.system("true")
        elif choice == "late":
            time.sleep(0.3)
        elif choice == "busy":
            until = time.process_time() + 0.3
            while time.process_time() < until:
                pass
        elif choice == "traceback":
            raise TypeError("no such thing")
        elif choice == "secret":
            raise hostile_inputs.UserError("the key is sk-campaign-0123456789")

    faults = iter(["code", "program", "late", "traceback", "secret", "none", "busy"])
    monkeypatch.setitem(KINDS, "server", bad)
    monkeypatch.setitem(hostile_inputs.LATE_SECONDS, "server", 0.2)
    tally = campaign("server", 6, seed=0)
    monkeypatch.setitem(hostile_inputs.LATE_SECONDS, "server", 60.0)
    monkeypatch.setattr(hostile_inputs, "LATE_PROCESSOR_SECONDS", 0.2)
    busy = campaign("server", 1, seed=0)
    said = " | ".join(tally.failures)
    for text in ("ran code: []", "os.system (b", "took 0.3 s", "TypeError: no such thing", "sk-campaign"):
        assert text in said
    assert len(tally.failures) == 5
    assert [failure.endswith("s of the processor") for failure in busy.failures] == [True]


def test_an_input_is_determined_by_its_seed():
    value = {"a": [1, {"b": 2}], "c": "d"}
    drawn = [repr(mutated(random.Random(seed), value)) for seed in range(50)]
    assert drawn == [repr(mutated(random.Random(seed), value)) for seed in range(50)]
    assert len(set(drawn)) > 20
    assert value == {"a": [1, {"b": 2}], "c": "d"}
