"""What the site has besides docs/: the README as first page, the API reference, and source files that pages link to.

mkdocs calls the functions that are named after its events.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

import concise_rl
from concise_rl.methods.registry import FOLDERS, SHELVES

ROOT = Path(__file__).parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security_policy.md",
}
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)")
LANGUAGES = {".py": "python", ".sh": "bash", ".sbatch": "bash", ".yaml": "yaml", ".toml": "toml", ".ipynb": "json"}


SHARED = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +.*)*)", re.M)


class OneLineForSeveral(griffe.Extension):
    """`lo, hi: bounds` in a docstring's list stands for both names; griffe reads one name a line."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = SHARED.sub(line_each, obj.docstring.value)


def line_each(found: re.Match[str]) -> str:
    return "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", "))


def on_config(config: Any) -> Any:
    """Puts pages that the navigation does not name behind those that it does, so that each can be reached."""
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    pages = [file.relative_to(ROOT / "docs").as_posix() for folder in (".", "results") for file in markdown(folder)]
    if omitted := [page for page in pages if page not in named]:
        config.nav.append({"More": omitted})
    return config


def markdown(folder: str) -> list[Path]:
    return sorted((ROOT / "docs" / folder).glob("*.md"))


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    generated = {page: (ROOT / name).read_text() for name, page in ROOT_PAGES.items()}
    generated |= {"reference.md": reference(), "components.md": components()}
    texts = generated | {file.src_uri: file.content_string for file in files.documentation_pages()}
    for page, text in texts.items():
        for _, link in LINK.findall(text):
            target = resolved(page, link)
            if site_page(target).startswith("source/"):
                generated |= source_pages(target)
    for page, text in generated.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points links that hold in the repository at the site's pages."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target = resolved(here, match[2])
        if not (ROOT / target).exists():
            return match[0]  # mkdocs says that it is not there
        return match[1] + os.path.relpath(site_page(target), PurePosixPath(here).parent)

    return markdown if here.startswith("source/") else LINK.sub(moved, markdown)


def resolved(page: str, link: str) -> str:
    """The repository's path of what a link on a page of the site points to."""
    origin = {site: name for name, site in ROOT_PAGES.items()}.get(page, f"docs/{page}")
    return os.path.normpath(PurePosixPath(origin).parent / link)


def site_page(target: str) -> str:
    """Where the site has a path of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return ROOT_PAGES.get(target, f"source/{target}.md")


def source_pages(target: str) -> dict[str, str]:
    """The page of a file or, for a folder, a list of its files and their pages; none for what is not there."""
    path = ROOT / target
    if path.is_file():
        language = LANGUAGES.get(path.suffix, "text")
        return {site_page(target): f"# `{target}`\n\n`````{language}\n{path.read_text()}\n`````\n"}
    if not path.is_dir():
        return {}
    inside = sorted(file.name for file in path.iterdir() if file.suffix in LANGUAGES)
    listed = "".join(f"- [{name}]({path.name}/{name}.md)\n" for name in inside)
    found = {site_page(target): f"# `{target}/`\n\n{listed}"}
    for name in inside:
        found |= source_pages(f"{target}/{name}")
    return found


def reference() -> str:
    """Every public name with its docstring, read without importing torch."""
    parts = ["# API reference", "Import these names from `concise_rl`. [From Python](python.md) shows them in use."]
    for home, names in sorted(concise_rl._HOME.items()):
        for name in names:
            own = ROOT / home.replace(".", "/") / f"{name}.py"  # the function of a module with its name
            parts.append(f"::: {home}.{name}.{name}" if own.exists() else f"::: {home}.{name}")
    return "\n\n".join(parts)


def components() -> str:
    """Every registered component with its docstring, by kind."""
    parts = ["# Components", "What methods are made of, by kind; a heading is a class, importable from `concise_rl`."]
    for kind, shelf in SHELVES.items():
        parts.append(f"## {FOLDERS[kind].capitalize()}")
        parts += [f"::: concise_rl.methods.{FOLDERS[kind]}.{name}.{cls}" for name, cls in sorted(shelf.items())]
    return "\n\n".join(parts)
