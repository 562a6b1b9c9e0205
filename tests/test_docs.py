"""Every command of the README and of docs/ is one that the program takes.

`train`, `eval` and `plan` are composed and their components built, other commands go through their own parsers, scripts
must exist and know their options, `make` must know the target. What a command then does is tested where it belongs.
"""

from __future__ import annotations

import argparse
import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest

from concise_rl import cli
from concise_rl.commands import config, pipeline
from concise_rl.commands.evaluate import planned

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMAND = re.compile(r"\s*([A-Z_]+=\S+ )*(concise-rl|make|python3?|accelerate|sbatch|pip|pytest|launch/\w\S*) ")
TINY = str(ROOT / "concise_rl" / "assets" / "tiny")
PLACEHOLDERS = {"METHOD": "hapo", "SEED": "0", "runs/demo/model": TINY, "runs/demo/checkpoint-16": TINY}
PLACEHOLDER = re.compile(rf"(?<==)({'|'.join(PLACEHOLDERS)})$")
VIEWERS = {"tensorboard", "wandb", "trackio", "mlflow"}  # programs of trackers, not ours to check


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the page's fenced and indented blocks."""
    text = page.read_text()
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    indented = re.findall(r"(?:\n\n|\A)((?:    [^\n]*\n)+)", prose)
    return fenced + [("", block) for block in indented]


def commands(page: Path) -> list[list[str]]:
    """The words of each command on the page; every line of a bash block must be one."""
    found = []
    for language, block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            if not COMMAND.match(line.replace('eval "$(', "") + " "):
                assert language != "bash" or not line.partition("#")[0].strip(), f"{page.name}: what is `{line}`?"
                continue
            for part in re.sub(r'^eval "\$\((.*)\)"', r"\1", line.strip()).split(" && "):
                words = shlex.split(part, comments=True)
                while re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words.pop(0)
                found.append(words)
    return found


class Parsed(Exception):
    """The parser took the arguments."""


def parse_only(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_leave(self, *arguments, **named):
        parse(self, *arguments, **named)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_leave)


def composes(overrides: list[str]) -> None:
    """A training run: of a sweep, the first of each list."""
    if "--config-dir" in overrides:  # recipes of the reader's own, such as `concise-rl init` writes
        return
    sweep = "-m" in overrides
    overrides = [item for item in overrides if item not in ("-m", "...")]
    if sweep:
        overrides = [re.sub(r"=([^\[{]*?),.*", r"=\1", item) for item in overrides]
    composed = config.compose(overrides)
    config.trainer_fields(composed)
    if not any(".py:" in item for item in overrides):  # tests/methods/test_adding_a_method.py makes those files
        config.method_of(composed)


def check_program(arguments: list[str]) -> None:
    command, *rest = [PLACEHOLDER.sub(lambda found: PLACEHOLDERS[found[1]], item) for item in arguments]
    if command == "train":
        composes(rest)
    elif command == "eval":
        rest = [item for item in rest if item != "..."]
        planned(config.compose(rest, "eval"), "chosen", rest)
    elif command in ("sample", "select", "tune"):
        config.compose(rest, command)
    elif command == "pipeline":
        given = dict(item.partition("=")[::2] for item in rest if not item.startswith("--"))
        recipe = pipeline.read_recipe(given.pop("recipe"))
        own = {key: value for key, value in given.items() if key not in ("dir", "from")}
        assert pipeline.stages_of(recipe, Path("runs"), own)
    elif command == "plan":
        from concise_rl.planning import PlanRequest

        PlanRequest.of(rest)
    elif not command.startswith("-"):
        with suppress(Parsed):  # one without a parser runs
            cli.COMMANDS[command](rest)


def check_script(words: list[str]) -> None:
    """`python benchmarks/x.py --option`, `python -m concise_rl.x`, `python -m pytest tests/x.py`."""
    if words[0] == "-m":
        module, rest = words[1], words[2:]
        if module == "pytest":
            return check_paths(rest)
        file = ROOT / (module.replace(".", "/") + ".py")
        assert file.exists() or (file.with_suffix("") / "__main__.py").exists(), module
        return composes(rest) if module == "concise_rl.train" else None
    source = (ROOT / words[0]).read_text()
    for option in (word for word in words[1:] if word.startswith("--")):
        assert f'"{option.partition("=")[0]}"' in source, f"{words[0]} has no {option}"
    return None


def check_paths(words: list[str]) -> None:
    for word in words:
        if "/" in word and not word.startswith("-"):
            assert (ROOT / word.partition("::")[0]).exists(), word


def check_pip(words: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for extras in re.findall(r"concise-rl\[([\w,]+)\]", " ".join(words)):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.M), f"there is no extra {extra}"
    for file in re.findall(r"-[rc] (\S+)", " ".join(words)):
        assert (ROOT / file).exists(), file


def check(words: list[str], targets: set[str]) -> None:
    program, rest = words[0], words[1:]
    if program == "concise-rl":
        check_program(rest)
    elif program == "make":
        assert {word for word in rest if "=" not in word} <= targets, rest
    elif program in ("python", "python3"):
        check_script(rest)
    elif program == "accelerate":
        assert (ROOT / rest[rest.index("--config_file") + 1]).exists(), rest
        check_script(rest[rest.index("-m") :])
    elif program == "pytest":
        check_paths(rest)
    elif program == "pip":
        check_pip(rest)
    elif program == "sbatch" or program.startswith("launch/"):
        file, *overrides = rest if program == "sbatch" else words
        assert (ROOT / file).exists(), file
        composes([item for item in overrides if not item.startswith("--")])
    elif program not in VIEWERS:
        raise AssertionError(f"no check for `{' '.join(words)}`: add one")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_taken(page, monkeypatch):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    parse_only(monkeypatch)
    for words in commands(page):
        try:
            check(words, targets)
        except (ValueError, OSError, KeyError, SystemExit) as error:
            raise AssertionError(f"{page.name}: `{' '.join(words)}`: {error}") from error


def test_commands_for_a_gpu_say_so():
    """A reader with a laptop sees it before the command, or in its comment."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^.*(?:\brun=gpu\w*|\blaunch/\w*(?:gpu|nodes)\w*\.s).*$", text, re.M):
            if re.match(r" *(concise-rl|launch|sbatch|[A-Z_]+=|method=|--)", found[0]):
                assert "GPU" in text[: found.end()][-1200:], (
                    f"{page.name}: `{found[0]}` does not say that it needs a GPU"
                )


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_pages_have_commands():
    """The search above finds what is there."""
    found = {str(page.relative_to(ROOT)): len(commands(page)) for page in PAGES}
    assert found["README.md"] > 10
    assert found["docs/methods/hapo.md"] == 3
    assert sum(found.values()) > 150
