"""The tracking libraries, one class each; all of them write to this machine where no server answers."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from concise_rl.errors import UserError, printable
from concise_rl.reporting.tracking.tracker import TABLE_COLUMNS, Backend, TrackedRun

_CONNECT_SECONDS = 3.0
_WAIT_SECONDS = 30

Warn = Callable[[str], None]


class Wandb:
    """Weights & Biases: online with a key and a server that answers; else an offline run in the run folder."""

    def start(self, run: TrackedRun, warn: Warn) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE")
        if not mode:
            answers = reachable(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
            mode = "online" if answers and wandb.login(prompt=False) else "offline"
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=_WAIT_SECONDS, finish_timeout=_WAIT_SECONDS, x_disable_stats=True
        )
        self.run = wandb.init(
            project=run.project, name=run.name, group=run.group, tags=list(run.tags), dir=str(run.folder),
            config=dict(run.config), id=run.id, resume="allow", mode=mode, settings=settings,
        )  # fmt: skip
        if mode == "offline":
            warn(f"wandb logs offline: upload it later with `wandb sync {run.folder / 'wandb'}/offline-run-*`")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def log_table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        import wandb

        self.run.log({"completions": wandb.Table(columns=list(TABLE_COLUMNS), data=list(rows))}, step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        self.run.summary.update(dict(summary))
        self.run.finish()


class Trackio:
    """Hugging Face's trackio: a database on this machine (`trackio show`), or the Space of TRACKIO_SPACE_ID."""

    def start(self, run: TrackedRun, warn: Warn) -> None:
        import trackio

        space = os.environ.get("TRACKIO_SPACE_ID")
        if space and not reachable(os.environ.get("HF_ENDPOINT", "https://huggingface.co")):
            os.environ.pop("TRACKIO_SPACE_ID")
            warn(f"trackio logs on this machine, as the hub does not answer: `trackio sync` brings it to {space} later")
        config = {**run.config, "tags": list(run.tags), "run_id": run.id}
        # It prints a banner of several lines into the progress display.
        with contextlib.redirect_stdout(io.StringIO()):
            self.run = trackio.init(
                run.project, run.name, run.group, config=config, resume="allow" if run.step else "never", embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def log_table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        import trackio

        self.run.log({"completions": trackio.Table(columns=list(TABLE_COLUMNS), data=[*map(list, rows)])}, step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()


class TensorBoard:
    """Event files in the folder `tensorboard` of the run; a resumed run replaces what it forgot."""

    def start(self, run: TrackedRun, warn: Warn) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1 if run.step else None)
        if not run.step:
            about = {"name": run.name, "group": run.group, "tags": list(run.tags), "id": run.id, **run.config}
            self.writer.add_text("config", _markdown([["setting", "value"], *_settings(about).items()]))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def log_table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        self.writer.add_text("completions", _markdown([TABLE_COLUMNS, *rows]), step)

    def finish(self, summary: Mapping[str, float]) -> None:
        if summary:
            self.writer.add_text("summary", _markdown([["measure", "value"], *summary.items()]))
        self.writer.close()


class Mlflow:
    """MLflow: the server of MLFLOW_TRACKING_URI, or mlflow's own store in the current folder (`mlflow ui`)."""

    def start(self, run: TrackedRun, warn: Warn) -> None:
        # Its client would try a server that is gone for many minutes, inside a training step.
        for name, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "10")):
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        import mlflow

        server = mlflow.get_tracking_uri()
        if server.startswith("http") and not reachable(server):
            server = f"file:{run.folder.resolve() / 'mlruns'}"
            warn(f"mlflow logs into {run.folder / 'mlruns'}, as the server of MLFLOW_TRACKING_URI does not answer")
        if server.startswith("sqlite:") and importlib.util.find_spec("sqlalchemy") is None:  # mlflow-skinny
            server = f"file:{Path('mlruns').resolve()}"
        if server.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self.client = mlflow.MlflowClient(server)
        project = self.client.get_experiment_by_name(run.project)
        experiment = project.experiment_id if project else self.client.create_experiment(run.project)
        known = self.client.search_runs([experiment], f"tags.`concise_rl.id` = '{run.id}'", max_results=1)
        if known:
            self.id = known[0].info.run_id
            return
        tags = {"concise_rl.id": run.id, "concise_rl.tags": ",".join(run.tags), "concise_rl.group": run.group or ""}
        self.id = self.client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        for name, value in _settings(run.config).items():
            self.client.log_param(self.id, name.replace("[", ".").replace("]", ""), value[:500])

    def log(self, values: Mapping[str, float], step: int) -> None:
        import time

        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.id, [Metric(name, value, now, step) for name, value in values.items()])

    def log_table(self, rows: Sequence[Sequence[Any]], step: int) -> None:
        self.client.log_text(self.id, _markdown([TABLE_COLUMNS, *rows]), f"completions/step-{step}.md")

    def finish(self, summary: Mapping[str, float]) -> None:
        for name, value in summary.items():
            self.client.log_metric(self.id, name, value)
        self.client.set_terminated(self.id)


BACKENDS: dict[str, type[Backend]] = {
    "wandb": Wandb, "trackio": Trackio, "tensorboard": TensorBoard, "mlflow": Mlflow,
}  # fmt: skip


def check_tracker(name: str) -> None:
    """Refuse a tracker that is not known or not installed.

    Raises:
        UserError: names the remedy.
    """
    if name not in BACKENDS:
        raise UserError(f"tracking.tracker={name!r}: choose tracking=none or one of {', '.join(BACKENDS)}")
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"tracking={name} needs the package {name}: pip install 'concise-rl[{name}]', or leave out tracking="
        )


def reachable(server: str) -> bool:
    """Whether a server takes connections within seconds."""
    address = urlsplit(server)
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _settings(config: Mapping[str, Any], place: str = "") -> dict[str, str]:
    """Settings by dotted names, as text."""
    found: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= _settings(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = str(value)
    return found


def _markdown(rows: Sequence[Sequence[Any]]) -> str:
    """A table whose cells are code, so that nothing that a model wrote is read as markup."""
    header, *body = rows

    def cell(value: Any) -> str:
        text = f"{value:.6g}" if isinstance(value, float) else " ".join(printable(str(value)).split())
        return f"`{text.replace('`', chr(39)).replace('|', '¦')}`"

    lines = [" | ".join(map(str, header)), " | ".join("---" for _ in header)]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(map(cell, row)) for row in body)])
