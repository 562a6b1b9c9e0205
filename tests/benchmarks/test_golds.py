"""Gold answers of the published benchmarks, read through their recipes, verify against themselves; a wrong one never.

`python benchmarks/grading.py` does so for every gold; here the slow ones are sampled.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from concise_rl.commands import config
from concise_rl.commands.evaluate import planned
from concise_rl.model.loading import spread

DATA = Path(os.environ.get("CONCISE_RL_DATA", Path(__file__).parents[3] / "shared" / "data"))
SAMPLE = 40
MAWPS = ["benchmark.question_column=input", "benchmark.answer_column=target"]
PUBLISHED = {
    "gsm8k/test": 1319,
    "math500/test": 500,
    "aime24/test": 30,
    "aime25/test": 30,
    "amc23/test": 40,
    "minerva_math/test": 272,
    "olympiadbench/test": 675,
    "svamp/test": 1000,
    "mawps/addsub": 395,
    "mawps/multiarith": 600,
    "mawps/singleeq": 508,
    "mawps/singleop": 562,
}


@pytest.mark.parametrize("file", PUBLISHED)
def test_golds_verify_against_themselves(file):
    path = DATA / f"{file}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there; name a folder that has it in CONCISE_RL_DATA")
    name = file.partition("/")[0]
    overrides = [f"benchmark={name}", f"benchmark.path={path}", *(MAWPS if name == "mawps" else [])]
    (task,) = planned(config.compose(overrides, "eval"), name, overrides)
    prompts = task.source.load("test")
    assert len(prompts) == PUBLISHED[file]
    references = [p.reference for p in (prompts if task.verifier.hostile_input_safe else spread(prompts, SAMPLE))]
    verdicts = task.verifier.verify_many(
        [(task.verifier.wrap_reference(r), r) for r in references], deadline_seconds=60
    )
    assert [(r, v) for r, v in zip(references, verdicts, strict=True) if not (v.correct and v.scorable)] == []
    wrong = task.verifier.verify_many([(r"\boxed{7654321.5}", r) for r in references], deadline_seconds=60)
    assert not any(v.correct for v in wrong)
