"""What is handed out: a wheel with the same bytes wherever it is built, and pins that cover what is declared."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the lock and its parser are for Python 3.11 and newer", allow_module_level=True)
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned(name: str) -> dict[str, str]:
    """Package to version, of a file of requirements/; every entry must carry a hash."""
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements" / name).read_text().strip())
    found = {}
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), f"{name}: {entry} has no hash"
        package, version = re.match(r"([\w.-]+)==([^\s;]+)", entry).groups()
        found[canonicalize_name(package)] = version
    return found


def declared(*extras: str) -> list[Requirement]:
    chosen = [*PROJECT["dependencies"], *(item for extra in extras for item in PROJECT["optional-dependencies"][extra])]
    found = [Requirement(item) for item in chosen]
    inner = [extra for item in found if item.name == "concise-rl" for extra in item.extras]
    return [item for item in found if item.name != "concise-rl"] + (declared(*inner) if inner else [])


def test_every_dependency_has_a_lower_and_an_upper_bound():
    for requirement in declared(*PROJECT["optional-dependencies"]):
        operators = {part.operator[0] for part in requirement.specifier}
        assert operators == {"<", ">"}, f"{requirement}: pyproject.toml gives a range for every dependency"


@pytest.mark.parametrize(("file", "extras"), [("core.txt", ()), ("test.txt", ("test", "docs", "release"))])
def test_the_lock_holds_what_is_declared(file, extras):
    pins = pinned(file) | {"torch": "2.13.0"}
    for requirement in declared(*extras):
        version = pins.get(canonicalize_name(requirement.name))
        assert version, f"requirements/{file} lacks {requirement.name}: make lock"
        assert version in requirement.specifier, f"requirements/{file} pins {version}, not {requirement}: make lock"
    assert "torch==2.13.0" in (ROOT / "requirements" / "torch.txt").read_text()


def test_core_and_test_pin_one_version_and_name_no_index():
    core, test = pinned("core.txt"), pinned("test.txt")
    assert core.items() <= test.items()
    assert {"pip", "setuptools", "wheel"} <= set(pinned("build.txt"))
    for file in (ROOT / "requirements").iterdir():
        assert "://" not in file.read_text(), f"{file.name} names an index"


def wheel(folder: Path, umask: str) -> bytes:
    """What `make wheel` builds from the last commit under the umask."""
    environment = Path(sys.executable).parent.parent
    arguments = [f"VENV={environment}", f"DIST={folder}", "-o", f"{environment}/.test", "wheel"]
    command = ["sh", "-c", f'umask {umask}; exec make "$@"', "make", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.iterdir()
    return built.read_bytes()


def test_one_commit_makes_one_wheel(tmp_path):
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout: the wheel is built from a commit")
    first, second = wheel(tmp_path / "first", "022"), wheel(tmp_path / "second", "077")
    assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest()


def test_one_version_everywhere():
    for name, line in (("CITATION.cff", "version: {}"), ("CHANGELOG.md", "## {}")):
        assert line.format(PROJECT["version"]) in (ROOT / name).read_text().splitlines(), name
