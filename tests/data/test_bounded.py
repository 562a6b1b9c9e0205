"""Templates and Parquet files that would take all memory or all time are refused, by name, in a bounded process."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections import deque
from functools import partial
from types import SimpleNamespace

import pyarrow
import pytest
from pyarrow import parquet

from concise_rl.data import Local, templates
from concise_rl.data.bounded import Bounded, OutOfBounds, WorkFailed, bounded
from concise_rl.errors import DataError, UserError

HERE = "tests.data.test_bounded"
MESSAGES = [[{"role": "user", "content": f"{n}+1="}] for n in range(3)]


def working(request):
    """On the other side of `bounded`."""
    kind = request["kind"]
    yield "first"
    if kind == "hang":
        time.sleep(60)
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        yield len(bytearray(2 << 30))
    if kind == "long":
        yield "x" * (20 << 20)
    if kind == "many":
        while True:
            yield "x" * (1 << 20)
    if kind == "raise":
        raise LookupError("no such thing")


def idle(request):
    return iter(())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("hang", "takes more than 3 s"),
        ("die", r"ends the process that runs it \(exit code -9\)"),
        ("memory", "takes more than 512 MiB of memory"),
        ("long", "makes a text of more than 16 MiB"),
        ("many", "makes more than 32 MiB of text"),
    ],
)
def test_every_bound_is_kept_and_said(kind, message, monkeypatch):
    monkeypatch.setattr("concise_rl.data.bounded.TOTAL_BYTES", 32 << 20)  # the others are met in a moment
    results = bounded(f"{HERE}:working", {"kind": kind}, silence_seconds=3.0 if kind == "hang" else 20)
    assert next(results) == "first"
    with pytest.raises(OutOfBounds, match=message):
        deque(results, maxlen=0)


def test_what_is_within_the_bounds_passes():
    assert list(bounded(f"{HERE}:working", {"kind": ""})) == ["first"]
    assert list(bounded(f"{HERE}:idle", {})) == []
    with pytest.raises(WorkFailed, match="no such thing") as caught:
        list(bounded(f"{HERE}:working", {"kind": "raise"}))
    assert caught.value.kind == "LookupError"
    with pytest.raises(OutOfBounds, match="ends the process"):
        list(bounded(f"{HERE}:absent", {}))


def test_a_process_answers_one_request_after_the_other_and_is_started_anew_after_a_fault():
    process = Bounded(f"{HERE}:working", silence_seconds=3.0)
    assert [list(process.ask({"kind": ""})) for _ in range(3)] == [["first"]] * 3
    first = process._process
    with pytest.raises(OutOfBounds, match="takes more than 3 s"):
        list(process.ask({"kind": "hang"}))
    assert first.returncode == -signal.SIGKILL
    with pytest.raises(OutOfBounds, match="512 MiB"):  # the limit is that of every request
        list(process.ask({"kind": "memory"}))
    assert list(process.ask({"kind": ""})) == ["first"]
    second = process._process
    del process
    assert second.poll() is not None


def tokenizer(template):
    return SimpleNamespace(
        chat_template=template, get_chat_template=lambda: template, special_tokens_map={"bos_token": "<s>"},
        name_or_path="org/model",
    )  # fmt: skip


LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOPS, "takes more than 5 s"),
        ("{{ 'a' * 3000000000 }}", "takes more than 512 MiB of memory"),
        ("{% if messages[0]['content'] == '2+1=' %}{{ 'a' * 3000000000 }}{% endif %}", r".* of memory \(at '2\+1='\)"),
        ("{{ 'a' * 30000000 }}", "makes a text of more than 16 MiB"),
        ("{{ raise_exception('no \\x1b[2J system prompt') }}", "raises TemplateError: no \x1b.2J system prompt"),
        ("{{ messages.__class__.__mro__ }}", "raises SecurityError"),
        ("{{ ", "raises TemplateSyntaxError"),
    ],
)
def test_a_hostile_template_is_refused_by_the_models_name(monkeypatch, template, message):
    monkeypatch.setattr(templates, "bounded", partial(bounded, silence_seconds=5.0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"^the chat template of org/model {message}"):
        templates.apply_template(tokenizer(template), MESSAGES)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


def test_a_template_is_probed_when_its_tokenizer_is_loaded(monkeypatch):
    monkeypatch.setattr(templates, "bounded", partial(bounded, silence_seconds=5.0))
    for template in (LOOPS, "{{ 'a' * 3000000000 }}"):
        with pytest.raises(UserError, match="takes more than"):
            templates.check_template(tokenizer(template))
    templates.check_template(tokenizer(None))
    templates.check_template(tokenizer("{{ raise_exception('where is the system prompt?') }}"))


def test_arguments_and_special_tokens_reach_the_template():
    template = "{{ bos_token }}{{ messages[0]['content'] }}{% if add_generation_prompt %}a:{% endif %}{{ mood }}"
    made = templates.apply_template(tokenizer(template), MESSAGES, {"mood": "!"})
    assert made == ["<s>0+1=a:!", "<s>1+1=a:!", "<s>2+1=a:!"]


def write(path, **columns):
    parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


def peak_of_reading(path):
    """MiB that reading the file takes in a process of its own, and what it says."""
    code = (
        "import resource, sys; from concise_rl.data import Local, bounded; bounded.TOTAL_BYTES = 32 << 20\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: Local(path=sys.argv[1]).load('train')\n"
        "except ValueError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    said, peak = done.stdout.strip().rsplit("\n", 1)
    return int(peak), said


@pytest.mark.parametrize("shape", ["one value", "a dictionary"])
def test_a_parquet_bomb_is_refused_in_bounded_memory(tmp_path, shape):
    if shape == "one value":
        questions = pyarrow.array(["a" * (100 << 20)])
    else:  # one text of a megabyte, for which each of 20,000 rows has a number
        index = pyarrow.array([0] * 20_000, pyarrow.int32())
        questions = pyarrow.DictionaryArray.from_arrays(index, ["a" * (1 << 20)])
    path = write(tmp_path / "bomb.parquet", question=questions, answer=["1"] * len(questions))
    del questions
    assert path.stat().st_size < 1 << 20
    peak, said = peak_of_reading(path)
    assert said.startswith(f"{path} row ")
    assert "memory" in said or "makes more than" in said
    assert said.endswith(": split the file, or write it as .jsonl")
    assert peak < 160


def test_text_that_is_no_utf8_is_named_with_file_row_and_column(tmp_path):
    texts = pyarrow.StringArray.from_buffers(
        3, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0\6\0\0\0"), pyarrow.py_buffer(b"ab\xff\xfecd")
    )
    path = write(tmp_path / "odd.parquet", question=texts, answer=["1", "2", "3"])
    with pytest.raises(DataError, match=r"odd\.parquet row 1: .*column 'question' holds bytes that are no UTF-8"):
        Local(path=str(path)).load("train")


def test_a_value_that_json_lacks_becomes_its_text(tmp_path):
    import datetime
    from decimal import Decimal

    rows = {"question": ["1+1?"], "answer": [Decimal("2.50")], "day": [datetime.date(2026, 1, 2)]}
    path = str(write(tmp_path / "rows.parquet", **rows))
    (prompt,) = Local(path=path, test_path=path, columns=["day"]).load("test")
    assert prompt.reference == "2.50"
    assert prompt.columns["day"] == "2026-01-02"


def test_a_large_file_may_unpack_to_more_than_a_small_one(tmp_path, monkeypatch):
    monkeypatch.setattr("concise_rl.data.bounded.TOTAL_BYTES", 1 << 20)
    texts = [os.urandom(50_000).hex() for _ in range(20)]  # 2 MB that shrink to half
    path = write(tmp_path / "rows.parquet", question=texts, answer=["1"] * 20)
    assert len(Local(path=str(path), test_path=str(path)).load("test")) == 20
