"""`concise-rl pipeline`: stages of one recipe, each a command of its own, resumable, with what it read pinned.

A stage is finished once `pipeline.json` says so, with its arguments and the checksums of what it read and wrote. The
same call goes on with the first stage that is not; what changed since is refused, not guessed at.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from concise_rl.errors import DataError, UserError, printable
from concise_rl.files import feed, replace_text
from concise_rl.methods.registry import RECIPES, closest, recipe_names

RECORD = "pipeline.json"
COMMANDS = ("sample", "select", "tune", "merge", "train", "eval")
RESUMED = ("tune", "train")
"""Commands that go on from their last checkpoint with `resume=auto`; the others do it by themselves, or begin anew."""

HELP = """\
concise-rl pipeline: the stages of a recipe, one after the other

usage: concise-rl pipeline recipe=NAME|FILE.yaml [dir=DIR] [from=STAGE] [NAME=VALUE ...] [STAGE.KEY=VALUE ...]

  recipe=kimi_long2short     recipes/pipeline/*.yaml, or a file of your own
  dir=runs/kimi              where all stages write (default: runs/ and the recipe's name)
  model=qwen3_1.7b           a setting that the recipe lists under `settings`
  sample.evaluation.samples=16   an override of one stage, by its name
  from=tune                  run this stage and all after it anew; what they wrote is removed

The same call goes on where it stopped. `--list` shows the recipe's stages and what is finished.
"""


@dataclass(frozen=True)
class Stage:
    """One command of a pipeline.

    Attributes:
        name: in the recipe, unique.
        command: of `concise-rl`.
        arguments: its own, paths filled in.
        reads: files and model folders that earlier stages or the user made.
        writes: what it leaves, in the pipeline's folder.
    """

    name: str
    command: str
    arguments: tuple[str, ...]
    reads: tuple[Path, ...]
    writes: tuple[Path, ...]


def main(arguments: Sequence[str]) -> None:
    """Read the recipe, and run what is not finished."""
    if not arguments or {"-h", "--help"} & set(arguments):
        sys.stdout.write(HELP)
        return
    given = dict(item.partition("=")[::2] for item in arguments if item != "--list")
    if "recipe" not in given:
        raise UserError(f"recipe= is not given: choose one of {', '.join(recipe_names('pipeline'))}, or a .yaml file")
    recipe = read_recipe(given.pop("recipe"))
    folder = Path(given.pop("dir", f"runs/{recipe['name']}"))
    start = given.pop("from", None)
    stages = stages_of(recipe, folder, given)
    record = read_record(folder)
    if "--list" in arguments:
        for stage in stages:
            say(f"{'done' if stage.name in record else '    '}  {stage.name:16} {' '.join(command_of(stage))}")
        return
    if start is not None:
        begin_anew(stages, start, record, folder)
    run(stages, record, folder)


def read_recipe(name: str) -> dict[str, Any]:
    """The recipe of a name, or of a file.

    Raises:
        UserError: there is none, or it is not made of stages.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / "pipeline" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"recipe={name} is not known{closest(name, recipe_names('pipeline'))}")
    try:
        recipe = yaml.safe_load(path.read_text())
        names = [stage["name"] for stage in recipe["stages"]]
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"recipe={path} cannot be used ({' '.join(str(error).split())}): it needs stages") from error
    if len(set(names)) < len(names):
        raise UserError(f"recipe={path}: two stages have one name")
    for stage in recipe["stages"]:
        if stage.get("command") not in COMMANDS:
            raise UserError(
                f"recipe={path}, stage {stage['name']}, command={stage.get('command')!r}: choose of "
                f"{', '.join(COMMANDS)}"
            )
    return {"name": path.stem, "settings": {}, **recipe}


def stages_of(recipe: Mapping[str, Any], folder: Path, given: Mapping[str, str]) -> list[Stage]:
    """The stages with settings and overrides filled in.

    Raises:
        UserError: no such setting or stage, or a placeholder that nothing fills.
    """
    names = [stage["name"] for stage in recipe["stages"]]
    settings = {name: str(value) for name, value in recipe["settings"].items()}
    more: dict[str, list[str]] = {name: [] for name in names}
    for key, value in given.items():
        stage, _, field = key.partition(".")
        if key in settings:
            settings[key] = value
        elif stage in more and field:
            more[stage].append(f"{field}={value}")
        else:
            raise UserError(
                f"{key}={value}: recipe={recipe['name']} has the settings {', '.join(settings) or 'none'} and the "
                f"stages {', '.join(names)}{closest(stage, [*settings, *names])}"
            )
    known = settings | {"dir": str(folder)}

    def fill(text: Any) -> str:
        try:
            return str(text).format_map(known)
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(f"recipe={recipe['name']}: {text!r} names a setting that is not there ({error})") from error

    return [
        Stage(
            stage["name"],
            stage["command"],
            (*map(fill, stage.get("arguments", [])), *more[stage["name"]]),
            tuple(Path(fill(path)) for path in stage.get("reads", [])),
            tuple(Path(fill(path)) for path in stage.get("writes", [])),
        )
        for stage in recipe["stages"]
    ]


def read_record(folder: Path) -> dict[str, Any]:
    """What is finished, by stage.

    Raises:
        DataError: the file is damaged.
    """
    try:
        return json.loads((folder / RECORD).read_bytes())["stages"]
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / RECORD} cannot be used ({error}): choose another dir, or remove it") from error


def begin_anew(stages: Sequence[Stage], start: str, record: dict[str, Any], folder: Path) -> None:
    """Forget a stage and all after it, and remove what they wrote in the pipeline's folder.

    Raises:
        UserError: no stage has this name.
    """
    names = [stage.name for stage in stages]
    if start not in names:
        raise UserError(f"from={start} is not known{closest(start, names)}")
    for stage in stages[names.index(start) :]:
        record.pop(stage.name, None)
        remove(stage, folder)
    write_record(folder, record)


def remove(stage: Stage, folder: Path) -> None:
    """What a stage wrote in the pipeline's folder; a training run's folder goes whole."""
    for path in stage.writes:
        path = path.parent if stage.command in RESUMED else path
        if folder.resolve() not in path.resolve().parents:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / RECORD, json.dumps({"stages": record}, indent=2) + "\n")


def run(stages: Sequence[Stage], record: dict[str, Any], folder: Path) -> None:
    """Run the stages that are not finished.

    Raises:
        UserError: what a finished stage read, wrote or was asked for is another now.
    """
    known: dict[str, str] = {}  # no stage runs before all are checked, and a model is written by one and read by more
    for stage in stages:
        if stage.name in record:
            check_unchanged(stage, record[stage.name], known)
    for place, stage in enumerate(stages, start=1):
        if stage.name in record:
            say(f"stage {place} of {len(stages)}, {stage.name}: done before")
            continue
        read = {str(path): checksum(path, stage.name) for path in stage.reads}
        command = command_of(stage, resume=True)
        say(f"stage {place} of {len(stages)}, {stage.name}: {' '.join(command)}")
        if stage.command == "merge":
            remove(stage, folder)  # merged, but the process died before the record said so
        started = time.time()
        folder.mkdir(parents=True, exist_ok=True)
        code = subprocess.run([sys.executable, "-m", "concise_rl.cli", *command], check=False).returncode
        if code:
            sys.stderr.write(f"stage {stage.name} ended with exit code {code}; the same command goes on from here\n")
            sys.exit(code if code > 0 else 128 - code)
        written = {str(path): checksum(path, stage.name) for path in stage.writes}
        facts = {"command": command_of(stage), "read": read, "written": written, "seconds": time.time() - started}
        record[stage.name] = facts
        write_record(folder, record)
    say(f"all {len(stages)} stages are done: {folder}")


def command_of(stage: Stage, *, resume: bool = False) -> list[str]:
    """The words behind `concise-rl`."""
    return [stage.command, *stage.arguments, *(["resume=auto"] if resume and stage.command in RESUMED else [])]


def check_unchanged(stage: Stage, facts: Mapping[str, Any], known: dict[str, str]) -> None:
    """Raises `UserError` where a finished stage does not stand for what would be run now.

    Args:
        known: path to checksum, of what was looked at before; is added to.
    """
    if facts["command"] != command_of(stage):
        before, now = set(facts["command"]), set(command_of(stage))
        raise UserError(
            f"stage {stage.name} was run with {' '.join(sorted(before - now)) or 'less'}, now it has "
            f"{' '.join(sorted(now - before)) or 'less'}: keep it, run it and what follows anew with "
            f"from={stage.name}, or choose another dir"
        )
    for kind, files in (("read", facts["read"]), ("wrote", facts["written"])):
        for path, before in files.items():
            if path not in known:
                known[path] = checksum(Path(path), stage.name)
            if known[path] != before:
                raise UserError(
                    f"{path} changed since stage {stage.name} {kind} it: bring it back, or run from there anew with "
                    f"from={stage.name}"
                )


def checksum(path: Path, stage: str) -> str:
    """sha256 of a file, or of the names and contents of a folder.

    Raises:
        UserError: it is to be there and is not.
    """
    digest = hashlib.sha256()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    if not path.exists():
        raise UserError(f"stage {stage}: {path} is missing: run the stage that makes it anew, from=")
    for file in files:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode() if file != path else b"")
            feed(digest, file)
    return digest.hexdigest()


def say(text: str) -> None:
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()
