"""The measured law of bed M: what is stored, what follows from it, and that the shipped reasoner has it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from concise_rl.assets import REASONERS
from concise_rl.errors import DataError
from concise_rl.methods.edits.wording import edited
from concise_rl.methods.registry import SHELVES, component
from concise_rl.testbeds import TESTBEDS, RunningTotal, WhichSum
from concise_rl.testbeds.beds import BEDS, merging_law
from concise_rl.testbeds.forcing import Forcer, force_composition
from concise_rl.testbeds.laws import (
    Level,
    MergingLaw,
    cells_of,
    load_checkpoint,
    measure_checks,
    measure_law,
    measure_recovery,
    number_chances,
    text_chances,
)
from concise_rl.testbeds.running_total import MEASURED, completion, compositions, measured_problems, totals
from concise_rl.testbeds.which_sum import RANK_LAW
from concise_rl.verifiers import Exact

SHIPPED = REASONERS["tiny_running_total"]


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint(SHIPPED)


def by_hand() -> MergingLaw:
    """Two problems of two operations: compositions (1, 1) and (2,)."""
    accuracy = np.array([[0.72, 0.5], [0.6, 0.7]])
    errors = {(0, 1): 0.05, (0, 2): 0.4, (1, 1): 0.3}
    return MergingLaw({2: Level(2, accuracy, np.array([[1, 2], [2, 1]]), errors, {(1, 1): 0.0, (2,): 0.0})})


def test_cells_by_hand():
    assert cells_of((1, 3, 2)) == [(0, 1), (1, 3), (4, 2)]


def test_points_by_hand():
    points = {point.policy: point for point in by_hand().levels[2].points()}
    assert points[(1, 1)].accuracy == pytest.approx(0.66)
    assert points[(2,)].accuracy == pytest.approx(0.6)
    assert points[(1, 1)].tokens == pytest.approx(3 + ((1 + 1 + 2) + (1 + 2 + 1)) / 2)
    assert points[(2,)].tokens == pytest.approx(3 + 1.5)
    assert by_hand().point((2,)) == points[(2,)]


def test_an_answer_may_recover_from_a_wrong_total():
    level = by_hand().levels[2]
    level = replace(level, recovery={(1, 1): 0.25, (2,): 0.0})
    assert level.accuracy_PC == pytest.approx(np.array([[0.72 + 0.28 * 0.25, 0.5], [0.6 + 0.4 * 0.25, 0.7]]))


@pytest.mark.parametrize(("answers_right", "share"), [(True, 1.0), (False, 0.0)])
def test_recovery_is_the_share_of_right_answers_after_a_wrong_total(answers_right, share):
    class Scripted:
        """Every total is 99, and the answer is right or is not."""

        def write(self, texts, ends):
            return [
                str(totals(text.partition("<")[0])[-1] + (not answers_right)) if text.endswith("</think>") else "99b"
                for text in texts
            ]

    questions = [p.messages[0]["content"] for p in RunningTotal().load("law") if p.columns["difficulty"] == 4][:3]
    found = measure_recovery(Scripted(), 4, questions)
    assert found == {composition: share if len(composition) > 1 else 0.0 for composition in compositions(4)}


def test_a_recovery_that_few_show_is_drawn_to_that_of_compositions_as_long():
    class Scripted:
        """Only (1, 3) ever falls: its first total is wrong, its answer right."""

        def write(self, texts, ends):
            return [
                str(totals(q)[-1])
                if text.endswith("</think>")
                else "99"
                if text.endswith("a")
                else str(totals(q)[ord(text[-1]) - 96])
                for q, text in (text.split("<", 1) for text in texts)
            ]

    questions = [p.messages[0]["content"] for p in RunningTotal().load("law") if p.columns["difficulty"] == 4][:5]
    found = measure_recovery(Scripted(), 4, questions)
    assert found[(1, 3)] == 1.0
    assert found[(2, 2)] == found[(3, 1)] == 1.0, "none of theirs fell: the prior alone"
    assert found[(4,)] == 0.0


def test_the_frontier_takes_the_best_composition_and_its_interval_holds_it():
    law = by_hand()
    assert [p.policy for p in law.frontier().mixtures] == [((2,),), ((1, 1),)]
    low, high = law.interval(lambda frontier: frontier.accuracy_at(20))
    assert (low, high) == (pytest.approx(0.66), pytest.approx(0.72))  # each problem once; twice the first


def test_a_law_outlives_the_disk(tmp_path):
    by_hand().save(tmp_path / "law.json")
    again = MergingLaw.load(tmp_path / "law.json")
    assert again.frontier() == by_hand().frontier()
    (tmp_path / "law.json").write_text('{"2": {"right": []}}')
    for path in ("law.json", "none.json"):
        with pytest.raises(DataError, match="holds no law"):
            MergingLaw.load(tmp_path / path)


def test_the_chance_of_a_number_is_that_of_its_tokens_one_by_one(shipped):
    model, tokenizer = shipped
    question, completion = "7a+4b-3c+9d-5=", "<think>b8c17</think>12"

    def chances(text: str) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=torch.tensor([tokenizer.encode(question + text)])).logits[0, -1].softmax(-1)

    def of(text: str, token: str) -> float:
        return float(chances(text)[tokenizer.convert_tokens_to_ids(token)])

    def no_digit(text: str) -> float:
        return 1 - float(chances(text)[tokenizer.convert_tokens_to_ids(list("0123456789"))].sum())

    eight = of("<think>b", "8") * no_digit("<think>b8")
    seventeen = of("<think>b8c", "1") * of("<think>b8c1", "7") * no_digit("<think>b8c17")
    closed = "<think>b8c17</think>"
    twelve = of(closed, "1") * of(closed + "1", "2") * of(closed + "12", "<eos>")
    ((*found,),) = number_chances(model, tokenizer, [(question, completion)])
    assert found == pytest.approx([eight, seventeen, twelve], abs=1e-5)
    (whole,) = text_chances(model, tokenizer, [(f"{question}<think>b8c", "17</think>")])
    assert whole == pytest.approx(
        of("<think>b8c", "1") * of("<think>b8c1", "7") * of("<think>b8c17", "</think>"), abs=1e-5
    )


def test_the_shipped_law_is_the_shipped_reasoners(shipped):
    for n in (2, 4):
        some = [p for p in measured_problems("law") if p.columns["difficulty"] == n][:12]
        found, stored = measure_law(*shipped, some).levels[n], merging_law().levels[n]
        assert np.allclose(found.right_PC, stored.right_PC[:12], atol=2e-3)
        assert (found.digits_PN == stored.digits_PN[:12]).all()
        assert found.errors.keys() == stored.errors.keys()


def test_errors_are_means_over_the_compositions_that_pass_a_cell(shipped):
    model, tokenizer = shipped
    (prompt,) = [p for p in RunningTotal().load("law") if p.columns["difficulty"] == 4][:1]
    question = prompt.messages[0]["content"]
    found = measure_law(model, tokenizer, [prompt]).levels[4]
    alone = number_chances(model, tokenizer, [(question, completion(question, (1, 1, 2)))])[0]
    both = [
        number_chances(model, tokenizer, [(question, completion(question, c))])[0][at]
        for c, at in (((1, 1, 2), 2), ((2, 2), 1))
    ]
    assert found.right_PC[0, found.compositions.index((1, 1, 2))] == pytest.approx(np.prod(alone), abs=1e-5)
    assert found.errors[(2, 2)] == pytest.approx(1 - sum(both) / 2, abs=1e-5)


def test_forced_behaviour_is_the_laws(shipped):
    """Pairs of totals at level 4, on 64 test problems: three standard errors of slack."""
    prompts = [p for p in RunningTotal().load("test") if p.columns["difficulty"] == 4][:64]
    completions = force_composition(Forcer(*shipped), [p.messages[0]["content"] for p in prompts], (2, 2))
    right = [Exact()(text, p.reference).correct for text, p in zip(completions, prompts, strict=True)]
    expected = merging_law().point((2, 2)).accuracy
    assert sum(right) / 64 == pytest.approx(expected, abs=3 * (expected * (1 - expected) / 64) ** 0.5)
    assert all(text.startswith("<think>b") and text.count("</think>") == 1 for text in completions)


def test_the_shipped_law_holds_what_the_bed_promises():
    """Thinking pays, with diminishing returns: 20 points or more between none and all on the hard half."""
    law = merging_law()
    assert len(json.loads((SHIPPED / "law.json").read_text())) == 4
    for n in (6, 8):
        assert law.point((1,) * n).accuracy - law.point((n,)).accuracy > 0.2
    corners = law.frontier().mixtures
    slopes = [(b.accuracy - a.accuracy) / (b.tokens - a.tokens) for a, b in itertools.pairwise(corners)]
    assert slopes == sorted(slopes, reverse=True)
    assert {n: len(level.right_PC) for n, level in law.levels.items()} == MEASURED


def test_the_checks_of_the_shipped_reasoner_of_bed_s_are_right_as_its_law_says():
    folder = REASONERS["tiny_which_sum"]
    stored = json.loads((folder / "law.json").read_text())
    assert {int(n): tuple(law) for n, law in stored["rank_law"].items()} == RANK_LAW
    assert [len(stored["checks_right"][str(n)]) for n in RANK_LAW] == list(RANK_LAW)
    assert min(min(chances) for chances in stored["checks_right"].values()) > 0.97
    some = [p for p in WhichSum().load("law") if p.columns["difficulty"] == 3][:12]
    found = measure_checks(*load_checkpoint(folder), some)["3"]
    assert found[0] == pytest.approx(stored["checks_right"]["3"][0], abs=0.02)


@pytest.mark.parametrize("bed", BEDS)
@pytest.mark.parametrize("name", SHELVES["edit"])
def test_a_bed_finds_its_question_under_the_words_of_an_edit(bed, name):
    prompts = TESTBEDS[bed]().load("test")[:20]
    edit = component("edit", name)()
    asked = [edited(edit, prompt, 0).messages[-1]["content"] for prompt in prompts]
    plain = [prompt.messages[-1]["content"] for prompt in prompts]
    assert BEDS[bed].frontier(asked) == BEDS[bed].frontier(plain)
    said = "<think></think>0"
    assert BEDS[bed].behaviour([(q, said) for q in asked]) == BEDS[bed].behaviour([(q, said) for q in plain])
