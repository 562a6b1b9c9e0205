"""Rows to tune on: read, checked, and cut into tokens as the policy saw them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from concise_rl.data.files import read_rows as read_file
from concise_rl.errors import DataError, UserError
from concise_rl.files import file_checksum
from concise_rl.offline.report import report_path

ROW, PAIR = ("prompt", "completion"), ("prompt", "chosen", "rejected")

COLUMNS: dict[str, tuple[str, ...]] = {"sft": ROW, "weighted": (*ROW, "weight"), "dpo": PAIR, "simpo": PAIR}
"""What a recipe reads of a row."""

MADE_BY = {
    ROW: "concise-rl select selector=long2short (or tops, on_policy_sft, ...)",
    (*ROW, "weight"): "concise-rl select selector=o1_pruner",
    PAIR: "concise-rl select selector=long2short_dpo (or tops_dpo)",
}


def read_rows(path: str | Path, recipe: str) -> list[dict[str, Any]]:
    """The rows of a `.jsonl` or `.parquet` file that a recipe can tune on.

    Raises:
        UserError: no such file, or it changed since `concise-rl select` wrote it.
        DataError: a damaged line, a missing column, an empty text, or a pair of equal sides; named by its row.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"rows={path}: there is no such file; make one with {MADE_BY[COLUMNS[recipe]]}")
    report = selected(path)
    if report and report.get("sha256") != file_checksum(path):
        raise UserError(
            f"rows={path} is not what concise-rl select wrote ({report_path(path).name} has another checksum): select "
            "again, or remove the report"
        )
    rows = [_checked(row, place, recipe) for place, row in read_file(path)]
    if not rows:
        raise DataError(f"rows={path} is empty: select again")
    return rows


def selected(path: Path) -> dict[str, Any]:
    """The report that stands beside a file of rows; empty where there is none."""
    try:
        return dict(json.loads(report_path(path).read_bytes()))
    except (OSError, TypeError, ValueError):
        return {}


def _checked(row: Mapping[str, Any], place: str, recipe: str) -> dict[str, Any]:
    wanted = COLUMNS[recipe]
    if not all(name in row for name in wanted):
        raise DataError(
            f"{place}: recipe={recipe} needs {', '.join(wanted)}, the row has {', '.join(row)}; make such rows with "
            f"{MADE_BY[wanted]}"
        )
    for name in wanted:
        kinds = (int, float) if name == "weight" else (str,)
        if not isinstance(row[name], kinds) or isinstance(row[name], bool) or row[name] == "":
            raise DataError(f"{place}: {name} is {row[name]!r:.60}; it must be a {kinds[-1].__name__}")
    if "chosen" in wanted and row["chosen"] == row["rejected"]:
        raise DataError(f"{place}: chosen and rejected are the same text; a pair needs two")
    sides = ("chosen_truncated", "rejected_truncated") if "chosen" in wanted else ("truncated",)
    return {name: row[name] for name in wanted} | {side: bool(row.get(side, False)) for side in sides}


def tokenised(
    rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, context: int | None, path: str | Path
) -> list[dict[str, Any]]:
    """Rows as TRL's collators take them: `input_ids` with `completion_mask`, or `prompt_ids`, `chosen_ids`,
    `rejected_ids`.

    A prompt is cut into tokens as the policy's own prompts are, a completion by itself, as it was sampled: no token
    reaches across. EOS ends a completion, but for one that its limit cut off.

    Raises:
        DataError: a row is longer than the model's context; TRL would cut it without a word.
    """

    def completion(text: str, truncated: bool) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"]) + [tokenizer.eos_token_id] * (not truncated)

    made = []
    for number, row in enumerate(rows):
        prompt = list(tokenizer(row["prompt"], add_special_tokens=not tokenizer.chat_template)["input_ids"])
        if "chosen" in row:
            found: dict[str, Any] = {
                "prompt_ids": prompt,
                "chosen_ids": completion(row["chosen"], row["chosen_truncated"]),
                "rejected_ids": completion(row["rejected"], row["rejected_truncated"]),
            }
            longest = len(prompt) + max(len(found["chosen_ids"]), len(found["rejected_ids"]))
        else:
            ids = completion(row["completion"], row["truncated"])
            found = {"input_ids": prompt + ids, "completion_mask": [0] * len(prompt) + [1] * len(ids)}
            found |= {"weight": float(row["weight"])} if "weight" in row else {}
            longest = len(prompt) + len(ids)
        if context is not None and longest > context:
            raise DataError(
                f"rows={path}, row {number} takes {longest} tokens, the model's context is {context}: select shorter "
                "ones, such as selector=on_policy_sft with its limit"
            )
        made.append(found)
    return made
