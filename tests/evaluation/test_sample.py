"""Samples are drawn, judged and stored once each, whatever interrupts, and are found again in columns."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass, replace

import pytest

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import Evaluation, Mode
from concise_rl.evaluation import judge as judging
from concise_rl.evaluation.backends import Sampling, TransformersBackend
from concise_rl.evaluation.columns import columns_of, samples_of
from concise_rl.evaluation.sample import fingerprint, sample
from concise_rl.files import sole_writer
from concise_rl.methods import Edit, load_selector
from concise_rl.options import Truncated

from .conftest import PROMPTS, EvenLength
from .test_store import Counting, Interrupted


@dataclass
class Twice(Edit):
    """Asks a question twice."""

    def __call__(self, prompt, rng):
        (last,) = prompt.messages
        return replace(prompt, messages=({**last, "content": last["content"] * 2},))


@dataclass
class Other(Edit):
    """Makes another problem of it."""

    def __call__(self, prompt, rng):
        return replace(prompt, id="other")


def run(model, tokenizer, store, prompts=PROMPTS, **settings):
    backend = model if isinstance(model, TransformersBackend) else TransformersBackend(model, tokenizer)
    given = {"samples": 2, "seed": 3, "mode": Mode()} | settings
    sampling = Sampling(max_new_tokens=24, temperature=given.pop("temperature", 1.0))
    return sample(backend, tokenizer, prompts, EvenLength(), sampling, store=store, **given)


def keys(path):
    return {row.stored_key for row in Evaluation.load(path).rows}


def test_an_interrupted_store_ends_with_the_same_completions(talker, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "JUDGE_ROWS", 3)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "new" / "parts.jsonl"
    run(talker, tokenizer, whole)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(talker, tokenizer, batch_rows=4), tokenizer, parts)
    kept = len(keys(parts))
    assert 0 < kept <= Interrupted.after
    with parts.open("ab") as file:
        file.write(b'{"prompt_id": "to')  # a crash while a line was written
    with pytest.raises(DataError, match=f"line {kept + 2} is damaged"):
        columns_of(parts)
    Counting.asked = 0
    stored = run(Counting(talker, tokenizer), tokenizer, parts)
    assert Counting.asked == 2 * len(PROMPTS) - kept, "each completion is sampled once"

    def by_key(path):
        return sorted(Evaluation.load(path).rows, key=lambda row: (row.prompt_id, row.sample))

    assert by_key(parts) == by_key(whole)
    assert len(stored) == 2 * len(PROMPTS)
    run(Counting(talker, tokenizer), tokenizer, parts)
    assert Counting.asked == 2 * len(PROMPTS) - kept


def test_a_store_grows_by_samples_seeds_edits_and_stages(talker, tokenizer, tmp_path):
    store = tmp_path / "store.jsonl"
    asked = (
        ({}, 4),
        ({"samples": 3}, 6),
        ({"seed": 4}, 10),
        ({"edits": {"twice": Twice()}}, 14),
        ({"stage": "main"}, 18),
        ({"prompts": PROMPTS[:3]}, 20),
    )
    for settings, size in asked:
        assert len(run(talker, tokenizer, store, **{"prompts": PROMPTS[:2]} | settings)) == size
    assert len(keys(store)) == 20
    edited = [row for row in Evaluation.load(store).rows if row.edit]
    assert edited[0].prompt == 2 * edited[0].plain["prompt"]
    assert edited[0].messages == ({"role": "user", "content": edited[0].prompt},)
    assert {row.stage for row in Evaluation.load(store).rows} == {"", "main"}


def test_what_a_problem_says_is_what_an_evaluation_with_that_seed_says(talker, tokenizer, tmp_path):
    from .test_store import run as evaluate

    said = evaluate(talker, tokenizer, tmp_path / "said.jsonl")
    run(talker, tokenizer, tmp_path / "store.jsonl")
    both = [columns_of(tmp_path / name).settings["tokenizer"] for name in ("said.jsonl", "store.jsonl")]
    assert both[0] == both[1], "one tokenizer has one name, or the two could not be selected from together"
    assert {(r.prompt_id, r.sample): r.completion for r in said.rows} == {
        (r.prompt_id, r.sample): r.completion for r in Evaluation.load(tmp_path / "store.jsonl").rows
    }


def test_sampling_goes_on_for_problems_that_lack_their_quota(talker, tokenizer, tmp_path):
    quota = load_selector("dart_uniform", most=1)
    store = run(talker, tokenizer, tmp_path / "store.jsonl", until=quota, max_samples=7)
    samples = samples_of(store.numbers).counting(Truncated.wrong)
    right = samples.correct & samples.scorable
    asked = []
    for problem in range(len(samples.problems)):
        own = samples.problem == problem
        asked.append(int(own.sum()))
        assert (right & own).sum() > 1 or own.sum() == 7, "until it has more than its quota, or the ceiling is met"
        earlier = own & (samples.numbers < asked[-1] - (asked[-1] % 2 or 2))
        assert (right & earlier).sum() <= 1, "none is sampled on that had enough"
    assert set(asked) <= {2, 4, 6, 7}
    assert len(set(asked)) > 1


def test_a_store_is_refused_by_name(talker, tokenizer, tmp_path):
    store = tmp_path / "store.jsonl"
    run(talker, tokenizer, store, PROMPTS[:2])
    before = store.read_bytes()
    other = copy.deepcopy(tokenizer)
    other.add_tokens(["g"])
    assert fingerprint(other) != fingerprint(tokenizer)
    for change, words in (
        ({"temperature": 0.5}, "temperature=1.0, now temperature=0.5"),
        ({"system": "be brief"}, 'system=null, now system="be brief"'),
        ({"samples": 0}, "samples=0"),
        ({"max_samples": 1}, "max_samples=1"),
        ({"edits": {"other": Other()}}, "Other changed the content key"),
    ):
        with pytest.raises(ValueError, match=words):
            run(talker, tokenizer, store, PROMPTS[:2], **change)
    with pytest.raises(UserError, match="with tokenizer="):
        run(talker, other, store, PROMPTS[:2])
    held = sole_writer(tmp_path / f".{store.name}.lock", "store", store, wait="wait")
    with held, pytest.raises(UserError, match=f"store={store} is in use by process {os.getpid()}"):
        run(talker, tokenizer, store, PROMPTS[:2])
    with pytest.raises(UserError, match="cannot be written"):
        run(talker, tokenizer, "/proc/none/store.jsonl")
    assert store.read_bytes() == before


def test_columns_hold_what_the_lines_hold(talker, tokenizer, tmp_path):
    from pyarrow import parquet

    path = tmp_path / "store.jsonl"
    run(talker, tokenizer, path, edits={"twice": Twice()})
    rows = Evaluation.load(path).rows
    stored = columns_of(path)
    table = parquet.read_table(stored.table).to_pylist()
    for row, line, found in zip(rows, stored.lines(range(len(rows))), table, strict=True):
        assert json.loads(json.dumps(row.to_json())) == line
        for name in ("completion", "prompt", "reference", "length", "seed", "sample", "edit", "truncated"):
            assert found[name] == getattr(row, name)
        assert found["correct"] == row.verdict.correct
        assert json.loads(found["columns"]) == row.columns
    assert stored.words().tolist() == [len(row.completion.split()) for row in rows]
    made = stored.table.stat().st_mtime_ns
    columns_of(path)
    assert stored.table.stat().st_mtime_ns == made, "a store that has not changed is not looked through again"


def test_damage_in_a_store_is_named_and_no_table_is_written(talker, tokenizer, tmp_path):
    path = tmp_path / "store.jsonl"
    run(talker, tokenizer, path, PROMPTS[:2])
    table = path.with_suffix(".parquet")
    lines = path.read_bytes().splitlines(keepends=True)
    for damage, words in (
        ([*lines, lines[2]], "line 6 holds the completion of line 3 again"),
        ([*lines[:2], b"{}\n", *lines[3:]], "line 3 is damaged"),
        ([*lines[:-1], lines[-1][:-1]], "line 5 is damaged"),
        (lines[1:], "without its settings"),
        ([b"nonsense\n"], "line 1 is damaged"),
        ([*lines[:2], lines[2].replace(b'"seed": ', b'"sown": ')], "line 3 is damaged"),
    ):
        table.unlink(missing_ok=True)
        path.write_bytes(b"".join(damage))
        with pytest.raises(UserError, match=words):
            columns_of(path)
        assert not table.exists()
        assert [p.name for p in tmp_path.iterdir() if p.suffix == ".parquet"] == []
    path.write_bytes(b"".join(lines))
    from pyarrow import Table, parquet

    parquet.write_table(Table.from_pydict({"mine": [1]}), table)
    with pytest.raises(UserError, match="a file of something else"):
        columns_of(path)
    with pytest.raises(DataError, match="cannot be read"):
        columns_of(tmp_path / "none.jsonl")
