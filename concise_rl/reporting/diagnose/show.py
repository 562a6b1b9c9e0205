"""A diagnosis for the terminal, in 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from concise_rl.errors import printable
from concise_rl.reporting.diagnose.evidence import LOSSES, Evidence
from concise_rl.reporting.diagnose.rules import Finding, Level

STYLE = {Level.ill: "bold red", Level.watch: "yellow", Level.fine: "green"}
DIVISOR = {"grpo": "its own tokens", "bnpo": "all tokens (dapo, too)", "dr_grpo": "the token limit"}


def show_diagnosis(evidence: Evidence, findings: Sequence[Finding], console: Console | None = None) -> None:
    """Every finding with its cause, remedy and page; then which denominator presses on length."""
    console = console or Console(highlight=False)
    for finding in findings:
        console.print(f"[{STYLE[finding.level]}]{finding.level.value}[/]  [bold]{finding.name}[/bold]")
        for word, text in (("", finding.what), ("why: ", finding.cause), ("do: ", finding.remedy)):
            if text:
                console.print(Padding(escape(printable(word + text)), (0, 0, 0, 2)))
        console.print(Padding(f"page: {finding.page}", (0, 0, 1, 2)))
    if evidence.whole.rows:
        console.print(_denominators(evidence))
        console.print("-1: all credit shortens answers; +1: all of it lengthens them.")


def _denominators(evidence: Evidence) -> Table:
    used = evidence.trainer("loss_type")
    table = Table(title="Which denominator shrinks text", title_justify="left", header_style="bold")
    table.add_column("loss_type")
    table.add_column("a row is divided by")
    table.add_column("task reward alone", justify="right")
    table.add_column("as trained", justify="right")
    for loss in LOSSES:
        same = {"bnpo": ("bnpo", "dapo")}.get(loss, (loss,))
        name = f"{loss} (here)" if used in same else loss
        pressures = (evidence.whole.pressure(loss, shaped=shaped) for shaped in (False, True))
        table.add_row(name, DIVISOR[loss], *(f"{pressure:+.2f}" for pressure in pressures))
    return table
