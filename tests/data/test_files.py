"""Rows of files and of hub data sets: columns, splits, and what bad input gets."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from concise_rl.data import Hub, Local
from concise_rl.errors import DataError, UserError

ROWS = [{"question": f"What is {i} + {i}?", "answer": f"twice {i} #### {2 * i}", "level": i % 3} for i in range(200)]


def write(path: Path, rows) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, kind):
    path = write(tmp_path / f"rows.{kind}", ROWS)
    source = Local(path=str(path), columns=["level"], test_fraction=0.25)
    train, test = source.load("train"), source.load("test")
    assert len(train) + len(test) == 200
    assert not {p.id for p in train} & {p.id for p in test}
    assert 30 <= len(test) <= 70
    by_question = {p.messages[0]["content"]: p for p in train + test}
    prompt = by_question["What is 7 + 7?"]
    assert prompt.reference == "twice 7 #### 14"
    assert prompt.columns == {"level": 1}


def test_a_row_keeps_its_side_when_others_are_added_and_equal_questions_share_one(tmp_path):
    few = Local(path=str(write(tmp_path / "few.jsonl", ROWS[:100])), test_fraction=0.3)
    doubled = [{**row, "answer": "another"} for row in ROWS]
    many = Local(path=str(write(tmp_path / "many.jsonl", ROWS + doubled)), test_fraction=0.3)

    def questions(source, split):
        return {p.messages[0]["content"] for p in source.load(split)}

    assert questions(few, "test") <= questions(many, "test")
    assert not questions(many, "train") & questions(many, "test")


def test_a_test_file_of_its_own_is_taken_whole(tmp_path):
    source = Local(
        path=str(write(tmp_path / "a.jsonl", ROWS[:20])), test_path=str(write(tmp_path / "b.parquet", ROWS[20:25]))
    )
    assert (len(source.load("train")), len(source.load("test"))) == (20, 5)


def test_messages_stand_in_place_of_a_question(tmp_path):
    chat = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "1+1?"},
    ]
    path = str(write(tmp_path / "chat.parquet", [{"chat": chat, "answer": 2}]))
    (prompt,) = Local(path=path, test_path=path, messages_column="chat").load("train")
    assert prompt.messages == tuple(chat)
    assert prompt.reference == "2"


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([], "non-empty list"),
        ("hello", "non-empty list"),
        ([{"role": "user"}], "'role' and 'content'"),
        ([{"role": "system", "content": "x"}, {"role": "user", "content": "y"}], "system prompt"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "ends with role 'assistant'"),
    ],
)
def test_malformed_messages_are_refused(tmp_path, messages, complaint):
    path = str(write(tmp_path / "chat.jsonl", [{"chat": messages, "answer": 2}]))
    with pytest.raises(DataError, match=complaint):
        Local(path=path, test_path=path, messages_column="chat").load("train")


def test_a_missing_column_is_named_with_those_present(tmp_path):
    path = str(write(tmp_path / "rows.jsonl", ROWS))
    for fields in ({"question_column": "problem"}, {"answer_column": "problem"}, {"columns": ["level", "problem"]}):
        with pytest.raises(
            DataError, match=r"line 1 has no column 'problem'; it has \['answer', 'level', 'question'\]"
        ):
            Local(path=path, **fields).load("train")


def test_bad_files_are_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"absent.jsonl: no such file"):
        Local(path=str(tmp_path / "absent.jsonl")).load("train")
    with pytest.raises(DataError, match=r"'.csv' are not read"):
        Local(path="rows.csv").load("train")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"empty.jsonl is empty"):
        Local(path=str(tmp_path / "empty.jsonl")).load("train")
    (tmp_path / "broken.jsonl").write_text('{"question": "a", "answer": "b"}\n\n{"question": \n')
    with pytest.raises(DataError, match=r"broken.jsonl line 3 is not JSON"):
        Local(path=str(tmp_path / "broken.jsonl")).load("train")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    with pytest.raises(DataError, match="line 1 holds a list"):
        Local(path=str(tmp_path / "list.jsonl")).load("train")
    (tmp_path / "object.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match="must hold a list"):
        Local(path=str(tmp_path / "object.json")).load("train")
    for content, complaint in (
        (b'{"question": "\\ud83d", "answer": "b"}', "'\\\\ud83d', half of a surrogate pair"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"question": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b'{"question": "\xff"}', "is not JSON"),
    ):
        (tmp_path / "hostile.jsonl").write_bytes(b'{"question": "a", "answer": "b"}\n' + content + b"\n")
        with pytest.raises(DataError, match=f"hostile.jsonl line 2 .*{complaint}"):
            Local(path=str(tmp_path / "hostile.jsonl")).load("train")
    (tmp_path / "broken.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(DataError, match="not a readable Parquet"):
        Local(path=str(tmp_path / "broken.parquet")).load("train")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [({"question": " ", "answer": "1"}, "non-empty text"), ({"question": "a", "answer": None}, "'answer' is empty")],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, complaint):
    path = str(write(tmp_path / "rows.jsonl", [ROWS[0], row]))
    with pytest.raises(DataError, match=f"line 2: column .*{complaint}"):
        Local(path=path).load("train")


def test_a_split_without_rows_is_refused(tmp_path):
    path = str(write(tmp_path / "rows.jsonl", ROWS[:1]))
    with pytest.raises(DataError, match="leaves no row for test"):
        Local(path=path, test_fraction=1e-9).load("test")


def test_bad_fields_are_refused_by_name():
    with pytest.raises(UserError, match=r"Local.path is empty"):
        Local()
    with pytest.raises(UserError, match=r"Local.test_fraction=1"):
        Local(path="a.jsonl", test_fraction=1)
    with pytest.raises(UserError, match=r"Hub.name is empty"):
        Hub()


def test_hub_reads_the_splits_and_columns_it_is_given(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", ROWS[:150])
    write(folder / "test.jsonl", ROWS[150:])
    source = Hub(name=str(folder), columns=["level"], train_split="train[:10]")
    train, test = source.load("train"), source.load("test")
    assert (len(train), len(test)) == (10, 50)
    assert train[4].columns == {"level": 1}
    with pytest.raises(DataError, match=r"\[validation\] cannot be loaded"):
        Hub(name=str(folder), test_split="validation").load("test")
    with pytest.raises(DataError, match="no column 'problem'"):
        Hub(name=str(folder), question_column="problem").load("test")


def test_gsm8k_as_published():
    root = Path(os.environ.get("CONCISE_RL_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / "gsm8k").is_dir():
        pytest.skip("no GSM8K files; name their folder in CONCISE_RL_DATA")
    source = Local(path=str(root / "gsm8k" / "train.jsonl"), test_path=str(root / "gsm8k" / "test.jsonl"))
    train, test = source.load("train"), source.load("test")
    assert (len(train), len(test)) == (7473, 1319)
    assert test[0].reference.endswith("#### 18")
    assert not {p.id for p in train} & {p.id for p in test}
