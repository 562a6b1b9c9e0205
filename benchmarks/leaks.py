"""What may come out of a report, a comparison or a terminal's table, whatever a model wrote into it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

from concise_rl.reporting.evaluations import detail_tables
from concise_rl.reporting.summary import CompletionPair, pairs_view, pick_pairs, summary_table

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "h3", "h4", "p", "b", "ul", "li",
    "section", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "figure", "figcaption", "img", "article",
    "pre", "details", "summary", "script", "button", "i", "label", "select", "option", "input",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "scope", "title", "alt", "src", "id", "type", "role",
    "aria-label", "aria-pressed", "aria-live", "data-run", "data-figure", "style", "value", "placeholder", "hidden",
}  # fmt: skip


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        """Media type and content of each script element."""
        self._open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._open = tag == "script"
        if self._open:
            self.scripts.append((given.get("type") or "", ""))
        if tag not in TAGS:
            self.faults.append(f"element {tag!a}")
        self.faults += [f"attribute {name!a} of {tag}" for name in given if name not in ATTRIBUTES]
        if not (given.get("src") or "data:").startswith("data:"):
            self.faults.append(f"{tag} loads {given['src']!a}")

    def handle_endtag(self, tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data

    def handle_comment(self, data: str) -> None:
        self.faults.append(f"comment {data[:40]!a}")


def page_faults(text: str) -> list[str]:
    """What a page holds that the project's own pages do not: elements, attributes, comments, scripts that run."""
    page = Page(text)
    running = [content for kind, content in page.scripts if not kind]
    faults = list(page.faults)
    if len(running) != 1 or "hacked" in running[0]:
        faults.append(f"{len(running)} scripts run")
    for kind, content in page.scripts:
        if kind == "application/json":
            json.loads(content)
    if any(c in text for c in "\x00\x1b\u202e"):
        faults.append("a control character")
    return faults


def terminal(summaries: Mapping[str, Any], pairs: Sequence[CompletionPair]) -> str:
    """The tables of a terminal, without the codes of its own colours."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=120, color_system=None, force_terminal=False)
    console.print(summary_table({"before": next(iter(summaries.values()))}))
    for name, summary in summaries.items():
        for table in detail_tables(name[:2], summary):
            console.print(table)
    console.print(pairs_view(pick_pairs(pairs)))
    return out.getvalue()
