"""What is kept of a trained cell: for each test problem right or wrong and tokens, and what training took.

    run folder of a cell  --pack-->  Record, a line of docs/results/cells/<task>.jsonl  --rows-->  judged completions

Two kilobytes a cell hold all that a leaderboard, an interval or a paired difference needs, so that pages are made, and
the experiment is gone on with, from a clone. Completions and models are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cells import ORIGIN, Cell
from concise_rl.data import Prompt
from concise_rl.evaluation import Evaluation, EvaluationRow
from concise_rl.evaluation.tradeoff import behaviour
from concise_rl.reporting.run_log import read_config, read_metrics, read_summary
from concise_rl.testbeds import TESTBEDS
from concise_rl.verifiers import Verdict

BEFORE = "before training"
"""The method of the record of a model that was not trained; its seed is that of the evaluation."""


@dataclass(frozen=True)
class Record:
    """One trained cell on the test problems of its task, in the order of the task's test split.

    Attributes:
        cell: what was trained.
        right: `1` or `0`, a character a problem.
        tokens: of the one completion of each problem, EOS included.
        behaviour: what the completions do, on a bed (`concise_rl.evaluation.tradeoff.behaviour`).
        commit, date: of the training.
        steps, seconds: of the training; seconds on a machine that did other things too.
        sampled_tokens: of all completions of the training.
        taught: share of the training's rows that had credit.
    """

    cell: Cell
    right: str
    tokens: tuple[int, ...]
    behaviour: Mapping[str, Any] | None
    commit: str
    date: str
    steps: int = 0
    seconds: float = 0.0
    sampled_tokens: int = 0
    taught: float = 0.0

    def rows(self) -> list[EvaluationRow]:
        """The judged completions, without their texts."""
        return [
            EvaluationRow(
                prompt.id, 0, str(prompt.messages[-1]["content"]), prompt.reference, "", length, None, False,
                Verdict.of(right == "1"), prompt.columns,
            )
            for prompt, right, length in zip(problems(self.cell.task), self.right, self.tokens, strict=True)
        ]  # fmt: skip

    def line(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of_line(cls, line: str) -> Record:
        fields = json.loads(line)
        cell = Cell(**fields.pop("cell"))
        fields["tokens"] = tuple(fields["tokens"])
        return cls(cell=replace(cell, overrides=tuple(cell.overrides)), **fields)


@cache
def problems(task: str) -> tuple[Prompt, ...]:
    """The task's test split."""
    return tuple(TESTBEDS[task]().load("test"))


def pack(cell: Cell, runs: Path) -> tuple[Record, Record]:
    """The records of a cell's run folder: the model before training, and after it."""
    folder = cell.folder(runs)
    origin = json.loads((folder / ORIGIN).read_text())
    config, metrics, summary = read_config(folder)["trainer"], read_metrics(folder), read_summary(folder)
    rows_a_step = config["per_device_train_batch_size"] * config["gradient_accumulation_steps"]
    start = Cell(cell.task, BEFORE, cell.seed)
    before, after = (
        _record(own, Evaluation.load(folder / f"evaluation-{name}.jsonl").rows, origin)
        for own, name in ((start, "before"), (cell, "after"))
    )
    return before, replace(
        after,
        steps=summary["steps"],
        seconds=round(summary["training_seconds"], 1),
        sampled_tokens=round(rows_a_step * sum(line["mean_tokens"] for line in metrics)),
        taught=round(1 - sum(line["zero_credit_frac"] for line in metrics) / len(metrics), 4),
    )


def _record(cell: Cell, rows: Sequence[EvaluationRow], origin: Mapping[str, str]) -> Record:
    by_problem = {row.prompt_id: row for row in rows}
    own = [by_problem[prompt.id] for prompt in problems(cell.task)]
    right = "".join("1" if row.correct else "0" for row in own)
    return Record(cell, right, tuple(row.length for row in own), _rounded(behaviour(own)), **origin)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(own) for key, own in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def load(folder: Path) -> dict[Cell, Record]:
    """All records of a folder of `<task>.jsonl`."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines())
    return {record.cell: record for record in map(Record.of_line, lines)}


def save(records: Iterable[Record], folder: Path) -> None:
    """The records as `<task>.jsonl`, sorted; the files of other tasks stay."""
    folder.mkdir(parents=True, exist_ok=True)
    by_task: dict[str, list[Record]] = {}
    for record in records:
        by_task.setdefault(record.cell.task, []).append(record)
    for task, own in by_task.items():
        own.sort(key=lambda record: (record.cell.method, record.cell.setting, record.cell.seed))
        (folder / f"{task}.jsonl").write_text("".join(f"{record.line()}\n" for record in own))


def collect(cells: Iterable[Cell], runs: Path, folder: Path) -> dict[Cell, Record]:
    """What is stored, and what is newly trained, packed and stored with it."""
    records = load(folder)
    fresh = [cell for cell in cells if cell not in records and cell.done(runs)]
    for cell in fresh:
        before, after = pack(cell, runs)
        records[cell] = after
        records.setdefault(before.cell, before)
    if fresh:
        save(records.values(), folder)
    return records
