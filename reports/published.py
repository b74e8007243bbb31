"""A run of the paper's protocol beside the published numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.paper.compare import Line, compare
from harness.paper.protocol import is_protocol
from harness.paper.published import TASKS, Published, rows
from reports.numbers import Numbers, part
from reports.view import Cell, Figure, Point, Row, Section, Series, Table
from reports.words import DASH, clean, compact

SHARED = ("pair", "jailbreakchat", "cipher", "completion", "autodan")  # the attacks the paper has for every open model


def published(numbers: Numbers) -> Section | None:
    """The paper's table with our number beside each, and a word on what differs; None for other runs."""
    if not is_protocol(part(numbers.run.info, "spec")) or not numbers.run.records:
        return None
    compared = compare(numbers.run)
    by_model = {m: lines for m in numbers.models if (lines := [line for line in compared if line.model == m])}
    tables: list[Table] = []
    for lines in by_model.values():
        tables += [_numbers(numbers, lines), _differences(numbers, lines)]
    ours = [row for m, lines in by_model.items() if (row := _own_row(numbers, m, lines)) is not None]
    lead = (
        "The protocol of the DeRTa paper (arXiv 2407.09121), measure by measure. The paper's rates were judged by "
        "people and have no interval; a difference tells something only where what was done otherwise does not."
    )
    figures = (
        _figure(numbers, ours, "paper-useful", "mean of GSM8K, MMLU and AlpacaEval (%)", _useful),
        _figure(numbers, ours, "paper-size", "parameters (billions)", lambda row: row.billions or None, log=True),
    )
    drawn = tuple(figure for figure in figures if figure is not None)
    return Section(key="paper", title="Beside the paper", lead=lead, figures=drawn, tables=tuple(tables))


def _useful(row: Published) -> float | None:
    return row.mean(TASKS)


def _figure(
    numbers: Numbers,
    ours: Sequence[Published],
    key: str,
    x_label: str,
    across: Callable[[Published], float | None],
    *,
    log: bool = False,
) -> Figure | None:
    """Mean ASR of the published models, a colour a method, and of ours; None where ours lacks what it takes."""
    named = [*((numbers.name(row.name), row) for row in ours), *((row.method, row) for row in rows())]
    slots = {name: slot for slot, name in enumerate(dict.fromkeys(name for name, _ in named))}  # in every figure alike
    groups: dict[str, list[Point]] = {}
    for name, row in named:
        y, x = row.mean(SHARED), across(row)
        if y is not None and x is not None:
            groups.setdefault(name, []).append(Point(value=y, x=x))
    if not any(numbers.name(row.name) in groups for row in ours):
        return None
    series = tuple(Series(name=name, slot=slots[name], points=tuple(points)) for name, points in groups.items())
    return Figure(
        key=key,
        kind="scatter",
        caption=f"Mean attack success rate against {x_label.split(' (')[0]}: the paper's models and ours.",
        alt=f"Mean success rate of the paper's attacks against {x_label}, for its models by method and for this run's.",
        series=series,
        x_label=x_label,
        y_label="mean ASR (%)",
        log=log,
        wide=False,
    )


def _own_row(numbers: Numbers, model: str, lines: Sequence[Line]) -> Published | None:
    """One of our models in the shape of the paper's rows; None where it has no number at all."""
    rates = {line.measure.key: 100 * line.ours.value for line in lines if line.ours and line.ours.value is not None}
    size = part(part(numbers.run.info, "models"), model).get("parameters")
    billions = size / 1e9 if isinstance(size, int | float) else 0.0
    return Published(name=model, rates=rates, billions=billions) if rates else None


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
