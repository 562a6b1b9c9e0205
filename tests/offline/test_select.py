"""From stores to files that TRL takes, and what is refused before anything is written."""

from __future__ import annotations

import dataclasses
import json

import pytest
from datasets import load_dataset

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import EvaluationRow
from concise_rl.evaluation.store import write
from concise_rl.methods import load_selector
from concise_rl.offline.select import Written, select
from concise_rl.offline.stores import open_stores
from concise_rl.options import Truncated
from concise_rl.verifiers import Verdict, verdict_version

SETTINGS = {"tokenizer": "t1", "own_bos": "<s>", "verdicts": verdict_version(), "verifier": {"class": "Exact"}}


def row(problem: str, seed: int, length: int, right: bool = True, **fields) -> EvaluationRow:
    return EvaluationRow(
        prompt_id=problem,
        sample=seed % 10,
        prompt=f"<s>[{problem}?]",
        reference="7",
        completion=fields.pop("completion", f"{seed}: " + "so " * length),
        length=length,
        think_length=length,
        verdict=Verdict.of(right),
        columns=fields.pop("columns", {"difficulty": 2}),
        seed=seed,
        messages=({"role": "user", "content": f"{problem}?"},),
        **{"truncated": False, **fields},
    )


ROWS = [
    row("b", 10, 100, columns={"difficulty": 3}),
    row("b", 11, 160, columns={"difficulty": 3}),
    row("a", 0, 9, right=False),
    row("a", 1, 30),
    row("a", 2, 40),
    row("a", 3, 60),
    row("c", 20, 70, right=False, columns={}),
]


def store_of(tmp_path, rows=ROWS, name="store", **settings):
    path = tmp_path / f"{name}.jsonl"
    write(path, SETTINGS | settings, rows)
    return path


def selected(tmp_path, selector, *stores, out="out.jsonl", truncated=Truncated.wrong, problems=None, **options):
    found = load_selector(selector)
    opened = open_stores(stores, needs=found.needs, truncated=truncated, problems=problems)
    report = select(opened, found, tmp_path / out, name=selector, **options)
    kind = "json" if out.endswith(".jsonl") else "parquet"
    return load_dataset(kind, data_files=str(tmp_path / out), cache_dir=str(tmp_path / "cache"))["train"], report


def test_rows_are_what_the_model_read_and_said(tmp_path):
    rows, report = selected(tmp_path, "long2short", store_of(tmp_path))
    assert rows["problem"] == ["a", "b"]
    assert rows[0] == {
        "prompt": "[a?]",  # the tokenizer puts its BOS there itself
        "completion": "1: " + "so " * 30,
        "problem": "a",
        "edit": "",
        "stage": "",
        "seed": 1,
        "length": 30,
        "truncated": False,
    }
    assert json.loads((tmp_path / "out.jsonl.report.json").read_text()) == report
    assert report["dropped"] == {"no right answer": 1}
    assert (report["problems"], report["problems_kept"], report["rows"]) == (3, 2, 2)
    assert report["sampled_tokens"] == 469
    assert report["tokens_right"]["mean"] == pytest.approx(390 / 5)
    assert report["tokens_kept"]["mean"] == 65
    levels = [(e["difficulty"], e["problems"], e["without_right"], e["accuracy"]) for e in report["by_difficulty"]]
    assert levels == [(2, 1, 0, 0.75), (3, 1, 0, 1.0)]


def test_pairs_and_weights_and_both_formats_and_files(tmp_path):
    path = store_of(tmp_path)
    pairs, report = selected(tmp_path, "long2short_dpo", path, out="pairs.parquet")
    assert report["kind"] == "pairs"
    assert [(p["chosen_length"], p["rejected_length"]) for p in pairs] == [(30, 60), (100, 160)]
    assert pairs[0]["chosen"].startswith("1: so")
    assert pairs[0]["rejected"].startswith("3: so")
    chats, _ = selected(tmp_path, "long2short_dpo", path, out="chats.jsonl", written=Written("messages"))
    assert chats[0]["prompt"] == [{"role": "user", "content": "a?"}]
    assert chats[0]["chosen"] == [{"role": "assistant", "content": pairs[0]["chosen"]}]
    weighed, report = selected(tmp_path, "o1_pruner", path, out="weighed.jsonl")
    assert sum(weighed["weight"]) == pytest.approx(0)
    assert report["weights"]["mean"] == pytest.approx(0)


def test_trl_takes_the_files(tmp_path):
    from trl.data_utils import is_conversational

    path = store_of(tmp_path)
    rows, _ = selected(tmp_path, "long2short", path)
    assert not is_conversational(rows[0])
    chats, _ = selected(tmp_path, "long2short_dpo", path, out="chats.jsonl", written=Written("messages"))
    assert is_conversational(chats[0])


def test_the_plain_prompt_stands_in_for_the_edited_one(tmp_path):
    plain = {"prompt": "<s>[a]", "messages": [{"role": "user", "content": "a"}]}
    path = store_of(tmp_path, [row("a", n, 10 + n, edit=f"effort {n}", plain=plain) for n in range(3)])
    rows, _ = selected(tmp_path, "tops", path, written=Written(prompt="plain"))
    assert (rows[0]["prompt"], rows[0]["edit"]) == ("[a]", "effort 0")
    chats, _ = selected(tmp_path, "tops", path, out="c.jsonl", written=Written("messages", "plain"))
    assert chats[0]["prompt"] == plain["messages"]
    asked, _ = selected(tmp_path, "tops", path, out="d.jsonl")
    assert asked[0]["prompt"] == "[a?]"


def test_stores_of_several_machines_are_one(tmp_path):
    one, two = store_of(tmp_path, ROWS[:4], "one"), store_of(tmp_path, ROWS[3:], "two")
    rows, report = selected(tmp_path, "long2short", one, two)
    assert report["repeated"] == 1
    assert report["completions"] == len(ROWS)
    together, _ = selected(tmp_path, "long2short", store_of(tmp_path), out="whole.jsonl")
    assert rows.to_list() == together.to_list()
    backward, _ = selected(tmp_path, "long2short", two, one, out="backward.jsonl")
    assert backward.to_list() == rows.to_list()
    other = store_of(tmp_path, [row("a", 1, 31)], "other")
    with pytest.raises(DataError, match="two completions of problem a with seed 1"):
        open_stores([one, other])


def test_a_truncated_answer_is_wrong_unless_told_otherwise(tmp_path):
    path = store_of(tmp_path, [row("a", 1, 20, truncated=True), row("a", 2, 30)])
    assert selected(tmp_path, "long2short", path)[0]["seed"] == [2]
    assert selected(tmp_path, "long2short", path, out="b.jsonl", truncated=Truncated.as_is)[0]["seed"] == [1]
    assert selected(tmp_path, "long2short", path, out="c.jsonl", truncated=Truncated.mask)[0]["seed"] == [2]
    wide = store_of(tmp_path, [row("a", 1, 30), row("a", 2, 100, truncated=True)], "wide")
    (pair,) = selected(tmp_path, "long2short_dpo", wide, out="pairs.parquet")[0]
    assert (pair["chosen_truncated"], pair["rejected_truncated"]) == (False, True)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"tokenizer": "t2"}, 'differ in tokenizer \\("t1", "t2"\\), so their lengths are counts of other tokens'),
        ({"verifier": {"class": "MathAnswer"}}, "differ in verifier"),
        ({"verdicts": "0"}, 'was judged with verdicts="0", this version judges with "1'),
    ],
)
def test_stores_that_cannot_be_compared_are_refused(tmp_path, others, words):
    one, two = store_of(tmp_path), store_of(tmp_path, [row("d", 1, 5)], "two", **others)
    with pytest.raises(UserError, match=words):
        open_stores([one, two])


def test_what_cannot_be_selected_is_one_line_and_writes_nothing(tmp_path):
    path = store_of(tmp_path)
    same = store_of(tmp_path, [row("a", 1, 2, completion="7"), row("a", 2, 4, completion="7")], "same")
    empty = store_of(tmp_path, [], "empty")
    chat = store_of(tmp_path, ROWS, "chat", endpoint="chat")
    evaluation = store_of(tmp_path, [dataclasses.replace(ROWS[3], messages=())], "evaluation")
    before = {p.name for p in tmp_path.iterdir()}
    for selector, stores, options, words in (
        ("tops_seed", [path], {}, "selects nothing .3 problems: not sampled at 3 efforts"),
        ("long2short_dpo", [same], {}, "problem a: seeds 1 and 2 are a pair and say the same"),
        ("long2short", [], {}, "stores=.. names none"),
        ("long2short", [empty], {}, "holds no completion"),
        ("long2short", [path], {"problems": ["a", "b"]}, "holds 1 problems that are not in data="),
        ("long2short", [path], {"out": "out.txt"}, "ends in .jsonl or .parquet"),
        ("long2short", [path], {"out": "store.jsonl"}, "is a store"),
        ("long2short", [path], {"out": "store.parquet"}, "is a store, or the table beside one"),
        ("long2short", [path], {"out": "store.jsonl/x.jsonl"}, "cannot be written"),
        ("long2short", [chat], {}, "format=text: the server of store .*use format=messages"),
        ("long2short", [evaluation], {"written": Written("messages")}, "keeps no messages"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            selected(tmp_path, selector, *stores, **options)
        assert "\n" not in str(caught.value)
    tables = {f"{store.stem}.parquet" for store in (path, same, empty, chat, evaluation)}
    assert {p.name for p in tmp_path.iterdir()} <= before | tables
    with pytest.raises(UserError, match="format='chat': choose one of text, messages"):
        Written("chat")
