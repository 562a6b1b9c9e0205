"""Published test sets: context, choices, references of several columns, and where they come from."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from concise_rl.data import Benchmark
from concise_rl.errors import DataError, UserError


def write(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def content(prompt) -> str:
    return prompt.messages[-1]["content"]


def test_context_precedes_the_question_where_a_row_has_any(tmp_path):
    rows = [
        {"story": "Ann has 3 pens. ", "question": "How many?", "answer": 3, "level": 2},
        {"story": None, "question": "1+1?", "answer": 2, "level": 1},
        {"story": " ", "question": "1+2?", "answer": 3, "level": 1},
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    prompts = Benchmark(path=path, context_column="story", difficulty_column="level").load("test")
    assert [content(p) for p in prompts] == ["Ann has 3 pens.\nHow many?", "1+1?", "1+2?"]
    assert [p.columns for p in prompts] == [{"difficulty": 2}, {"difficulty": 1}, {"difficulty": 1}]


CHOICES = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]


def test_choices_stand_in_an_order_of_their_own_and_the_letter_finds_the_right_one(tmp_path):
    rows = [
        {"question": f"{i}+{i}?", **dict(zip(CHOICES, map(str, range(2 * i, 2 * i + 4)), strict=True))}
        for i in range(40)
    ]
    path = write(tmp_path / "rows.jsonl", rows)
    prompts = Benchmark(path=path, choice_columns=CHOICES, verifier="choice").load("test")
    for i, prompt in enumerate(prompts):
        question, blank, *options = content(prompt).splitlines()
        assert (question, blank) == (f"{i}+{i}?", "")
        assert [option[:4] for option in options] == ["(A) ", "(B) ", "(C) ", "(D) "]
        assert sorted(int(option[4:]) for option in options) == list(range(2 * i, 2 * i + 4))
        assert f"({prompt.reference}) {2 * i}" in options
    assert set(Counter(prompt.reference for prompt in prompts)) == set("ABCD")
    backwards = Benchmark(path=write(tmp_path / "b.jsonl", rows[::-1]), choice_columns=CHOICES).load("test")
    assert {p.id for p in backwards} == {p.id for p in prompts}


def test_a_reference_of_several_columns_is_their_json(tmp_path):
    row = {"question": "?", "final_answer": ["$5$"], "unit": None, "error": "1e-1"}
    path = write(tmp_path / "rows.jsonl", [row])
    (prompt,) = Benchmark(path=path, reference_columns=["final_answer", "unit", "error"]).load("test")
    assert json.loads(prompt.reference) == {"final_answer": ["$5$"], "unit": None, "error": "1e-1"}


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ({"question": "?"}, {"reference_columns": ["gold", "unit"]}, "line 1 has no column 'gold'"),
        ({"question": "?", "gold": None}, {"reference_columns": ["gold"]}, "line 1: column 'gold' is empty"),
        ({"question": "?", "a": "1", "b": ""}, {"choice_columns": ["a", "b"]}, "line 1: column 'b' is empty"),
        ({"question": "?", "answer": 1}, {"context_column": "story"}, "line 1 has no column 'story'"),
        ({"question": "?", "answer": 1}, {"difficulty_column": "level"}, "line 1 has no column 'level'"),
    ],
)
def test_what_a_row_lacks_is_named_with_its_line(tmp_path, row, fields, message):
    path = write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=message):
        Benchmark(path=path, **fields).load("test")


def test_lines_are_counted_with_the_blank_ones(tmp_path):
    (tmp_path / "rows.jsonl").write_text('\n{"question": "a", "answer": 1}\n\n{"question": "b"}\n')
    with pytest.raises(DataError, match="line 4 has no column 'answer'"):
        Benchmark(path=str(tmp_path / "rows.jsonl")).load("test")


def test_the_hub_s_split_is_the_test_set_and_a_path_stands_in_its_place(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", [{"question": f"{i}?", "answer": i} for i in range(9)])
    benchmark = Benchmark(hub=str(folder), split="train[:4]")
    assert [p.reference for p in benchmark.load("test")] == ["0", "1", "2", "3"]
    benchmark.path = write(tmp_path / "own.jsonl", [{"question": "x?", "answer": "y"}])
    assert [p.reference for p in benchmark.load("test")] == ["y"]
    with pytest.raises(UserError, match=r"evaluation.split='train'"):
        benchmark.load("train")
    with pytest.raises(DataError, match=r"cannot be loaded.*give a local copy with benchmark.path="):
        Benchmark(hub=str(folder), split="validation").load("test")
    with pytest.raises(UserError, match=r"benchmark.path is empty"):
        Benchmark()
