"""The report on the terminal: findings, then the tables of the PDF. Strings go in as text, never as markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.types import Run
from reports.build import view
from reports.view import Cell, Table, View

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

# What a run ends with; the rest is in the PDF, or here with `full`.
BRIEF = ("asr", "depth", "overrefusal", "helpfulness")


def show(run: Run, console: Console | None = None, *, full: bool = False) -> None:
    """Prints findings and the main tables, or all of them with `full`."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = console or Console(highlight=False)
    shown = view(run)
    console.print(_title(shown))
    for finding in shown.findings:
        console.print(Padding(Text.assemble((finding.claim, "bold"), " ", finding.detail), (0, 0, 0, 2)))
    for section in shown.sections:
        if not full and section.key not in BRIEF:
            continue
        for table in section.tables:
            console.print()
            console.print(Text(table.title, style="bold"))
            console.print(_grid(table, console.width))
            if table.note:
                console.print(Text(table.note, style="dim"))


def _title(shown: View) -> Text:
    from rich.text import Text

    state = (" · not finished", "yellow") if shown.status == "partial" else ""
    return Text.assemble("\n", (shown.title, "bold cyan"), "  ", (shown.subtitle, "dim"), state, "\n")


def _grid(table: Table, width: int) -> Grid:
    """Words wrap, numbers do not; on a narrow terminal the quiet part of a cell goes below the loud one."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid
    from rich.text import Text

    longest = [
        max(len(f"{c.text} {c.sub}") for c in column) for column in zip(*(r.cells for r in table.rows), strict=True)
    ]
    stacked = sum(longest) + 2 * len(longest) > width
    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="dim")
    for place, name in enumerate(table.columns):
        left = place < table.left
        grid.add_column(Text(name), justify="left" if left else "right", overflow="fold")
    for row in table.rows:
        grid.add_row(*(_cell(cell, stacked) for cell in row.cells), style="bold" if row.strong else None)
    return grid


def _cell(cell: Cell, stacked: bool) -> Text:
    from rich.text import Text

    return Text.assemble(cell.text, ("\n" if stacked else " ") if cell.sub else "", (cell.sub, "dim"))
