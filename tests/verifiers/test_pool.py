"""The killable pool: whatever one answer does, its neighbours get their verdicts, in order and in time."""

import os
import signal
import subprocess
import sys
import time

import pytest
from misbehaving import Misbehaving, Unloadable

from concise_rl.errors import UserError
from concise_rl.verifiers import Exact, MathAnswer, pool, verify_many

TOWER = r"\boxed{9^{9^{9^{9}}}}"
HOSTILE = [
    TOWER,
    r"\boxed{" + "{" * 10_000 + "1" + "}" * 10_000 + "}",
    r"\boxed{" + "{" * 400 + "1" + "}" * 400 + "}",
    "7" * 1_000_000,
    r"\boxed{" + "7" * 4000 + "}",
    r"\boxed{" + r"\frac{1}{" * 300 + "2" + "}" * 300 + "}",
    "answer" + " " * 100_000,
    "$" * 100_000,
    "\x00\ud800",
]


def test_hostile_answers_cost_their_own_deadline_and_nothing_else():
    honest = [(rf"\boxed{{{i}}}", str(i - i % 2)) for i in range(40)]
    pairs = honest[:20] + [(answer, "7") for answer in HOSTILE] + honest[20:]
    MathAnswer().verify_many(honest[:2])
    started = time.monotonic()
    verdicts = MathAnswer().verify_many(pairs, deadline_seconds=2)
    # Two workers share the deadlines; a lost worker costs a new one's start.
    assert time.monotonic() - started < len(HOSTILE) * (2 + 5)
    assert [v.correct for v in verdicts[:20] + verdicts[-20:]] == [i % 2 == 0 for i in range(40)]
    assert all(v.scorable for v in verdicts[:20] + verdicts[-20:])
    assert not any(v.correct for v in verdicts[20:-20])
    assert verdicts[20].reason == "verifier exceeded 2 s"
    assert not verdicts[20].scorable


def test_each_misfortune_is_unscorable_with_its_reason(tmp_path):
    pairs = [("a", "a")]
    for act in ("sleep 60", "die now", "eat 64", "recurse", "raise boo"):
        pairs += [(act, "a"), (act[0], act[0])]
    pairs.append((f"die-once {tmp_path / 'died'}", "b"))
    verdicts = Misbehaving().verify_many(pairs, deadline_seconds=1)
    assert [v.correct for v in verdicts] == [True] + [False, True] * 5 + [False]
    assert [v.scorable for v in verdicts] == [True] + [False, True] * 5 + [True]
    reasons = (
        "exceeded 1 s",
        "worker died (exit code -9)",
        "raised MemoryError",
        "raised RecursionError",
        "raised ValueError: boo",
    )
    for verdict, reason in zip(verdicts[1:-1:2], reasons, strict=True):
        assert verdict.reason.startswith(f"verifier {reason}")


def test_workers_killed_from_outside_lose_nothing_and_are_replaced():
    pids = {int(v.reason) for v in Misbehaving().verify_many([(f"pid {i}", "") for i in range(64)])}
    for pid in pids:
        os.kill(pid, 9)
    verdicts = Misbehaving().verify_many([(str(i % 7), str(i % 5)) for i in range(300)])
    assert [v.correct for v in verdicts] == [i % 7 == i % 5 for i in range(300)]
    assert all(v.scorable for v in verdicts)


def test_an_interrupted_call_leaves_no_verdicts_for_the_next(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Misbehaving().verify_many([("x", "x"), ("y", "y")])
    assert [v.correct for v in Misbehaving().verify_many([("x", "y"), ("y", "x")])] == [False, False]


def test_identical_pairs_are_judged_once():
    class Counting:
        hostile_input_safe = True
        calls = 0

        def __call__(self, completion, reference):
            self.calls += 1
            return Exact()(completion, reference)

    counting = Counting()
    assert [v.correct for v in verify_many(counting, [("a", "a"), ("b", "a")] * 5)] == [True, False] * 5
    assert counting.calls == 2


def test_bad_use_is_refused_in_one_line():
    class Local:
        def __call__(self, completion, reference): ...

    for call in (
        lambda: MathAnswer().verify_many([], deadline_seconds=0),
        lambda: verify_many(Local(), [("a", "a")]),
        lambda: Unloadable().verify_many([("a", "a")]),
    ):
        with pytest.raises(UserError) as refused:
            call()
        assert "\n" not in str(refused.value)
    assert Misbehaving().verify_many([("a", "a")])[0].correct


SCRIPT = """
import sys
from concise_rl.verifiers import MathAnswer
assert not {"torch", "transformers", "sympy", "nltk"} & set(sys.modules), "importing verifiers is heavy"
print("main runs", flush=True)
verdicts = MathAnswer().verify_many([("1", "1"), ("9^{9^{9^{9}}}", "2")], deadline_seconds=1)
from concise_rl.verifiers.pool import _pool
print(*(worker.process.pid for worker in _pool().workers))
"""


def test_an_unguarded_script_runs_once_and_its_workers_end_with_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)
    first, pids = done.stdout.splitlines()
    assert first == "main runs"
    assert done.stderr == ""
    for pid in map(int, pids.split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("act", [signal.SIGSTOP, signal.SIGKILL])
def test_workers_that_are_stopped_or_killed_hold_nobody_beyond_the_deadline(act):
    MathAnswer().verify_many([("1", "1"), ("2", "2")])
    for worker in pool._shared[0].workers:
        os.kill(worker.process.pid, act)
    # Longer than a pipe holds: whoever writes it to a process that reads nothing waits for ever.
    pairs = [("7" * 5_000_000, "7"), ("8" * 5_000_000, "8"), (r"\boxed{3}", "3"), (r"\boxed{4}", "5")]
    started = time.monotonic()
    verdicts = MathAnswer().verify_many(pairs, deadline_seconds=3)
    assert time.monotonic() - started < 4 * (3 + 10)
    assert [verdict.correct for verdict in verdicts] == [False, False, True, False]
