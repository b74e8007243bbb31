"""A run of the paper's protocol beside the published numbers."""

from __future__ import annotations

from harness.paper.compare import Line, compare
from harness.paper.protocol import is_protocol
from harness.paper.published import rows
from reports.numbers import Numbers, part
from reports.view import Cell, Row, Section, Table
from reports.words import DASH, clean, compact


def published(numbers: Numbers) -> Section | None:
    """The paper's table with our number beside each, and a word on what differs; None for other runs."""
    if not is_protocol(part(numbers.run.info, "spec")) or not numbers.run.records:
        return None
    tables: list[Table] = []
    for model in numbers.models:
        if lines := [line for line in compare(numbers.run) if line.model == model]:
            tables += [_numbers(numbers, lines), _differences(numbers, lines)]
    lead = (
        "The protocol of the DeRTa paper (arXiv 2407.09121), measure by measure. The paper's rates were judged by "
        "people and have no interval; a difference tells something only where what was done otherwise does not."
    )
    return Section(key="paper", title="Beside the paper", lead=lead, tables=tuple(tables)) if tables else None


def _numbers(numbers: Numbers, lines: list[Line]) -> Table:
    """The paper's columns, ours, and the points between where the paper reports this very model."""
    own = lines[0].own
    order = {row.name: place for place, row in enumerate(rows())}
    names = sorted({name for line in lines for name in line.published}, key=lambda name: order[name])
    body = [
        Row(
            cells=(
                Cell(text=line.measure.label),
                *(Cell(text=f"{line.published[name]:.1f}%" if name in line.published else DASH) for name in names),
                compact(line.ours),
                *([Cell(text=DASH if line.gap is None else f"{line.gap:+.1f}")] if own else []),
            ),
            opens=line.measure.key == "gsm8k",
        )
        for line in lines
    ]
    model = numbers.name(lines[0].model)
    note = "" if own else f"The paper does not report {model}: its columns are landmarks, of other models."
    points = ["difference in points"] if own else []
    columns = ("measure", *(f"paper: {name}" for name in names), "here", *points)
    title = f"{model}: success of attacks (lower is safer), then helpfulness"
    return Table(title=title, columns=columns, rows=tuple(body), note=note, stacked=True)


def _differences(numbers: Numbers, lines: list[Line]) -> Table:
    """What was done otherwise here, measure by measure."""
    body = [
        Row(cells=(Cell(text=line.measure.label), Cell(text=clean("; ".join(line.differs) or "nothing", 200))))
        for line in lines
    ]
    title = f"{numbers.name(lines[0].model)}: what was done otherwise than in the paper"
    return Table(title=title, columns=("measure", "here"), rows=tuple(body), left=2)
