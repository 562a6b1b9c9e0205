"""The folder of one run: what it may hold at a start, what a run goes on from, going back to an older checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from concise_rl.engine import checkpoint
from concise_rl.errors import DataError, UserError
from concise_rl.files import clear_unfinished, replace_text, sole_writer

FINAL_FILES = ("summary.json", "evaluation-after.jsonl", "training.png", "report.html", "best.json")
"""What the end of a run leaves."""

TRAINED_ON = "trained_on.json"
"""Content keys of the questions that a run trains on, in its folder and in its `model/`."""

RUN_FILES = (
    "config.json", "run.json", "metrics.jsonl", "rollouts.jsonl", "evaluation-before.jsonl", "validation.jsonl",
    "validation-start.jsonl", TRAINED_ON, *FINAL_FILES,
)  # fmt: skip
"""What a run writes into its folder beside `checkpoint-*` and `model`; `overwrite=true` removes these alone."""

LOCK_FILE = ".lock"
GOING_BACK = ".going-back"
"""Names step and folder of a going back that has begun; a process that dies in it leaves the rest to the next one."""


def run_lock(folder: Path) -> AbstractContextManager[None]:
    """While this is open no other process runs in the folder; see `sole_writer`."""
    return sole_writer(folder / LOCK_FILE, "run.dir", folder, wait="wait for that run or end it")


def prepare(folder: Path, *, resume: str, overwrite: bool) -> None:
    """Refuse to mix two runs in one folder, and clear up what a killed process left; call it under `run_lock`.

    Raises:
        UserError: the folder holds a run and neither resume nor overwrite was asked for, it cannot be written, or a
            link in it leads elsewhere.
    """
    _check_links(folder)
    if resume == "never" and _holds_a_run(folder):
        if not overwrite:
            raise UserError(
                f"run.dir={folder} already holds a run: go on with resume=auto, "
                "choose another run.dir, or throw it away with overwrite=true"
            )
        checkpoint.clean_staging(folder)
        for name in (GOING_BACK, *RUN_FILES):
            (folder / name).unlink(missing_ok=True)
        for old in [*folder.glob("checkpoint-*"), folder / "model"]:
            shutil.rmtree(old, ignore_errors=True)
    checkpoint.clean_staging(folder)
    clear_unfinished(folder)
    _finish_going_back(folder)


def _holds_a_run(folder: Path) -> bool:
    """Steps or weights: what an attempt that failed before its first step leaves does not block the next one."""
    metrics = folder / "metrics.jsonl"
    return (
        bool(checkpoint.steps(folder))
        or (folder / "model").exists()
        or (metrics.exists() and metrics.stat().st_size > 0)
    )


def _check_links(folder: Path) -> None:
    try:
        for name in (*RUN_FILES, "model", "wandb", ".writable", GOING_BACK, LOCK_FILE):
            if (folder / name).is_symlink():
                raise UserError(
                    f"{folder / name} is a symbolic link, and a run writes into its own folder alone: "
                    "remove it, or choose another run.dir"
                )
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"run.dir={folder} cannot be written ({error.strerror}): choose another run.dir") from error


def find_checkpoint(folder: Path, resume: str, tell: Callable[[str], None], warn: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from: none, the newest complete one, or the one that was named.

    Args:
        tell: hears from which step the run goes on.
        warn: hears of each checkpoint that is skipped.

    Raises:
        UserError: the named one is damaged, or the run would mix with another one in the folder.
    """
    if resume == "never":
        return None
    if resume == "auto":
        found = checkpoint.newest_complete(folder, warn)
        if found is None:
            tell(f"resume=auto: {folder} holds no checkpoint, so this run starts from step 0")
            return None
    else:
        found = Path(resume)
        damage = checkpoint.verify(found)
        if damage:
            raise UserError(f"resume={resume}: {damage}; name a complete checkpoint folder, or use resume=auto")
        if not _lies_in(found, folder) and _holds_a_run(folder):
            raise UserError(
                f"run.dir={folder} holds a run, and resume={resume} is another one's: go on with resume=auto, or "
                "choose another run.dir"
            )
    tell(f"going on from step {checkpoint.step_of(found)} ({found})")
    return found


def _lies_in(found: Path, folder: Path) -> bool:
    return found.resolve().parent == folder.resolve()


def begin_steps(folder: Path, start: Path | None, train: Sequence[Any], tell: Callable[[str], None]) -> None:
    """The last thing before the first step: leave what is later than the start, and write down what is trained on.

    Args:
        start: the checkpoint that was named; None where none was.

    Raises:
        UserError: the folder cannot be written.
    """
    if start is not None:
        go_back(folder, start, tell)
    replace_text(folder / TRAINED_ON, json.dumps({"questions": [question_key(prompt) for prompt in train]}))


def go_back(folder: Path, start: Path, tell: Callable[[str], None]) -> None:
    """A run that goes on from an older checkpoint of its own leaves what came after it; it is kept in a folder aside.

    Later checkpoints, lines of the logs, the trained model and the reports go to `before-going-back-<n>`. Killed in the
    middle, the next start finishes it. Nothing happens where nothing is later.

    Raises:
        UserError: the folder cannot be written.
    """
    step = checkpoint.step_of(start)
    if not _lies_in(start, folder) or max(checkpoint.steps(folder)) == step:
        return
    number = 1 + sum(1 for _ in folder.glob("before-going-back-*"))
    aside = folder / f"before-going-back-{number}"
    replace_text(folder / GOING_BACK, json.dumps({"step": step, "aside": aside.name}))
    _finish_going_back(folder)
    tell(f"everything after step {step} was moved to {aside}: delete it when you no longer want it")


def _finish_going_back(folder: Path) -> None:
    plan = folder / GOING_BACK
    if not plan.exists():
        return
    try:
        going = json.loads(plan.read_text())
        step, aside = int(going["step"]), folder / Path(going["aside"]).name
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{plan} cannot be used ({error}): remove it, and name the checkpoint again") from error
    with checkpoint.saving(aside):
        aside.mkdir(exist_ok=True)
        checkpoint.discard_after(folder, step, aside)
        for name in ("metrics.jsonl", "rollouts.jsonl", "validation.jsonl"):
            _split_log(folder / name, aside / name, step)
        for name in (*FINAL_FILES, "model"):
            if (folder / name).exists():
                os.rename(folder / name, aside / name)
        plan.unlink()


def _split_log(path: Path, aside: Path, step: int) -> None:
    """Lines of steps after `step` into a file of their own; what a kill tore is dropped when training begins."""
    if not path.exists():
        return
    kept = 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                if json.loads(line)["step"] > step:
                    break
            except (KeyError, TypeError, ValueError):
                break
            kept += len(line)
        lines.seek(kept)
        later = lines.read()
    if later:
        with aside.open("wb") as file:
            file.write(later)
            file.flush()
            os.fsync(file.fileno())
        os.truncate(path, kept)


def check_stored_evaluation(path: Path, settings: Mapping[str, Any], otherwise: str = "remove that file") -> None:
    """Refuse, before anything is trained, a stored evaluation that the one after training could not be compared with.

    Args:
        path: `evaluation-before.jsonl`; one that is not there passes, as does one without settings of a run.
        settings: of the evaluation that would be made now, by dotted names.
        otherwise: what has the start evaluated again.

    Raises:
        UserError: they differ; names the first setting.
    """
    from concise_rl.evaluation.store import read

    if not path.exists():
        return
    stored: Any = read(path)[0].get("run")
    for name in (
        sorted({*stored, *settings}, key=lambda name: (name == "data", name)) if isinstance(stored, dict) else ()
    ):
        before, now = json.dumps(stored.get(name)), json.dumps(settings.get(name))
        if before != now:
            raise UserError(
                f"{name}={now}, {path} was made with {before}, so before and after could not be compared: keep it, or "
                f"{otherwise}, and the start is evaluated again"
            )


def without_test_problems(train: Sequence[Any], test: Sequence[Any], tell: Callable[[str], None]) -> list[Any]:
    """The training problems that are no test problems too; their questions tell, whatever their answers look like.

    Raises:
        DataError: none is left.
    """
    tested = {question_key(prompt) for prompt in test}
    kept = [prompt for prompt in train if question_key(prompt) not in tested]
    if not kept:
        raise DataError("data: every training problem is a test problem too: name another test split, or test_path")
    if len(kept) < len(train):
        tell(f"{len(train) - len(kept)} of {len(train)} training problems are test problems too, and are left out")
    return kept


def check_not_trained_on(model_path: str, benchmark: str, prompts: Sequence[Any]) -> None:
    """Refuse a benchmark some of whose problems a model was trained on, as its run wrote them down.

    Args:
        model_path: a `model/` or a checkpoint of a run; any other path passes.

    Raises:
        DataError: names the benchmark and the first such problem.
    """
    folder = Path(model_path).expanduser()
    for path in (folder / TRAINED_ON, folder.parent / TRAINED_ON):
        if path.is_file():
            break
    else:
        return
    try:
        trained = set(json.loads(path.read_bytes())["questions"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be used ({error}): take it from the run's folder again") from error
    shared = [prompt for prompt in prompts if question_key(prompt) in trained]
    if shared:
        question = " ".join(shared[0].messages[-1]["content"].split())[:60]
        raise DataError(
            f"{model_path} was trained on {len(shared)} of the {len(prompts)} problems of {benchmark}, the first is "
            f"{question!r}: evaluate on other problems, or train on others"
        )


def question_key(prompt: Any) -> str:
    """A content key of the question alone: data sets write the same answer in different ways."""
    from concise_rl.data import content_key

    return content_key(*(" ".join(message["content"].split()) for message in prompt.messages))
