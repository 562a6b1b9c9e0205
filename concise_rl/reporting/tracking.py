"""Weights & Biases as a guest: offline by itself, silent after its first failure, and never able to stop a run."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from concise_rl.reporting.run_log import plain

if TYPE_CHECKING:
    from concise_rl.rollouts import StepRecord

logger = logging.getLogger(__name__)

_TABLE_COLUMNS = ["step", "prompt", "completion", "tokens", "correct", "task reward", "shaped reward", "credit"]
_CONNECT_SECONDS = 3.0
_WAIT_SECONDS = 30


class WandbSink:
    """Logs metrics each step and a table of completions every few steps; made on the main process alone.

    Any failure, from a missing package to a lost connection, is one warning, after which the tracker does nothing.
    Without a key or a network it writes an offline run into the folder; `wandb sync` uploads that later.

    Args:
        folder: where the run's `wandb/` folder goes.
        config: the resolved configuration.
        project: W&B project.
        name: of the run; W&B invents one if None.
        completions_every: steps between two tables, 0 for none.
        completions: rows of a table, the first of the step.
        warn: receives the warning.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        project: str = "concise-rl",
        name: str | None = None,
        completions_every: int = 10,
        completions: int = 16,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        self.completions_every = completions_every
        self.completions = completions
        self._warn = warn
        self._run: Any = None
        self._guard(self._start, project, Path(folder), config or {}, name)

    @property
    def active(self) -> bool:
        """Whether steps are being logged."""
        return self._run is not None

    def on_rollouts(self, record: StepRecord) -> None:
        """Log a table of completions, every few generations."""
        if self.active and self.completions_every and record.batch.step % self.completions_every == 0:
            self._guard(self._log_table, record)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one optimizer step."""
        if self.active:
            self._guard(lambda: self._run.log(dict(metrics), step=step))

    def finish(self, summary: Mapping[str, Any] | None = None) -> None:
        """Store the summary and close the run."""
        if self.active:
            self._guard(self._finish, summary or {})
        self._run = None

    def _guard(self, call: Callable[..., None], *arguments: Any) -> None:
        # The one place of the package where every exception is caught: a tracker is never worth a training run.
        try:
            call(*arguments)
        except Exception as error:
            self._run = None
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            self._warn(f"wandb is off for the rest of this run ({reason})")

    def _start(self, project: str, folder: Path, config: Mapping[str, Any], name: str | None) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or ("online" if reachable(wandb.api.api_key) else "offline")
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=_WAIT_SECONDS, finish_timeout=_WAIT_SECONDS, x_disable_stats=True
        )
        self._run = wandb.init(
            project=project, name=name, dir=str(folder), config=plain(config), mode=mode, settings=settings
        )
        if mode == "offline":
            self._warn(f"wandb logs offline: upload it later with `wandb sync {folder / 'wandb'}/offline-run-*`")

    def _log_table(self, record: StepRecord) -> None:
        import wandb

        batch = record.batch
        credit_N = record.credit if record.credit.ndim == 1 else record.credit.sum(dim=1)
        rows = [
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
            for n in range(min(self.completions, batch.n_rows))
        ]
        table = wandb.Table(columns=_TABLE_COLUMNS, data=rows)
        self._run.log({"completions": table}, step=batch.step + 1)

    def _finish(self, summary: Mapping[str, Any]) -> None:
        self._run.summary.update(plain(summary))
        self._run.finish()


def reachable(api_key: str | None) -> bool:
    """Whether there is a key and the server answers within seconds."""
    if not api_key:
        return False
    server = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    try:
        port = server.port or (80 if server.scheme == "http" else 443)
        socket.create_connection((server.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
