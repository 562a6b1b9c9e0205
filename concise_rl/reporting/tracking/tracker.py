"""What every tracker is told, under one set of names: `train/`, `eval/` and `method/`."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from concise_rl.rollouts import StepRecord

logger = logging.getLogger(__name__)

TABLE_COLUMNS = ("step", "problem", "completion", "tokens", "correct", "task reward", "shaped reward", "credit")
TABLE_ROWS = 16

_TRAINER_PREFIXES = ("completions", "rewards", "clip_ratio", "sampling", "vllm", "tools")
"""Of metrics that the trainer logs with a slash in their names; all others with one are a component's."""

_OF_THE_SUMMARY = ("accuracy", "mean_tokens", "mean_tokens_correct", "mean_tokens_wrong", "oracle_ratio",
                   "truncated_frac", "unscorable_frac", "mean_think_tokens")  # fmt: skip
_OF_THE_CHANGE = ("accuracy_points", "tokens_percent", "aes")


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker knows of a run before its first step.

    Attributes:
        folder: the run folder.
        id: of this run, the same when it is resumed.
        name, project, group, tags: under which it is found.
        config: the resolved configuration, plain values.
        step: the run goes on from here; 0 for a new one.
    """

    folder: Path
    id: str
    name: str
    project: str = "concise-rl"
    group: str | None = None
    tags: Sequence[str] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0


class Backend(Protocol):
    """One tracking library. Any method may raise: the tracker then is off for the rest of the run."""

    def start(self, run: TrackedRun, warn: Callable[[str], None]) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def log_table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        """Completions, with the columns `TABLE_COLUMNS`."""
        ...

    def finish(self, summary: Mapping[str, float]) -> None: ...


class Tracker:
    """A sink that hands steps, evaluations and completions to a tracking library; made on the main process alone.

    Any failure, from a lost connection to a bug in the library, is one warning; after it the tracker does nothing.

    Args:
        name: of the library, for the warning.
        backend: the library.
        run: what it is told first.
        completions_every: steps between two tables of completions, 0 for none.
        warn: receives the warning.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        run: TrackedRun,
        *,
        completions_every: int = 10,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        self.name, self.backend = name, backend
        self.completions_every = completions_every
        self.active = True
        self._warn = warn
        self._guard(backend.start, run, warn)

    def on_rollouts(self, record: StepRecord) -> None:
        """Log the first completions of a step, every few generations."""
        if self.completions_every and record.batch.step % self.completions_every == 0:
            self._guard(self.backend.log_table, completion_rows(record), record.batch.step + 1)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one optimizer step."""
        self._guard(self.backend.log, {tracked_name(key): value for key, value in metrics.items()}, step)

    def on_validation(self, entry: Mapping[str, Any]) -> None:
        """Log an evaluation in training, an entry of `concise_rl.evaluation.validation`."""
        change = {f"change/{key}": (entry["change"] or {}).get(key) for key in _OF_THE_CHANGE}
        found = {key: entry.get(key) for key in _OF_THE_SUMMARY} | change
        self._guard(self.backend.log, _numbers({f"eval/{key}": value for key, value in found.items()}), entry["step"])

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Store the numbers of the summary, as `before/accuracy`, and close the run."""
        self._guard(self.backend.finish, _numbers(_flat(summary or {})))
        self.active = False

    def _guard(self, call: Callable[..., None], *arguments: Any) -> None:
        # The one place of the package where every exception is caught: a tracker is never worth a training run.
        if not self.active:
            return
        try:
            call(*arguments)
        except Exception as error:
            self.active = False
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._warn(f"{self.name} is off for the rest of this run ({reason})")


def tracked_name(key: str) -> str:
    """A metric's name in every tracker: `method/...` for what a component logs, else `train/...`."""
    prefix, slash, _ = key.partition("/")
    return f"method/{key}" if slash and prefix not in _TRAINER_PREFIXES else f"train/{key}"


def completion_rows(record: StepRecord) -> list[list[Any]]:
    """The first `TABLE_ROWS` rows of a step, with the columns `TABLE_COLUMNS`."""
    batch = record.batch
    credit_N = record.credit_N
    return [
        [
            batch.step + 1,
            record.prompts[n // batch.group_size],
            record.completions[n],
            int(batch.lengths[n]),
            bool(batch.correct[n]),
            float(batch.task_reward[n]),
            float(record.reward[n]),
            float(credit_N[n]),
        ]
        for n in range(min(TABLE_ROWS, batch.n_rows))
    ]


def _flat(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{place}{key}/") if isinstance(value, Mapping) else {f"{place}{key}": value}
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
