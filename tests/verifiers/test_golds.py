"""The gold answers of real data sets verify against themselves, which is what the data loader demands of each row."""

import json
import os
from pathlib import Path

import pytest

from concise_rl.verifiers import FinalNumber, MathAnswer

DATA = Path(os.environ.get("CONCISE_RL_DATA", Path(__file__).parents[3] / "shared" / "data"))
SAMPLE = 40


def last_box(solution):
    depth, start = 1, solution.rindex(r"\boxed{") + len(r"\boxed{")
    for end in range(start, len(solution)):
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        if depth == 0:
            return solution[start:end]
    raise ValueError(solution)


SETS = [
    ("gsm8k/test.jsonl", FinalNumber(), lambda row: row["answer"]),
    ("svamp/test.jsonl", FinalNumber(), lambda row: str(row["Answer"])),
    ("mawps/multiarith.jsonl", FinalNumber(), lambda row: str(row["target"])),
    ("amc23/test.jsonl", FinalNumber(), lambda row: str(row["answer"])),
    ("amc23/test.jsonl", MathAnswer(), lambda row: str(row["answer"])),
    ("aime24/test.jsonl", MathAnswer(), lambda row: str(row["answer"])),
    ("aime25/test.jsonl", MathAnswer(), lambda row: str(row["answer"])),
    ("math500/test.jsonl", MathAnswer(), lambda row: row["answer"]),
    ("minerva_math/test.jsonl", MathAnswer(), lambda row: last_box(row["solution"])),
    ("olympiadbench/test.jsonl", MathAnswer(), lambda row: ", ".join(row["final_answer"])),
]


@pytest.mark.parametrize(("path", "verifier", "reference_of"), SETS)
def test_golds_verify_against_themselves(path, verifier, reference_of):
    if not (DATA / path).exists():
        pytest.skip(f"{path} is not in {DATA}; set CONCISE_RL_DATA to a folder that has it")
    with open(DATA / path) as lines:
        references = [reference_of(json.loads(line)) for line in lines]
    step = max(1, len(references) // SAMPLE)
    sample = references[::step]
    pairs = [(verifier.wrap_reference(reference), reference) for reference in sample]
    verdicts = verifier.verify_many(pairs, deadline_seconds=20)
    assert [(r, v) for r, v in zip(sample, verdicts, strict=True) if not v.correct] == []
    wrong = verifier.verify_many([(r"\boxed{7654321.5}", reference) for reference in sample], deadline_seconds=20)
    assert not any(v.correct for v in wrong)
