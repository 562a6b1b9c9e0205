"""Hostile servers, summaries, templates and data files: each is used or refused in one line, within bounds.

    python benchmarks/hostile_inputs.py                               1,000 inputs, some minutes
    python benchmarks/hostile_inputs.py --count 20 --kind server      some of one kind

Every input is drawn from `--seed`, its kind and its number. A kind runs in a process of its own, after a sound input,
so that its memory can be told: the peak beyond that of the sound input, its bounded children included, what it takes to
make a bomb left out. Counted are code
that ran (a planted file exists, or a program was started that is not ours), errors that no person can mend (anything
but a one-line `UserError`), inputs that took longer than their bound, and memory. Exits with 1 if anything did.
Completions have their own campaign, `benchmarks/fuzz.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from concise_rl.data import Local, Prompt, bounded, templates
from concise_rl.errors import UserError, printable
from concise_rl.evaluation import evaluate
from concise_rl.evaluation.backends import HTTPBackend
from concise_rl.verifiers import FinalNumber

SHARES = {"server": 0.4, "summary": 0.4, "data": 0.12, "template": 0.08}
"""Of all inputs; a template or a Parquet file takes a process of a second each."""

ATTEMPT_SECONDS, CHILD_SECONDS = 0.5, 3.0
"""What the campaign sets as the bounds of a server's answer, and of a result of a bounded process."""

LATE_PROCESSOR_SECONDS = 20.0
"""An input that takes more of the processor, bounded children included, was not bounded."""

LATE_SECONDS = {"server": 10.0, "summary": 600.0, "data": 600.0, "template": 200.0}
"""Nor one that takes longer by the clock: something waits. A machine under much other work starts processes slowly."""

JSON_VALUES: list[Any] = [
    None, True, -1, 0, 7, 0.5, 1e308, 10**400, math.nan, math.inf, "", "7", "\x1b[2J\nx", "\ud800", "9" * 5000, [],
    [[]], {}, {"a": 1}, [1, 2, 3], [None] * 999, "x" * 100_000,
]  # fmt: skip


@dataclass
class Tally:
    """What came of the inputs of one kind."""

    kind: str
    inputs: int = 0
    used: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    processor_seconds: float = 0.0
    memory_mib: int = 0


def mutated(draw: random.Random, value: Any) -> Any:
    """The JSON value with one of its fields, at any depth, replaced by a hostile one or taken away."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        key = draw.choice(list(copy)) if isinstance(copy, dict) else draw.randrange(len(copy))
        if draw.random() < 0.1:
            del copy[key]
        else:
            copy[key] = mutated(draw, copy[key])
        return copy
    return draw.choice(JSON_VALUES)


# --- servers ----------------------------------------------------------------------------------------------------------

ANSWERS: list[dict[str, Any]] = [
    {
        "choices": [{"text": "<think>1</think>4", "finish_reason": "stop",
                     "logprobs": {"tokens": ["<think>", "1", "</think>", "4", "<e>"]}}],
        "usage": {"completion_tokens": 5},
    },
    {
        "choices": [{"message": {"content": [{"type": "text", "text": "4"}], "reasoning": "1"},
                     "finish_reason": "length"}],
        "usage": {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 2}},
    },
]  # fmt: skip


def _wire(draw: random.Random) -> bytes | Callable[[Any], None]:
    body = json.dumps(mutated(draw, mutated(draw, draw.choice(ANSWERS)))).encode()
    head = b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\nRetry-After: 0\r\n\r\n"
    key = b"sk-campaign-0123456789"

    def forever(piece: bytes, pause: float = 0.0) -> Callable[[Any], None]:
        def write(wire: Any) -> None:
            while True:
                wire.write(piece)
                wire.flush()
                time.sleep(pause)

        return write

    return draw.choice([
        head % (200, len(body)) + body,
        head % (200, len(body)) + body,
        head % (200, len(body)) + body,
        head % (draw.choice([200, 400, 401, 429, 500, 599]), 99) + b"\x1b[2J" + key + b"\xff" * 50,
        head % (302, 0) + b"",
        draw.randbytes(200),
        b"HTTP/1.1 200 " + key + b"\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        head % (200, 10**9) + b"[" * 900_000,
        forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 500),
        forever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b" " * 65536 + b"\r\n"),
        forever(b"H", 0.05),
        forever(head % (200, 10**9) + b" " * 65536),
    ])  # fmt: skip


class _Server:
    def __init__(self) -> None:
        self.answer: bytes | Callable[[Any], None] = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.close_connection = True
                answer = outer.answer
                with contextlib.suppress(OSError):
                    answer(self.wfile) if callable(answer) else self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@functools.cache
def _server() -> _Server:
    return _Server()


def server(draw: random.Random | None, folder: Path) -> None:
    """One completion from a server that says anything."""
    body = json.dumps(ANSWERS[0]).encode()
    sound = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    _server().answer = _wire(draw) if draw else sound
    client = HTTPBackend(
        f"http://127.0.0.1:{_server().http.server_port}/v1", "m", attempts=2, backoff_seconds=0.0,
        timeout_seconds=ATTEMPT_SECONDS if draw else 60.0, api_key_variable="CAMPAIGN_KEY",
        endpoint=draw.choice(["chat", "completions"]) if draw else "chat",
    )  # fmt: skip
    made = evaluate(client, None, [Prompt.of("1+3=", "4")], FinalNumber(), max_new_tokens=64, temperature=1.0, seed=0)
    made.save(folder / "evaluation.jsonl")
    made.summary()


# --- files ------------------------------------------------------------------------------------------------------------


def summary(draw: random.Random | None, folder: Path) -> None:
    """A comparison of a run and an evaluation, one line of one of whose files is hostile."""
    from concise_rl.reporting.compare import compare
    from tests.reporting.compare.fake import evaluation, write_evaluation, write_run

    points = [{"budget": b, "accuracy": 0.5, "mean_tokens": 9.0, "accuracy_interval": [0.4, 0.6]} for b in (8, 16)]
    run = write_run(folder / "run", steps=3, before=evaluation(8), problems=8)
    settings = {"mode": {"name": "truncated", "budget": 8}, "samples": 1, "think_end": "</think>"}
    found = write_evaluation(
        folder / "eval", evaluation(8, settings=settings), benchmark="sums",
        budget_curve={"mode": "truncated", "points": points},
    )  # fmt: skip
    if draw is not None:
        path = folder / draw.choice(
            ["eval/summary.json", "eval/evaluation.jsonl", "run/config.json", "run/metrics.jsonl",
             "run/evaluation-after.jsonl"]
        )  # fmt: skip
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        place = draw.randrange(min(3, len(lines)))
        hostile = mutated(draw, json.loads(lines[place]))
        lines[place] = draw.choice(["[" * 100_000, "\x00", json.dumps(hostile)[:-1], *[json.dumps(hostile)] * 9])
        path.write_text("\n".join(lines) + "\n")
    compare([run, found], folder / "page.html")


def data(draw: random.Random | None, folder: Path) -> None:
    """A data set of one hostile row among three, in each kind of file."""
    rows: list[Any] = [{"question": f"{n}+1?", "answer": n + 1, "level": n} for n in range(3)]
    kind = draw.choice(["jsonl", "json", "parquet"]) if draw else "parquet"
    path = folder / f"rows.{kind}"
    if draw is not None:
        rows[1] = mutated(draw, rows[1])
    if kind == "parquet":
        _write_parquet(draw, path, rows)
    else:
        text = json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows)
        content = text.encode()
        if draw is not None and draw.random() < 0.3:
            content = draw.choice([content[: len(content) // 2], b"\xff\xfe" + content, b"[" * 10**6, b""])
        path.write_bytes(content)
    Local(path=str(path), test_path=str(path), difficulty_column="level").load("test")


def _write_parquet(draw: random.Random | None, path: Path, rows: list[Any]) -> None:
    import pyarrow
    from pyarrow import parquet

    questions: Any = ["1+1?", "2+1?", "3+1?"]
    shape = draw.choice(["torn", "bytes", "text", "repeated", "long"]) if draw else ""
    if shape == "bytes":
        questions = pyarrow.StringArray.from_buffers(
            3, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0\6\0\0\0"), pyarrow.py_buffer(b"ab\xff\xfecd")
        )
    elif shape == "text":
        questions = ["1+1?", "\x1b[2J", ""]
    elif shape == "repeated":
        indices = pyarrow.array([0] * 5000, pyarrow.int32())
        questions = pyarrow.DictionaryArray.from_arrays(indices, ["a" * (1 << 20)])
    elif shape == "long":
        questions = ["a" * (100 << 20)]
    count = len(questions)
    table = pyarrow.table({"question": questions, "answer": [1] * count, "level": [1] * count})
    parquet.write_table(table, path, compression="zstd")
    del questions, table
    pyarrow.default_memory_pool().release_unused()
    _forget_peak()
    if shape == "torn":
        content = bytearray(path.read_bytes())
        for _ in range(5):
            content[draw.randrange(len(content))] = draw.randrange(256)  # type: ignore[union-attr]
        path.write_bytes(content)


TEMPLATES = (
    "{{% for a in range(99999) %}}" * 3 + "{{% endfor %}}" * 3,
    "{{{{ 'a' * {n}000000000 }}}}",
    "{{{{ 'a' * {n}0000000 }}}}",
    "{{{{ raise_exception('\x1b[2J{n}') }}}}",
    "{{{{ ''.__class__.__mro__[1].__subclasses__()[{n}] }}}}",
    "{{{{ messages.__init__.__globals__['os'].system('touch {mark}') }}}}",
    "{{{{ cycler.__init__.__globals__.os.popen('touch {mark}').read() }}}}",
    "{{{{ self._TemplateReference__context.eval_ctx }}}}{{{{ lipsum.__globals__ }}}}",
    "{{% macro f() %}}{{{{ f() }}}}{{% endmacro %}}{{{{ f() }}}}",
    "{{{{ messages[{n}]['content'] }}}}",
    "{{{{ messages | tojson | replace('e', messages | tojson) }}}}",
    "{{% set x = namespace(y=['a']) %}}{{% for i in range(9{n}) %}}{{% set x.y = x.y + x.y %}}{{% endfor %}}",
    "{{% include '{mark}' %}}",
    "{{{{ ",
)  # fmt: skip


def template(draw: random.Random | None, folder: Path) -> None:
    """Three conversations through a hostile chat template."""
    text = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    if draw is not None:
        text = draw.choice(TEMPLATES).format(n=draw.randrange(1, 9), mark=folder / "mark")
    tokenizer = SimpleNamespace(
        chat_template=text, get_chat_template=lambda: text, special_tokens_map={}, name_or_path="org/model"
    )
    made = templates.apply_template(tokenizer, [[{"role": "user", "content": f"{n}+1"}] for n in range(3)])
    if draw is None and made != ["0+1", "1+1", "2+1"]:
        raise AssertionError(made)


KINDS: dict[str, Callable[[random.Random | None, Path], None]] = {
    "server": server, "summary": summary, "data": data, "template": template
}  # fmt: skip


# --- the campaign -----------------------------------------------------------------------------------------------------


def campaign(kind: str, count: int, seed: int) -> Tally:
    """So many inputs of one kind, in this process."""
    tally = Tally(kind, inputs=count)
    watch = _Watch()
    with tempfile.TemporaryDirectory() as scratch:
        sound = Path(scratch) / "sound"
        sound.mkdir()
        KINDS[kind](None, sound)
        templates.bounded = functools.partial(bounded.bounded, silence_seconds=CHILD_SECONDS)
        before = peak = _peak_mib()
        for number in range(count):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            started, worked = time.monotonic(), _processor_seconds()
            _try(kind, f"{seed} {kind} {number}", folder, tally)
            seconds, worked = time.monotonic() - started, _processor_seconds() - worked
            tally.slowest_seconds = max(tally.slowest_seconds, seconds)
            tally.processor_seconds = max(tally.processor_seconds, worked)
            peak = max(peak, _peak_mib())
            if seconds > LATE_SECONDS[kind] or worked > LATE_PROCESSOR_SECONDS:
                tally.failures.append(f"{kind} {number} took {seconds:.1f} s, {worked:.1f} s of the processor")
            if (folder / "mark").exists() or watch.started:
                tally.failures.append(f"{kind} {number} ran code: {watch.started}")
                watch.started.clear()
        tally.memory_mib = peak - before
    return tally


def _try(kind: str, seed: str, folder: Path, tally: Tally) -> None:
    try:
        KINDS[kind](random.Random(seed), folder)
        tally.used += 1
    except UserError as error:
        tally.refused += 1
        said = printable(" ".join(str(error).split()))  # as the commands show it
        if not said or "\x1b" in said or "sk-campaign" in said + repr(error.__cause__):
            tally.failures.append(f"{seed}: refused with {said[:200]!r}")
    except BaseException as error:
        tally.failures.append(f"{seed}: {type(error).__name__}: {str(error)[:200]} {traceback.format_exc()[-600:]}")


class _Watch:
    """Programs that this process starts, but for its own bounded workers and verifiers' workers."""

    def __init__(self) -> None:
        self.started: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, details: tuple[Any, ...]) -> None:
        if event in ("os.system", "os.exec", "os.posix_spawn"):
            self.started.append(f"{event} {details!r}"[:200])
        elif event == "subprocess.Popen":
            program, arguments = str(details[0]), " ".join(map(str, details[1]))
            if program != sys.executable or "from concise_rl." not in arguments:
                self.started.append(arguments[:200])


def _peak_mib() -> int:
    """Of this process, since `_forget_peak`, and the largest of its children."""
    here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (here + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) >> 10


def _processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(times.ru_utime + times.ru_stime for times in used)


def _forget_peak() -> None:
    """What this process has taken so far, and given back, was the campaign's own work (Linux, see proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def apart(kind: str, count: int, seed: int) -> Tally:
    """`campaign` in a process of its own, whose memory is its alone."""
    command = [sys.executable, __file__, "--kind", kind, "--count", str(count), "--seed", str(seed), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return Tally(kind, failures=[f"{kind} ended with {done.returncode}: {done.stderr[-2000:]}"])
    return Tally(**json.loads(done.stdout.splitlines()[-1]))


def table(tallies: list[Tally]) -> str:
    """A row a kind, as in docs/security.md."""
    lines = [
        "| kind | inputs | used | refused | failures | longest, s | of the processor, s | beyond a sound one, MiB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for t in tallies:
        failures = len(t.failures)
        lines.append(
            f"| {t.kind} | {t.inputs} | {t.used} | {t.refused} | {failures} | {t.slowest_seconds:.1f} | "
            f"{t.processor_seconds:.1f} | {t.memory_mib} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="run here, and print one line of JSON")
    options = parser.parse_args()
    if options.json:
        import os

        os.environ |= {"CAMPAIGN_KEY": "sk-campaign-0123456789", "NO_PROXY": "127.0.0.1"}
        print(json.dumps(asdict(campaign(options.kind, options.count, options.seed))))
        return
    shares = {options.kind: 1.0} if options.kind else SHARES
    tallies = [apart(kind, round(share * options.count), options.seed) for kind, share in shares.items()]
    print(table(tallies))
    failures = [failure for tally in tallies for failure in tally.failures]
    for failure in failures:
        print(printable(failure))
    sys.exit(bool(failures) or any(tally.memory_mib > 1024 for tally in tallies))


if __name__ == "__main__":
    main()
