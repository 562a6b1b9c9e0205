"""From a selection to a file that TRL takes as it is, and a report of what was kept and why."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from concise_rl.errors import UserError
from concise_rl.evaluation.evaluate import described
from concise_rl.files import file_checksum, replace_text
from concise_rl.methods.contracts import Choice, Preference, Sample, Selection, Selector
from concise_rl.offline.store import SampleStore

PROMPTS = ("plain", "as_asked")


def select(store: SampleStore, selector: Selector, out: Path, prompts: str = "plain") -> dict[str, Any]:
    """Apply a selector and write its rows to `out` (.jsonl or .parquet), and the report beside it.

    A row has `prompt` and `completion` (and `weight` where not all are 1), a pair `prompt`, `chosen`, `rejected`, all
    texts as the model saw and wrote them; besides `problem` and the lengths in tokens.

    Args:
        prompts: `plain`, each problem's own prompt, or `as_asked`, with what its edit added.

    Returns:
        The report, as it is written to `<out>.report.json`.

    Raises:
        UserError: nothing was selected, or a pair has two equal sides; nothing is written then.
    """
    if prompts not in PROMPTS:
        raise UserError(f"prompts={prompts!r}: choose from {', '.join(PROMPTS)}")
    if out.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"--out {out}: name a .jsonl or a .parquet file")
    selection = selector(store.samples)
    if not selection:
        raise UserError(
            f"{type(selector).__name__} selected none of {len(store.samples)} samples of {_problems(store.samples)} "
            f"problems, {sum(s.correct for s in store.samples)} of them right: sample more, or loosen the selection"
        )
    rows = list(_rows(store, selection, prompts))
    _write(out, rows)
    report = report_of(store, selector, selection) | {"sha256": file_checksum(out), "rows": len(rows)}
    replace_text(report_path(out), json.dumps(report, indent=1) + "\n")
    return report


def report_path(out: Path) -> Path:
    """Where the report of a file of rows stands."""
    return out.with_name(f"{out.name}.report.json")


def report_of(store: SampleStore, selector: Selector, selection: Selection) -> dict[str, Any]:
    """What was kept and why, as JSON values."""
    kept = [item.sample if isinstance(item, Choice) else item.chosen for item in selection]
    judged = [s for s in store.samples if s.scorable]
    right = [s for s in judged if s.correct]
    return {
        "selector": described(selector),
        "stores": {str(file): file_checksum(file) for file in store.files},
        "pairs": len(selection) if isinstance(selection[0], Preference) else 0,
        "samples": len(store.samples),
        "sampled_tokens": sum(s.length for s in store.samples),
        "repeated": store.repeated,
        "unscorable": len(store.samples) - len(judged),
        "right": len(right),
        "problems": _problems(store.samples),
        "problems_without_right": _problems(store.samples) - _problems(right),
        "problems_kept": _problems(kept),
        "tokens_right": _mean(right),
        "tokens_kept": _mean(kept),
        "tokens_rejected": _mean([item.rejected for item in selection if isinstance(item, Preference)]),
        "by_difficulty": by_difficulty(store, judged, kept),
    }


def by_difficulty(store: SampleStore, judged: Sequence[Sample], kept: Sequence[Sample]) -> list[dict[str, Any]]:
    """Samples, accuracy, and what was kept, at each value of the column `difficulty`; empty without one."""
    level = {key: columns.get("difficulty") for key, columns in store.columns.items()}
    found = []
    for value in sorted({v for v in level.values() if isinstance(v, int | float)}):
        own, chosen = ([s for s in samples if level[s.problem] == value] for samples in (judged, kept))
        accuracy = statistics.fmean(s.correct for s in own) if own else None
        found.append({"difficulty": value, "samples": len(own), "accuracy": accuracy, "kept": len(chosen),
                      "tokens": _mean(own), "tokens_kept": _mean(chosen)})  # fmt: skip
    return found


def _rows(store: SampleStore, selection: Selection, prompts: str) -> Iterator[dict[str, Any]]:
    weighted = any(isinstance(item, Choice) and item.weight != 1 for item in selection)
    for item in selection:
        if isinstance(item, Choice):
            row = store.row(item.sample)
            prompt = (row.prompt if prompts == "as_asked" else store.prompt(item.sample)) + item.suffix
            yield {
                "prompt": prompt, "completion": row.completion, "problem": item.sample.problem,
                "tokens": item.sample.length, "truncated": item.sample.truncated,
                **({"weight": item.weight} if weighted else {}),
            }  # fmt: skip
            continue
        chosen, rejected = store.row(item.chosen), store.row(item.rejected)
        if chosen.completion == rejected.completion:
            raise UserError(
                f"problem {item.chosen.problem}: both sides of a pair are {chosen.completion[:40]!r}; a preference "
                "needs two answers, was one judged twice?"
            )
        yield {
            "prompt": chosen.prompt if prompts == "as_asked" else store.prompt(item.chosen),
            "chosen": chosen.completion, "rejected": rejected.completion, "problem": item.chosen.problem,
            "chosen_tokens": item.chosen.length, "rejected_tokens": item.rejected.length,
        }  # fmt: skip


def _write(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".jsonl":
        replace_text(out, "".join(json.dumps(row) + "\n" for row in rows))
        return
    import pyarrow
    from pyarrow import parquet

    aside = out.with_name(f".{out.name}.part")
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), aside)
    aside.replace(out)


def _problems(samples: Sequence[Sample]) -> int:
    return len({s.problem for s in samples})


def _mean(samples: Sequence[Sample]) -> float | None:
    return statistics.fmean(s.length for s in samples) if samples else None
