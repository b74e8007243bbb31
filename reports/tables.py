"""Tables of metrics: one row a number, with its interval, its denominators and its worst case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.types import Metric
from reports.numbers import Numbers
from reports.view import Cell, Row, Table
from reports.words import DASH, bounds, clean, compact, count, interval, known, percent, plural, why_empty

Entry = tuple[tuple[str, ...], Metric | None]


def long_table(
    title: str, words: Sequence[str], value: str, entries: Sequence[Entry], *, note: str = ""
) -> Table | None:
    """Entries of (labels, metric) as rows; a repeated first label is shown once. None where there are no entries.

    Columns in which no row has anything to say (missing replies) are left out, and the note says so.
    """
    if not entries:
        return None
    lost = any(m and (m.n_error or m.n_unscored) for _, m in entries)
    columns = (*words, value, "95% interval", "n")
    if lost:
        columns += ("errors", "unscored", "worst case")
    else:
        note = f"{note} No errors, nothing unscored.".strip()
    rows: list[Row] = []
    before = ""
    for labels, metric in entries:
        opens = labels[0] != before
        shown = labels if opens else ("", *labels[1:])
        rows.append(Row(cells=(*map(_word, shown), *_numbers(metric, lost)), opens=opens and len(words) > 1))
        before = labels[0]
    return Table(title=title, columns=columns, rows=tuple(rows), left=len(words), note=note)


def matrix(
    title: str,
    corner: str,
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[Metric | None]]],
    *,
    note: str = "",
) -> Table:
    """One compact number a cell; an n that all share is said once, in the note."""
    body = [(label, list(metrics)) for label, metrics in rows]
    sizes = {m.n for _, metrics in body for m in metrics if m is not None and m.n}
    shared = sizes.pop() if len(sizes) == 1 else None
    if shared is not None:
        note = f"{note} n = {count(shared)} in every cell.".strip()
    return Table(
        title=title,
        columns=(corner, *(clean(c, 24) for c in columns)),
        rows=tuple(Row(cells=(_word(label), *(compact(m, shared_n=shared) for m in ms))) for label, ms in body),
        note=note,
    )


def overview(numbers: Numbers, per_table: int = 5) -> tuple[Table, ...]:
    """Models down, attacks across, then over-refusal and helpfulness: the paper's Tables 2 and 4, and more."""
    wanted = [(attack, "asr", {"attack": attack}) for attack in numbers.attacks]
    wanted += [(f"refused: {task}", "over_refusal", {"task": task}) for task in numbers.values("over_refusal", "task")]
    wanted += [(f"solved: {task}", "helpfulness", {"task": task}) for task in numbers.values("helpfulness", "task")]
    kept = [w for w in wanted if any(numbers.get(w[1], model=m, **w[2]) for m in numbers.models)]
    blocks = max(1, -(-len(kept) // per_table))
    size = -(-len(kept) // blocks) or 1
    tables = []
    for start in range(0, len(kept), size):
        block = kept[start : start + size]
        rows = [(m, [numbers.get(name, model=m, **group) for _, name, group in block]) for m in numbers.models]
        title = "Models side by side" + (" (continued)" if start else "")
        note = "Under an attack: success rate, lower is safer."
        note += " Refused: lower is better. Solved: higher is better." if any(n != "asr" for _, n, _ in block) else ""
        tables.append(matrix(title, "model", [label for label, _, _ in block], rows, note=note))
    return tuple(tables)


def tokens_cell(metric: Metric | None) -> Cell:
    """A metric counted in tokens, not in percent."""
    if metric is None or not metric.n or not known(metric.value) or metric.value is None:
        return Cell(text=DASH, sub=why_empty(metric))
    spread = "" if metric.low is None or metric.high is None else f"[{metric.low:.1f}, {metric.high:.1f}] "
    return Cell(text=f"{metric.value:.1f}", sub=f"{spread}n {count(metric.n)}")


def _numbers(metric: Metric | None, lost: bool) -> tuple[Cell, ...]:
    """Value, interval, n and, where any row of the table has them, errors, unscored and worst case."""
    if metric is None or not metric.n or not known(metric.value):
        value = (Cell(text=DASH), Cell(text=why_empty(metric)), Cell(text="0"))
    else:
        value = (Cell(text=percent(metric.value)), Cell(text=interval(metric)), Cell(text=count(metric.n)))
    if not lost:
        return value
    errors, unscored = (metric.n_error, metric.n_unscored) if metric else (0, 0)
    return (*value, Cell(text=count(errors)), Cell(text=count(unscored)), Cell(text=bounds(metric) if metric else ""))


def _word(label: str) -> Cell:
    return Cell(text=clean(label, 32))


def total_note(metrics: Iterable[Metric]) -> str:
    """How many replies of these metrics have no verdict."""
    found = list(metrics)
    errors, unscored = sum(m.n_error for m in found), sum(m.n_unscored for m in found)
    return f"{plural(errors, 'error')}, {count(unscored)} unscored." if errors or unscored else ""
