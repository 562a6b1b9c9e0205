"""Data sets, and the check that their references can be verified at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from concise_rl.data.base import DataSource, Prompt, content_key
from concise_rl.data.files import Benchmark, Hub, Local
from concise_rl.data.reasoning_gym_task import ReasoningGym
from concise_rl.data.templates import render
from concise_rl.errors import DataError
from concise_rl.verifiers.base import Verdict

DATA_SOURCES: dict[str, type] = {"hub": Hub, "local": Local, "reasoning_gym": ReasoningGym}
"""The data sources by the name that a recipe gives them."""

BENCHMARK_SOURCES: dict[str, type] = {"test_set": Benchmark, "reasoning_gym": ReasoningGym}
"""What `benchmark=` builds on, by the name that a recipe gives it."""


def check_references(
    prompts: Sequence[Prompt],
    verify_many: Callable[[list[tuple[str, str]]], Sequence[Verdict]],
    wrap: Callable[[str], str] = str,
) -> None:
    """Refuse a data set with a reference that does not verify against itself.

    Such a row could never be answered rightly, and would teach only noise. Equal references are verified once.

    Args:
        prompts: the problems.
        verify_many: (completion, reference) pairs to their verdicts.
        wrap: makes a completion that states the reference, for verifiers that ask for more than the bare text.

    Raises:
        DataError: names the first such problem, its id and its reference, and the number of such references.
    """
    references = list(dict.fromkeys(p.reference for p in prompts))
    verdicts = verify_many([(wrap(reference), reference) for reference in references])
    refused = {r: v.reason for r, v in zip(references, verdicts, strict=True) if not (v.correct and v.scorable)}
    for prompt in prompts:
        if prompt.reference in refused:
            reason = refused[prompt.reference]
            question = " ".join(prompt.messages[-1]["content"].split())[:60]
            # By its text: these prompts may be a sample of the data set, so their number would mislead.
            raise DataError(
                f"{question!r} (id {prompt.id}): reference {_brief(prompt.reference)!r} does not verify against itself"
                + (f" ({reason})" if reason else "")
                + f"; {len(refused)} of {len(references)} references do not: mend or drop them, or change the verifier"
            )


def _brief(reference: str, most: int = 120) -> str:
    return reference if len(reference) <= most else f"...{reference[-most:]}"


__all__ = [
    "BENCHMARK_SOURCES",
    "DATA_SOURCES",
    "Benchmark",
    "DataSource",
    "Hub",
    "Local",
    "Prompt",
    "ReasoningGym",
    "check_references",
    "content_key",
    "render",
]
