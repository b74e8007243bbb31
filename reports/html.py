"""The report as one HTML file that asks nothing of the network: inline SVG, no script, light and dark."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from harness.types import Run
from reports import charts, save
from reports.build import view
from reports.view import Figure, Table, View

TEMPLATES = Path(__file__).parent / "templates"
# What charts.py draws in fixed colours takes the colours of the page here, which change with its scheme.
_SCHEME = {
    charts.INK: "var(--ink)",
    charts.MUTED: "var(--muted)",
    charts.GRID: "var(--rule)",
    charts.BAND: "var(--panel)",
    **{colour: f"var(--model-{slot})" for slot, colour in enumerate(charts.PALETTE)},
}


def write(run: Run, folder: Path) -> Path:
    """Writes `report.html` into `folder` and returns its path."""
    return save(folder / "report.html", page(view(run)).encode())


def page(shown: View) -> str:
    """The whole page; jinja escapes every string of the view, only our own SVG goes in as markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def svg(figure: Figure, width: float) -> Markup:
        return Markup(_themed(charts.draw(figure, width=width, sans=True)))

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(svg=svg, paired_columns=paired)
    environment.filters["whole"] = whole
    when = datetime.fromtimestamp(shown.stamp, UTC)
    date = f"{when.day} {when:%B %Y}" if shown.stamp else ""
    return environment.get_template("report.html").render(report=shown, date=date)


def paired(table: Table) -> set[int]:
    """Columns in which number and quieter part stand in columns of their own, so that both align."""
    cells = [(i, cell) for row in table.rows for i, cell in enumerate(row.cells)]
    return set() if table.stacked else {i for i, cell in cells if cell.sub and i >= table.left}


def whole(sentence: str) -> str:
    """A sentence whose intervals are not torn at the end of a line."""
    return re.sub(r"\[([\d.]+), ([\d.]+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", sentence)


def _themed(svg: str) -> str:
    for colour, variable in _SCHEME.items():
        svg = svg.replace(colour, variable)
    return svg.replace("font-family: 'DejaVu Sans'", "font-family: inherit")
