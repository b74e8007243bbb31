"""The report on the terminal: findings, then the tables of the PDF. Strings go in as text, never as markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.types import Run
from reports.build import view
from reports.view import Cell, Table, View

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

# What a run ends with; the rest is in the PDF, or here with `full`.
BRIEF = ("paper", "models", "asr", "depth", "overrefusal", "helpfulness", "sweep", "gates")


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
            pieces, stacked = _fitting(table, console.width)
            for piece in pieces:
                console.print(_grid(piece, stacked))
            if table.note:
                console.print(Text(table.note, style="dim"))


def _title(shown: View) -> Text:
    from rich.text import Text

    state = (" · not finished", "yellow") if shown.status == "partial" else ""
    return Text.assemble("\n", (shown.title, "bold cyan"), "  ", (shown.subtitle, "dim"), state, "\n")


def _fitting(table: Table, width: int) -> tuple[list[Table], bool]:
    """The table, or, where it is too wide, the table in pieces that each repeat the words; and whether to stack cells.

    A cell is stacked, its quiet part below the loud one, before a table is cut.
    """
    stacked = table.stacked or sum(_widths(table, stacked=False)) > width
    widths = _widths(table, stacked=stacked)
    fixed = sum(widths[: table.left])
    pieces: list[list[int]] = [[]]
    for column in range(table.left, len(widths)):
        if pieces[-1] and fixed + sum(widths[i] for i in [*pieces[-1], column]) > width:
            pieces.append([])
        pieces[-1].append(column)
    return [_only(table, [*range(table.left), *piece]) for piece in pieces], stacked


def _widths(table: Table, *, stacked: bool) -> list[int]:
    """How wide each column is with the two blanks after it; a heading may break at its blanks."""
    columns = zip(*(row.cells for row in table.rows), strict=True)
    return [
        2
        + max(
            *(len(word) for word in name.split()),
            *(max(len(c.text), len(c.sub)) if stacked else len(c.text) + len(c.sub) + bool(c.sub) for c in column),
        )
        for name, column in zip(table.columns, columns, strict=True)
    ]


def _only(table: Table, kept: Sequence[int]) -> Table:
    """The table with these columns."""
    rows = tuple(replace(row, cells=tuple(row.cells[i] for i in kept)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in kept), rows=rows)


def _grid(table: Table, stacked: bool) -> Grid:
    """Words to the left, numbers to the right, cells as they are stacked or not."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for place, name in enumerate(table.columns):
        grid.add_column(Text(name), justify="left" if place < table.left else "right", overflow="fold")
    quiet = [max(len(cell.sub) for cell in column) for column in zip(*(row.cells for row in table.rows), strict=True)]
    for row in table.rows:
        cells = [_cell(c, None if stacked else pad) for c, pad in zip(row.cells, quiet, strict=True)]
        grid.add_row(*cells, style="bold" if row.strong else None)
    return grid


def _cell(cell: Cell, pad: int | None) -> Text:
    """Loud and quiet part, the quiet one filled up to `pad` so that both align, or below where `pad` is None."""
    from rich.text import Text

    if pad is None:
        return Text.assemble(cell.text, "\n" if cell.sub else "", (cell.sub, "dim"))
    return Text.assemble(cell.text, " " if pad else "", (cell.sub.ljust(pad), "dim"))
