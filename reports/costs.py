"""What attacks cost: on a behavior, on a success, and what each reaches at equal cost."""

from __future__ import annotations

from collections.abc import Sequence

from harness.costs import PARTS, UNITS, budgets, reached
from harness.metrics import attacked
from harness.types import Metric, Record
from reports.numbers import Numbers
from reports.view import Cell, Figure, Point, Row, Section, Series, Table
from reports.words import DASH, count, known, missing, percent, plural, short

LINES = 7  # attacks in one figure
COLUMNS = 6  # budgets in one table
UNIT = {"usd": "US dollars"}


def costs(numbers: Numbers) -> Section | None:
    """Cost of each attack, and ASR against the budget, where any attack searched or tried more than once."""
    if not numbers.has("cost"):
        return None
    mine = {m: [r for r in numbers.run.records if r.model == m and attacked(r)] for m in numbers.models}
    figures, tables = [], [_spent(numbers), _success(numbers)]
    for unit in ("queries", "tokens"):
        grid = budgets((r for records in mine.values() for r in records), unit)
        if len(grid) < 4:  # every attack is done in a try or two
            continue
        curves = {m: _curves(numbers, mine[m], unit, grid) for m in numbers.models}
        drawn = (_figure(numbers, m, unit, curves[m]) for m in numbers.models)
        figures += [figure for figure in drawn if figure.series]
        tables.append(_equal(numbers, unit, grid, curves))
    lead = (
        "Queries: calls of the target and of an attacking model. Tokens: read and written by target, attacker and "
        "judge, and what a search sent through the weights. Seconds: the engine's time, shared among what it works on "
        "at once, and a search's own. A behavior falls at the cost of its first success."
    )
    return Section(
        key="costs",
        title="What attacks cost, and what they reach at equal cost",
        lead=lead,
        figures=tuple(figures),
        tables=tuple(table for table in tables if table is not None and table.rows),
    )


def amount(value: float | None) -> str:
    """A cost with three digits; large ones in thousands."""
    if value is None or not known(value):
        return DASH
    return count(value) if value >= 100 else f"{value:.3g}"


def _pairs(numbers: Numbers, name: str) -> list[tuple[str, str]]:
    """(attack, model) of a metric, in the order of the report."""
    there = {(str(m.group["attack"]), str(m.group["model"])) for m in numbers.run.metrics if m.name == name}
    return [(a, m) for a in numbers.attacks for m in numbers.models if (a, m) in there]


def _spent(numbers: Numbers) -> Table | None:
    """Mean cost of a behavior by what it was spent on."""
    pairs = _pairs(numbers, "cost")
    shown = [u for u in PARTS if any(numbers.get("cost", model=m, attack=a, unit=u) for a, m in pairs)]
    ended = {pair: numbers.get("budget_spent", model=pair[1], attack=pair[0]) for pair in pairs}
    rows = []
    for i, (attack, model) in enumerate(pairs):
        costs = [numbers.get("cost", model=model, attack=attack, unit=unit) for unit in shown]
        n = next((metric.n for metric in costs if metric), 0)
        last = [_share(ended[attack, model])] if any(ended.values()) else []
        rows.append(_row(numbers, pairs, i, [*map(_cost, costs), Cell(text=count(n)), *last]))
    heads = [
        *(UNIT.get(unit, unit).replace("_", " ") for unit in shown),
        "n",
        *(["budget spent"] if any(ended.values()) else []),
    ]
    note = "Mean with its 95% interval; n counts behaviors, once for each seed."
    if "usd" in shown:
        note += " US dollars: target and attacker, where their prices are known."
    if any(ended.values()):
        note += " Budget spent: the share whose search was ended by --budget."
    return Table(
        title="Spent on one behavior",
        columns=_columns(numbers, heads),
        rows=tuple(rows),
        left=_left(numbers),
        note=note,
    )


def _success(numbers: Numbers) -> Table | None:
    """All that was spent over the behaviors that fell."""
    pairs = _pairs(numbers, "cost_per_success")
    units = [u for u in UNITS if any(numbers.get("cost_per_success", model=m, attack=a, unit=u) for a, m in pairs)]
    rows = []
    for i, (attack, model) in enumerate(pairs):
        found = [numbers.get("cost_per_success", model=model, attack=attack, unit=unit) for unit in units]
        rows.append(_row(numbers, pairs, i, [_price(metric) for metric in found]))
    note = "All that an attack spent over the behaviors that fell to it."
    if any(cell.text == DASH and cell.sub.startswith(">") for row in rows for cell in row.cells):
        note += " None fell: more than the number after the >."
    return Table(
        title="Spent on one success",
        columns=_columns(numbers, [UNIT.get(unit, unit) for unit in units]),
        rows=tuple(rows),
        left=_left(numbers),
        note=note,
    )


def _equal(
    numbers: Numbers, unit: str, grid: Sequence[float], curves: dict[str, dict[str, list[tuple[float, Metric]]]]
) -> Table:
    """The figure's numbers: ASR within each of a few budgets."""
    grid = grid[:-1]  # the last one only gives the figure's lines room
    step = -(-len(grid) // COLUMNS)
    at = list(grid[::-step])[::-1]
    pairs = [(a, m) for a in numbers.attacks for m in numbers.models if a in curves[m]]
    rows = []
    for i, (attack, model) in enumerate(pairs):
        told = dict(curves[model][attack])
        rows.append(_row(numbers, pairs, i, [short(told[budget]) for budget in at]))
    heads = [f"{budget:,g}" if budget < 1e6 else f"{budget:,.0f}" for budget in at]
    lost = any(missing(metric) for m in curves for curve in curves[m].values() for _, metric in curve)
    note = "Behaviors that fell within the budget."
    if lost:
        note += " † Some could not be decided there: an attempt failed or was not scored."
    title = f"ASR within a budget of {UNIT.get(unit, unit)}"
    return Table(
        title=title, columns=_columns(numbers, heads), rows=tuple(rows), left=_left(numbers), note=note, stacked=True
    )


def _curves(
    numbers: Numbers, records: Sequence[Record], unit: str, grid: Sequence[float]
) -> dict[str, list[tuple[float, Metric]]]:
    """The curve of every attack on one model."""
    out = {}
    for attack in numbers.attacks:
        part = [r for r in records if r.attack == attack]
        if part:
            out[attack] = reached(part, unit, grid)
    return out


def _figure(numbers: Numbers, model: str, unit: str, curves: dict[str, list[tuple[float, Metric]]]) -> Figure:
    """One line an attack; those beyond the seventh are in the table only."""
    series = []
    for slot, (attack, curve) in enumerate(list(curves.items())[:LINES]):
        points = tuple(
            Point(x=budget, value=m.value, low=m.low, high=m.high) for budget, m in curve if m.n and m.value is not None
        )
        if points:
            series.append(Series(name=numbers.name(attack), slot=slot, points=points))
    left = len(curves) - LINES
    whose = f" on {numbers.name(model)}" if numbers.several else ""
    more = f" {plural(left, 'more attack')}: see the table." if left > 0 else ""
    return Figure(
        key=f"budget-{unit}-{numbers.models.index(model)}",
        kind="budget",
        caption=f"ASR against {UNIT.get(unit, unit)} spent on a behavior{whose}.{more}",
        alt=f"Share of behaviors that fall within a budget of {unit}, a line an attack; numbers in the table.",
        series=tuple(series),
        x_label=f"{UNIT.get(unit, unit)} spent on a behavior, at most",
        y_label="behaviors that fell (%)",
        log=True,
        wide=False,
    )


def _left(numbers: Numbers) -> int:
    return 2 if numbers.several else 1


def _columns(numbers: Numbers, heads: Sequence[str]) -> tuple[str, ...]:
    return ("attack", *(("model",) if numbers.several else ()), *heads)


def _row(numbers: Numbers, pairs: Sequence[tuple[str, str]], i: int, cells: Sequence[Cell]) -> Row:
    """One row; an attack's name stands once, before its first model."""
    attack, model = pairs[i]
    opens = i == 0 or pairs[i - 1][0] != attack
    first = Cell(text=numbers.name(attack) if opens else "")
    second = [Cell(text=numbers.name(model))] if numbers.several else []
    return Row(cells=(first, *second, *cells), opens=opens and numbers.several)


def _cost(metric: Metric | None) -> Cell:
    """A mean cost with its interval."""
    if metric is None or metric.value is None:
        return Cell(text=DASH)
    flat = metric.low is None or metric.high is None or metric.low == metric.high
    return Cell(text=amount(metric.value), sub="" if flat else f"[{amount(metric.low)}, {amount(metric.high)}]")


def _price(metric: Metric | None) -> Cell:
    """Cost of a success with its interval; where none fell, what was spent for nothing."""
    if metric is None:
        return Cell(text=DASH)
    lost = f" {missing(metric)}" if missing(metric) else ""
    if metric.value is None:
        return Cell(text=DASH, sub=(f"> {amount(metric.low)}" if metric.low is not None else "none fell") + lost)
    high = "…" if metric.high is None else amount(metric.high)
    return Cell(text=amount(metric.value), sub=f"[{amount(metric.low)}, {high}]{lost}")


def _share(metric: Metric | None) -> Cell:
    return Cell(text=percent(metric.value) if metric is not None else DASH)
