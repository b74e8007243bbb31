"""Tables of metrics: one row a number with all its denominators, or one cell a number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from harness.types import Metric
from reports.numbers import Numbers
from reports.view import Cell, Row, Table
from reports.words import (
    DAGGER,
    DASH,
    bounds,
    compact,
    count,
    interval,
    known,
    listing,
    missing,
    percent,
    plural,
    short,
    unread,
    why_empty,
)

ANY = "any attack"
OVER = {"refused": "over_refusal", "early": "over_refusal_early", "late": "over_refusal_late"}
Column: TypeAlias = tuple[str, str, Mapping[str, str]]  # heading, name of the metric, its group less the model


def long_table(
    numbers: Numbers,
    title: str,
    words: tuple[str, str],
    entries: Sequence[tuple[str, str, Metric | None]],
    *,
    extras: Mapping[str, Sequence[Metric | None]] | None = None,
    note: str = "",
) -> Table | None:
    """(label, model, metric) as rows under `words`, the names of label and value; None where there are none.

    The model is left out where there is only one, and the columns on missing replies where none is missing.
    `extras` are further columns, one metric a row.
    """
    if not entries:
        return None
    more = extras or {}
    lost = any(m and missing(m) for _, _, m in entries)
    word = next((unread(m) for _, _, m in entries if m), "")
    first = (words[0], "model") if numbers.several else words[:1]
    columns = (*first, words[1], "95% interval", *more, "n", *(("errors", word, "worst case") if lost else ()))
    rows = []
    for i, (label, model, metric) in enumerate(entries):
        opens = i == 0 or entries[i - 1][0] != label
        cells = [
            Cell(text=numbers.name(label) if opens else ""),
            *([Cell(text=numbers.name(model))] if numbers.several else []),
            *_value(metric),
        ]
        cells += [compact(column[i], shared_n=metric.n if metric else None) for column in more.values()]
        rows.append(Row(cells=(*cells, *_counts(metric, lost)), opens=opens and numbers.several))
    if not lost and not any(m and missing(m) for column in more.values() for m in column):
        note = f"{note} No errors, nothing unscored.".strip()
    return Table(title=title, columns=columns, rows=tuple(rows), left=len(first), note=note)


def matrix(
    title: str,
    corner: str,
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[Metric | None]]],
    *,
    note: str = "",
) -> Table:
    """One cell a number; an n that all share is said once. Many columns are stacked; a dagger marks lost replies."""
    body = [(label, list(metrics)) for label, metrics in rows]
    there = [m for _, metrics in body for m in metrics if m is not None]
    sizes = sorted({m.n for m in there if m.n})
    stacked = len(columns) > 4
    notes = [note] if note else []
    if len(sizes) == 1:
        notes.append(f"n = {count(sizes[0])}.")
    elif stacked and sizes:
        notes.append(f"n from {count(sizes[0])} to {count(sizes[-1])}.")
    if any(missing(m) for m in there):
        notes += [f"{DAGGER} Without a verdict, in one cell: {most_missing(there)}."] if stacked else []
    else:
        notes.append("No errors, nothing unscored.")
    shared = sizes[0] if len(sizes) == 1 else None
    cells = [
        Row(cells=(Cell(text=label), *(short(m) if stacked else compact(m, shared_n=shared) for m in metrics)))
        for label, metrics in body
    ]
    heads = (corner, *columns)
    return Table(title=title, columns=heads, rows=tuple(cells), note=" ".join(notes), stacked=stacked)


def table_of(
    numbers: Numbers,
    title: str,
    words: tuple[str, str],
    entries: Sequence[tuple[str, str, Metric | None]],
    *,
    note: str = "",
    most: int = 8,
) -> tuple[Table, ...]:
    """(label, model, metric): one row a number for one model, a column a model for up to four, else a row a model."""
    if not numbers.several:
        table = long_table(numbers, title, words, entries, note=note)
        return (table,) if table else ()
    labels = list(dict.fromkeys(label for label, _, _ in entries))
    found = {(label, model): metric for label, model, metric in entries}
    if len(numbers.models) <= 4:
        rows = [(numbers.name(label), [found.get((label, m)) for m in numbers.models]) for label in labels]
        heads = [numbers.name(m) for m in numbers.models]
        return (matrix(title, words[0], heads, rows, note=note),) if labels else ()
    tables = []
    for start in range(0, len(labels), most):
        block = labels[start : start + most]
        rows = [(numbers.name(m), [found.get((label, m)) for label in block]) for m in numbers.models]
        heads = [f"{words[0]} {label}" if label.isdigit() else numbers.name(label) for label in block]
        tables.append(matrix(title, "model", heads, rows, note=note))
    return tuple(tables)


def most_missing(metrics: Iterable[Metric]) -> str:
    """The most replies without a verdict under one number; a sum would count those again that several numbers share."""
    found = list(metrics)
    errors = max(m.n_error for m in found)
    most = {word: max(m.n_unscored for m in found if unread(m) == word) for word in dict.fromkeys(map(unread, found))}
    words = [plural(errors, "error")] * (errors > 0) + [f"{count(n)} {word}" for word, n in most.items() if n]
    return ", ".join(f"up to {word}" for word in words)


def overview(numbers: Numbers, most: int = 8) -> tuple[Table, ...]:
    """Models down, attacks across, then over-refusal and helpfulness: the paper's Tables 2 and 4, and more."""
    groups: list[tuple[str, str, list[Column]]] = [
        (
            "attack success",
            "Attacks: success rate, lower is safer.",
            [*((numbers.name(a), "asr", {"attack": a}) for a in numbers.attacks), (ANY, "asr_any", {})],
        ),
        (
            "over-refusal",
            "Refused though it should be answered, in all and apart: lower is better.",
            [
                (f"{words}: {numbers.name(t)}", name, {"task": t})
                for t in numbers.values("over_refusal", "task")
                for words, name in OVER.items()
            ],
        ),
        (
            "helpfulness",
            "Solved: higher is better.",
            [(f"solved: {numbers.name(t)}", "helpfulness", {"task": t}) for t in numbers.values("helpfulness", "task")],
        ),
    ]
    if numbers.has("asr_corrected"):
        title, note, wanted = groups[0]
        groups[0] = (title, f"{note} As judged; corrected rates stand under the attacks.", wanted)
    blocks: list[tuple[list[str], list[str], list[Column]]] = []
    for title, note, wanted in groups:
        kept = [c for c in wanted if any(numbers.get(c[1], model=m, **c[2]) for m in numbers.models)]
        for start in range(0, len(kept), most):
            piece = kept[start : start + most]
            if not blocks or len(blocks[-1][2]) + len(piece) > most:
                blocks.append(([], [], []))
            for words, word in zip(blocks[-1][:2], (title, note), strict=True):
                words.append(word)
            blocks[-1][2].extend(piece)
    return tuple(
        _block(numbers, listing(titles).capitalize(), " ".join(notes), columns) for titles, notes, columns in blocks
    )


def _block(numbers: Numbers, title: str, note: str, columns: Sequence[Column]) -> Table:
    rows = [
        (numbers.name(m), [numbers.get(name, model=m, **group) for _, name, group in columns]) for m in numbers.models
    ]
    return matrix(title, "model", [label for label, _, _ in columns], rows, note=note)


def tokens_cell(metric: Metric | None) -> Cell:
    """A metric counted in tokens, not in percent."""
    if metric is None or not metric.n or not known(metric.value) or metric.value is None:
        return Cell(text=DASH, sub=why_empty(metric))
    spread = "" if metric.low is None or metric.high is None else f"[{metric.low:.1f}, {metric.high:.1f}] "
    return Cell(text=f"{metric.value:.1f}", sub=f"{spread}n {count(metric.n)}")


def _value(metric: Metric | None) -> tuple[Cell, Cell]:
    """Value and interval, or a dash and why."""
    if metric is None or not metric.n or not known(metric.value):
        return Cell(text=DASH), Cell(text="", sub=why_empty(metric))
    return Cell(text=percent(metric.value)), Cell(text=interval(metric))


def _counts(metric: Metric | None, lost: bool) -> tuple[Cell, ...]:
    """n and, where any row of the table has them, errors, unscored and worst case."""
    if metric is None:
        return (Cell(text=DASH),) * (4 if lost else 1)
    missed = (Cell(text=count(metric.n_error)), Cell(text=count(metric.n_unscored)), Cell(text=bounds(metric) or DASH))
    return (Cell(text=count(metric.n)), *(missed if lost else ()))
