"""An evaluation that was interrupted goes on where it stopped."""

from __future__ import annotations

import json

import pytest

from concise_rl.data import Prompt
from concise_rl.errors import DataError, UserError
from concise_rl.evaluation import Evaluation, Mode, evaluate
from concise_rl.evaluation import judge as judging
from concise_rl.evaluation.backends import TransformersBackend

from .conftest import PROMPTS, SETTINGS, EvenLength


class Interrupted(TransformersBackend):
    """Stops, as with Ctrl-C, once `after` completions of a call are there; counts what was asked for."""

    after = 7

    def generate(self, requests, sampling, finished):
        handed = 0

        def count(place, completion):
            nonlocal handed
            if handed == self.after:
                raise KeyboardInterrupt
            finished(place, completion)
            handed += 1

        super().generate(requests, sampling, count)


class Counting(TransformersBackend):
    asked = 0

    def generate(self, requests, sampling, finished):
        type(self).asked += len(requests)
        super().generate(requests, sampling, finished)


def run(model, tokenizer, store, prompts=PROMPTS, **settings):
    chosen = {"samples": 2, **SETTINGS, **settings}
    return evaluate(model, tokenizer, prompts, EvenLength(), store=store, **chosen)


@pytest.mark.parametrize("mode", [Mode.as_trained(), Mode.forced(6)])
def test_an_interrupted_evaluation_ends_as_one_that_was_not(talker, tokenizer, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(judging, "JUDGE_ROWS", 3)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "new" / "parts.jsonl"
    expected = run(talker, tokenizer, whole, mode=mode)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(talker, tokenizer, batch_rows=4), tokenizer, parts, mode=mode)
    kept = Evaluation.load(parts)
    assert 0 < len(kept.rows) <= Interrupted.after, "what had finished is judged and stored on the way out"
    with parts.open("ab") as file:
        file.write(b'{"prompt_id": "to')  # a crash while a line was written
    Counting.asked = 0
    seen = []
    progress = {"on_progress": lambda *count: seen.append(count)}
    resumed = run(Counting(talker, tokenizer), tokenizer, parts, mode=mode, **progress)
    if mode == Mode.as_trained():
        assert Counting.asked == len(expected.rows) - len(kept.rows), "each completion is sampled once"
    assert seen[0] == (len(kept.rows), len(expected.rows))
    assert resumed == expected
    assert parts.read_bytes() == whole.read_bytes()
    assert Evaluation.load(parts) == expected
    Counting.asked = 0
    assert run(Counting(talker, tokenizer), tokenizer, parts, mode=mode) == expected
    assert Counting.asked == 0


def test_other_settings_are_refused_by_name(talker, tokenizer, tmp_path):
    store = tmp_path / "store.jsonl"
    run(talker, tokenizer, store, PROMPTS[:2])
    before = store.read_bytes()
    for change, name in (
        ({"temperature": 0.5}, "temperature=1.0, now temperature=0.5"),
        ({"samples": 3}, "samples=2, now samples=3"),
        ({"mode": Mode.truncated(4)}, "with mode="),
        ({"system": "be brief"}, 'system=null, now system="be brief"'),
    ):
        with pytest.raises(UserError, match=name):
            run(talker, tokenizer, store, PROMPTS[:2], **change)
    with pytest.raises(UserError, match="1 problems that are not asked for"):
        run(talker, tokenizer, store, PROMPTS[:1])
    assert store.read_bytes() == before


def test_trained_weights_in_the_same_folder_are_another_model(talker, tokenizer, tmp_path):
    import copy

    store = tmp_path / "store.jsonl"
    run(talker, tokenizer, store, PROMPTS[:1])
    trained = copy.deepcopy(talker)
    trained.lm_head.weight.data[0, 0] += 1e-3
    with pytest.raises(UserError, match="weights="):
        run(trained, tokenizer, store, PROMPTS[:1])


def test_the_same_weights_in_another_folder_are_the_same_model(talker, tokenizer, tmp_path):
    store = tmp_path / "evaluation.jsonl"
    first = evaluate(talker, tokenizer, PROMPTS, EvenLength(), store=store, **SETTINGS)
    talker.config._name_or_path, before = "moved/elsewhere", talker.config._name_or_path
    try:
        again = evaluate(talker, tokenizer, PROMPTS, EvenLength(), store=store, **SETTINGS)
    finally:
        talker.config._name_or_path = before
    assert again.rows == first.rows


def test_another_rendering_of_the_same_problems_is_refused(talker, tokenizer, tmp_path):
    import copy

    store = tmp_path / "store.jsonl"
    run(talker, tokenizer, store, PROMPTS[:1])
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}a"
    with pytest.raises(UserError, match="rendered differently"):
        run(talker, chatty, store, PROMPTS[:1])


def test_more_problems_may_follow(talker, tokenizer, tmp_path):
    store = tmp_path / "store.jsonl"
    run(talker, tokenizer, store, PROMPTS[:3])
    assert run(talker, tokenizer, store).rows == run(talker, tokenizer, None).rows


def test_damage_is_named_and_foreign_files_are_left_alone(talker, tokenizer, tmp_path):
    store = tmp_path / "store.jsonl"
    run(talker, tokenizer, store, PROMPTS[:2])
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join([*lines[:2], b"{}\n", *lines[3:]]))
    with pytest.raises(DataError, match="line 3 is damaged"):
        run(talker, tokenizer, store, PROMPTS[:2])
    store.write_bytes(b"".join(lines[1:]))
    with pytest.raises(UserError, match="without its settings"):
        run(talker, tokenizer, store, PROMPTS[:2])
    with pytest.raises(UserError, match="cannot be written"):
        run(talker, tokenizer, "/proc/none/store.jsonl", PROMPTS[:2])


def test_a_value_that_is_no_json_is_refused_before_the_file_is_harmed(talker, tokenizer, tmp_path):
    store = tmp_path / "store.jsonl"
    picture = Prompt.of("1+1=", "2", picture=object())
    with pytest.raises(UserError, match="no JSON value"):
        run(talker, tokenizer, store, [picture])
    assert len(store.read_text().splitlines()) == 1
    assert json.loads(store.read_text())["settings"]["verifier"] == {"class": "EvenLength"}
