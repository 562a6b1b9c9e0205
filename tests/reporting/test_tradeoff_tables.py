"""What a frontier's tables say: ranks by regret, slices, composition and skill."""

from __future__ import annotations

from concise_rl.evaluation import EvaluationRow
from concise_rl.evaluation.tradeoff import tradeoff
from concise_rl.reporting.tradeoff import frontier_sentence, regret_sentence, regret_table, tradeoff_tables
from concise_rl.testbeds import RunningTotal
from concise_rl.testbeds import running_total as m
from concise_rl.verifiers import Exact, Verdict


def plain(correct: bool, length: int, prompt_id: str) -> EvaluationRow:
    return EvaluationRow(prompt_id, 0, "q", "a", "a", length, None, False, Verdict.of(correct), {})


def composed(merged: int) -> list[EvaluationRow]:
    """Bed M, every total right, so many operations to each."""
    rows = []
    for prompt in RunningTotal(test_size=16).load("test"):
        question = prompt.messages[0]["content"]
        n = len(m.totals(question)) - 1
        text = m.completion(question, (merged,) * (n // merged))
        tokens = len(text.replace("<think>", "T").replace("</think>", "T")) + 1
        verdict = Exact()(text, prompt.reference)
        rows.append(
            EvaluationRow(prompt.id, 0, question, prompt.reference, text, tokens, None, False, verdict, prompt.columns)
        )
    return rows


def test_ranks_go_by_regret_at_each_price_and_leave_out_what_is_not_ranked():
    entries = {
        "before": [plain(False, 1, "p"), plain(False, 1, "q")],
        "short": [plain(True, 10, "p"), plain(False, 10, "q")],
        "long": [plain(True, 90, "p"), plain(True, 90, "q")],
        "dear": [plain(True, 99, "p"), plain(True, 99, "q")],
    }
    found = tradeoff(entries, (0.001, 0.01))
    header, *rows = regret_table(found.entries, unranked=("before", "absent"))
    ranks = [place for place, name in enumerate(header) if name.startswith("rank")]
    assert [[row[0], *(row[place] for place in ranks)] for row in rows] == [
        ["before", "", ""],
        ["short", "3", "1"],
        ["long", "1", "2"],
        ["dear", "2", "3"],
    ]
    # At .001 the best is `long`, worth .91; `dear` is worth .901.
    assert rows[3][1].startswith("0.9 [")
    assert not any(
        name.startswith("rank") for name in regret_table({k: found.entries[k] for k in ("short", "long")})[0]
    )
    assert frontier_sentence(found).startswith("best of the compared, which are not the best that is possible: 100.0 %")
    assert list(tradeoff_tables(found)) == ["Against the best of the compared"]


def test_pressing_is_told_from_learning():
    tables = tradeoff_tables(tradeoff({"all": composed(1), "pairs": composed(2)}))
    regret, slices, done = tables.values()
    assert slices[0] == ["accuracy, % @ tokens", "n=2", "n=4", "n=6", "n=8", "hard"]
    assert all(cell.startswith("100.0 @ ") for row in slices[1:] for cell in row[1:])
    header, one, two = done
    assert one[1:5] == ["2.0", "4.0", "6.0", "8.0"]
    assert two[1:5] == ["1.0", "2.0", "3.0", "4.0"]
    assert one[header.index("error merging 2, %")] == "–"
    assert two[header.index("error merging 2, %")] == "0.0"
    # Their accuracy is 100: what the law says of the reasoner with these compositions is less, so the rest was learnt.
    assert float(two[-1]) < float(one[-1]) < 100
    assert float(regret[2][1].split()[0]) < 0


def test_a_sentence_has_the_regret_of_each_entry():
    found = tradeoff({"before": [plain(True, 10, "p")], "after": [plain(True, 5, "p")]}, (0.01,))
    assert regret_sentence(found) == "regret at 0.01 a token: 5.0 points before; 0.0 points after"
