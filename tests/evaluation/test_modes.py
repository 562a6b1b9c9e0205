"""What the modes do to the thinking phase, and curves over budgets."""

from __future__ import annotations

import pytest

from concise_rl.data import Prompt
from concise_rl.errors import UserError
from concise_rl.evaluation import Evaluation, Mode, budget_sweep, evaluate
from concise_rl.evaluation.backends import Completion, TransformersBackend

from .conftest import PROMPTS, SETTINGS, EvenLength


class Scripted:
    """A model that says what it is told to: thinking of as many tokens as the prompt says, the tag, an answer of 3."""

    def __init__(self):
        self.requests = []

    def generate(self, requests, sampling, finished):
        for place, request in enumerate(requests):
            self.requests.append((request, sampling.max_new_tokens))
            thinking = ["t"] * int(request.prompt)
            said = [*thinking, "</think>", "a", "b", "<eos>"]
            if request.start is not None:
                said = said[request.start.length :] if not request.closing else ["a", "b", "<eos>"]
            elif request.closing:
                said = ["a", "b", "<eos>"]
            kept = said[: sampling.max_new_tokens]
            thought = kept.index("</think>") if "</think>" in kept else len(kept)
            text = "".join(kept).replace("<eos>", "")
            finished(place, Completion(text, len(kept), len(kept) < len(said), thought, tuple(map(ord_of, kept))))

    def decode(self, token_ids):
        return "".join({1: "t", 2: "</think>", 3: "a", 4: "b", 5: ""}[token] for token in token_ids)

    def identity(self):
        return {"backend": "scripted"}


def ord_of(token):
    return {"t": 1, "</think>": 2, "a": 3, "b": 4, "<eos>": 5}[token]


def ask(thinking, mode, max_new_tokens=20, **settings):
    backend = Scripted()
    prompts = [Prompt.of(str(n), "x") for n in thinking]
    made = evaluate(
        backend,
        None,
        prompts,
        EvenLength(),
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        seed=0,
        mode=mode,
        **settings,
    )
    return made, backend


def facts(row):
    return row.completion, row.length, row.think_length, row.answer_length, row.truncated, row.forced


def test_worked_modes():
    thinking = [2, 5, 6, 7]
    trained, _ = ask(thinking, Mode.as_trained())
    assert facts(trained.rows[0]) == ("tt</think>ab", 6, 2, 3, False, False)
    none, backend = ask(thinking, Mode.no_thinking("ok", answer_start=":"))
    assert {facts(row) for row in none.rows} == {("<think>ok</think>:ab", 3, 0, 3, False, True)}
    cut, _ = ask(thinking, Mode.truncated(7))
    assert [facts(row)[0] for row in cut.rows] == ["tt</think>ab", "ttttt</think>a", "tttttt</think>", "ttttttt"]
    assert [row.truncated for row in cut.rows] == [False, True, True, True]
    forced, backend = ask(thinking, Mode.forced(6, answer_start="="))
    assert [facts(row) for row in forced.rows] == [
        ("tt</think>ab", 6, 2, 3, False, False),
        ("ttttt</think>ab", 9, 5, 3, False, False),  # had stopped thinking, was cut in its answer, goes on
        ("tttttt</think>=ab", 9, 6, 3, False, True),  # the next token would have been the tag
        ("tttttt</think>=ab", 9, 6, 3, False, True),
    ]
    assert [limit for _, limit in backend.requests] == [6] * 4 + [14] * 3
    assert len({request.seed for request, _ in backend.requests}) == 7, "no answer is drawn with its thinking's numbers"


def test_a_prompt_that_opens_thinking_gets_no_second_opening():
    class Open(Scripted):
        def generate(self, requests, sampling, finished):
            assert [request.closing for request in requests] == ["</think>"]
            finished(0, Completion("ab", 2, False, 2, (3, 4)))

    prompts = [Prompt.of("3<think>\n", "x")]
    (row,) = evaluate(
        Open(), None, prompts, EvenLength(), max_new_tokens=9, temperature=1.0, seed=0, mode=Mode.no_thinking()
    ).rows
    assert facts(row) == ("</think>ab", 2, 0, 2, False, True)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        (lambda: Mode("slowly"), "mode='slowly'"),
        (lambda: Mode.forced(0), "budget=0"),
        (lambda: Mode("truncated"), "budget=None"),
        (lambda: Mode("no_thinking", 5), "budget=5"),
        (lambda: ask([1], Mode.forced(20)), "no token is left"),
    ],
)
def test_refusals(mode, name):
    with pytest.raises(UserError, match=name):
        mode()


def test_a_sweep_is_what_each_budget_gives_by_itself():
    """The script has no chance in it, so distribution equals row; thinking is sampled once for all budgets."""
    thinking = [0, 2, 5, 6, 7, 12]
    base, backend = ask(thinking, Mode.as_trained(), keep_token_ids=True)
    for mode in ("truncated", "forced"):
        backend.requests.clear()
        seen = []

        def watch(*count, seen=seen):
            seen.append(count)

        curve = budget_sweep(base, backend, EvenLength(), [9, 3, 6, 9], mode=mode, on_progress=watch)
        assert (seen[0], seen[-1]) == ((0, 18), (18, 18))
        assert curve.budgets == (3, 6, 9)
        for budget, point in zip(curve.budgets, curve.evaluations, strict=True):
            alone, _ = ask(thinking, Mode(mode, budget))
            assert [facts(row) for row in point.rows] == [facts(row) for row in alone.rows], (mode, budget)
            assert [row.verdict for row in point.rows] == [row.verdict for row in alone.rows]
        assert all(request.start is not None for request, _ in backend.requests), "only answers are sampled anew"
        assert len(backend.requests) == (0 if mode == "truncated" else 4 + 3 + 1)


def test_sweep_with_a_model(talker, tokenizer, tmp_path):
    backend = TransformersBackend(talker, tokenizer)
    base = evaluate(backend, tokenizer, PROMPTS, EvenLength(), samples=3, keep_token_ids=True, **SETTINGS)
    cut = budget_sweep(base, backend, EvenLength(), [5, 12, 24], mode="truncated")
    for budget, point in zip(cut.budgets, cut.evaluations, strict=True):
        alone = evaluate(backend, tokenizer, PROMPTS, EvenLength(), samples=3, mode=Mode.truncated(budget), **SETTINGS)
        assert point.rows == alone.rows, "the same seeds: cutting and stopping are one"
    forced = budget_sweep(base, backend, EvenLength(), [5], mode="forced", folder=tmp_path)
    (point,) = forced.evaluations
    assert {row.forced for row in point.rows} == {True, False}
    for row, base_row in zip(point.rows, base.rows, strict=True):
        assert row.length <= SETTINGS["max_new_tokens"]
        if base_row.think_length < min(5, base_row.length) or base_row.length <= 5:
            assert row.completion == base_row.completion
        else:
            assert row.completion.startswith(backend.decode(base_row.token_ids[:5]) + "</think>")
            assert (row.think_length, row.forced) == (5, True)
    assert Evaluation.load(tmp_path / "forced-5.jsonl") == point
    again = budget_sweep(base, Silent(talker, tokenizer), EvenLength(), [5], mode="forced", folder=tmp_path)
    assert again.evaluations == forced.evaluations


class Silent(TransformersBackend):
    def generate(self, requests, sampling, finished):
        assert not requests, "all of it was stored"


def test_sweeps_that_cannot_be():
    base, backend = ask([2, 5], Mode.as_trained())
    with pytest.raises(UserError, match="keep_token_ids"):
        budget_sweep(base, backend, EvenLength(), [3])
    with pytest.raises(UserError, match=r"budgets=\[0, 3\]"):
        budget_sweep(base, backend, EvenLength(), [0, 3])
    cut, _ = ask([2, 5], Mode.truncated(3), keep_token_ids=True)
    with pytest.raises(UserError, match="as_trained"):
        budget_sweep(cut, backend, EvenLength(), [3])
    kept, _ = ask([2, 5], Mode.as_trained(), keep_token_ids=True)

    class Other(Scripted):
        def identity(self):
            return {"backend": "other"}

    with pytest.raises(UserError, match="backend='other'"):
        budget_sweep(kept, Other(), EvenLength(), [3], mode="forced")
