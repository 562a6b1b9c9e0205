"""From prompts to judged rows and back from disk."""

from __future__ import annotations

import dataclasses
import json

import pytest

from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import Evaluation, EvaluationRow, difference, evaluate
from concise_rl.evaluation.backends import TransformersBackend
from concise_rl.evaluation.evaluate import render_texts
from concise_rl.verifiers import Verdict

from .conftest import EOS, PROMPTS, SETTINGS, EvenLength


@pytest.fixture(scope="module")
def evaluation(talker, tokenizer):
    return evaluate(talker, tokenizer, PROMPTS, EvenLength(), samples=4, keep_token_ids=True, **SETTINGS)


def test_rows_hold_what_was_said_and_judged(evaluation, talker, tokenizer):
    assert len({row.seed for row in evaluation.rows}) == len(evaluation.rows)
    assert [(row.prompt_id, row.sample) for row in evaluation.rows] == [(p.id, k) for p in PROMPTS for k in range(4)]
    tag = tokenizer.convert_tokens_to_ids("</think>")
    backend = TransformersBackend(talker, tokenizer)
    for row in evaluation.rows:
        ids = row.token_ids
        assert row.completion == backend.decode(ids)
        assert row.length == len(ids)
        assert row.think_length == (ids.index(tag) if tag in ids else len(ids))
        assert row.truncated == (EOS not in ids)
        assert "</s>" not in row.completion
        assert ("</think>" in row.completion) == (tag in ids)
        assert row.verdict == EvenLength()(row.completion, row.reference)
    kinds = {(row.truncated, row.verdict.scorable, row.think_length < row.length) for row in evaluation.rows}
    assert len(kinds) > 4, "the case must hold every kind of row"
    assert evaluation.summary()["oracle_ratio"] == pytest.approx(evaluation.summary()["mean_tokens"] / 5)


def test_what_a_problem_says_depends_on_seed_and_text_alone(evaluation, talker, tokenizer):
    """The same in another order, in a part, in other batches: as when several processes share the problems."""
    part = evaluate(
        talker, tokenizer, PROMPTS[7:2:-1], EvenLength(), samples=4, batch_rows=3, keep_token_ids=True, **SETTINGS
    )
    whole = {(row.prompt_id, row.sample): row for row in evaluation.rows}
    assert all(whole[row.prompt_id, row.sample] == row for row in part.rows)
    other = evaluate(talker, tokenizer, PROMPTS, EvenLength(), samples=4, **SETTINGS | {"seed": 4})
    assert [row.completion for row in other.rows] != [row.completion for row in evaluation.rows]
    assert len({row.completion for row in evaluation.rows if row.prompt_id == PROMPTS[0].id}) > 1
    assert difference(evaluation, evaluation)["tokens_percent_interval"] == [0, 0]


def test_progress_counts_completions(talker, tokenizer):
    seen = []
    evaluate(talker, tokenizer, PROMPTS[:2], EvenLength(), samples=3, on_progress=lambda *n: seen.append(n), **SETTINGS)
    assert seen[-1] == (6, 6)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_chat_template_where_there_is_one(tokenizer):
    import copy

    prompt = PROMPTS[3]
    assert render_texts([prompt], tokenizer, "be brief") == ["be brief\n\n3+1="]
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = (
        "{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }};{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    made = render_texts(PROMPTS, chatty, "be brief")
    assert made[3] == "s:be brief;u:3+1=;a:"
    for prompt, text in zip(PROMPTS, made, strict=True):
        messages = [{"role": "system", "content": "be brief"}, *prompt.messages]
        assert text == chatty.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_refusals(talker, tokenizer):
    import copy

    with pytest.raises(UserError, match="samples=0"):
        evaluate(talker, tokenizer, PROMPTS, EvenLength(), samples=0, **SETTINGS)
    endless, endless_model = copy.deepcopy(tokenizer), copy.deepcopy(talker)
    endless.eos_token = None
    endless_model.generation_config.eos_token_id = None
    with pytest.raises(UserError, match="eos_token is None"):
        evaluate(endless_model, endless, PROMPTS, EvenLength(), **SETTINGS)


def test_two_tokens_may_end_a_completion(talker, tokenizer):
    import copy

    two = copy.deepcopy(talker)
    two.generation_config.eos_token_id = [EOS, 6]
    said = evaluate(two, tokenizer, PROMPTS[:1], EvenLength(), samples=40, keep_token_ids=True, **SETTINGS).rows
    ends = [c.token_ids[-1] for c in said if not c.truncated]
    assert set(ends) == {EOS, 6}
    assert all(not {EOS, 6} & set(c.token_ids[:-1]) for c in said)


def test_save_and_load_are_exact(evaluation, tmp_path):
    odd = Verdict(True, True, 0.1 + 0.2, {"format": 1 / 3}, "line\nbreak \u2028")
    row = EvaluationRow("x", 0, "p\r\n", "\x85", "e\ud800nd \U0001f600", 7, 3, True, odd, {"n": None, "l": [1, 2.5]})
    for settings in ({}, dict(evaluation.settings)):
        kept = Evaluation([*evaluation.rows, row], settings)
        path = tmp_path / "evaluation.jsonl"
        kept.save(path)
        assert Evaluation.load(path) == kept
        assert len(path.read_text().splitlines()) == len(kept.rows) + bool(settings)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line[: len(line) // 2] + b"\n",
        lambda line: b"[]\n",
        lambda line: json.dumps({**json.loads(line), "length": "7"}).encode() + b"\n",
        lambda line: json.dumps({**json.loads(line), "length": -1}).encode() + b"\n",
        lambda line: json.dumps({**json.loads(line), "extra": 1}).encode() + b"\n",
        lambda line: json.dumps({k: v for k, v in json.loads(line).items() if k != "verdict"}).encode() + b"\n",
        lambda line: json.dumps({**json.loads(line), "verdict": {"right": True}}).encode() + b"\n",
        lambda line: b"\xff\xfe\n",
    ],
)
def test_a_damaged_line_is_named(evaluation, tmp_path, damage):
    path = tmp_path / "evaluation.jsonl"
    evaluation.save(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:4], damage(lines[4]), *lines[5:]]))
    with pytest.raises(DataError, match="line 5 is damaged"):
        Evaluation.load(path)


def test_a_file_cut_short_is_named(evaluation, tmp_path):
    path = tmp_path / "evaluation.jsonl"
    evaluation.save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"line {len(evaluation.rows) + 1} is damaged"):
        Evaluation.load(path)
    with pytest.raises(DataError, match="cannot be read"):
        Evaluation.load(tmp_path / "none.jsonl")


def test_a_failed_save_leaves_the_old_file(evaluation, tmp_path):
    path = tmp_path / "evaluation.jsonl"
    evaluation.save(path)
    bad = dataclasses.replace(evaluation.rows[0], columns={"picture": object()})
    with pytest.raises(UserError, match="no JSON value"):
        Evaluation([bad]).save(path)
    with pytest.raises(UserError, match="cannot write"):
        evaluation.save(tmp_path / "absent" / "evaluation.jsonl")
    assert Evaluation.load(path).rows == evaluation.rows
