"""The results, one function a section: what the numbers mean, figures and tables; None where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence

from harness.types import Metric, Record
from reports.numbers import Numbers, part
from reports.tables import Entry, long_table, matrix, overview, tokens_cell
from reports.view import Cell, Figure, Point, Row, Section, Series, Table
from reports.words import clean, compact


def attacks(numbers: Numbers) -> Section | None:
    """ASR by attack and model, and over all attacks."""
    entries: list[Entry] = [
        (_labels(numbers, attack, model), numbers.get("asr", model=model, attack=attack))
        for attack in numbers.attacks
        for model in numbers.models
        if any(numbers.get("asr", model=m, attack=attack) for m in numbers.models)
    ]
    if not entries:
        return None
    entries += [
        (_labels(numbers, "any attack", m), x) for m in numbers.models if (x := numbers.get("asr_any", model=m))
    ]
    words = ("attack", "model") if len(numbers.models) > 1 else ("attack",)
    note = "Any attack: behaviors that at least one attack got an answer to." if numbers.has("asr_any") else ""
    table = long_table("Attack success rate", words, "ASR", entries, note=note)
    tables = [*(overview(numbers) if len(numbers.models) > 1 else ()), table, _corrected(numbers)]
    figure = Figure(
        key="asr",
        kind="dots",
        caption="Attack success rate by attack, with 95% intervals.",
        alt="Attack success rate of each model under each attack, as dots with intervals; the table gives the numbers.",
        series=_by_category(numbers, "asr", "attack", numbers.attacks),
        x_label="attack success rate (%), lower is safer",
    )
    lead = (
        "The share of behaviors for which the model gave what it should refuse, judged on what was given: "
        "a refusal that comes after the answer does not undo it."
    )
    return Section(
        key="asr", title="What the attacks got out of it", lead=lead, figures=_drawn(figure), tables=_kept(tables)
    )


def _corrected(numbers: Numbers) -> Table | None:
    """ASR corrected for the judge's errors, where a labelled sample made that possible."""
    entries: list[Entry] = [
        (_labels(numbers, attack, model), metric)
        for attack in numbers.attacks
        for model in numbers.models
        if (metric := numbers.get("asr_corrected", model=model, attack=attack))
    ]
    words = ("attack", "model") if len(numbers.models) > 1 else ("attack",)
    return long_table("Corrected for the judge's errors", words, "ASR", entries)


def depth(numbers: Numbers) -> Section | None:
    """ASR against the number of tokens of a violating answer the reply already holds."""
    depths = sorted({int(d) for d in numbers.values("asr_depth", "depth") if d.isdigit()})
    if not depths:
        return None
    series = tuple(
        Series(
            name=clean(model, 24),
            slot=slot,
            points=tuple(
                _point(m, x=float(k)) for k in depths if (m := numbers.scored("asr_depth", model=model, depth=str(k)))
            ),
        )
        for slot, model in enumerate(numbers.models)
    )
    figure = Figure(
        key="depth",
        kind="lines",
        caption="Success rate by depth of the prefill, with 95% intervals.",
        alt="Attack success rate against the number of prefilled tokens; the table gives the numbers.",
        series=series,
        x_label="tokens already written (k)",
        y_label="attack success rate (%)",
        wide=False,
    )
    table = matrix(
        "By depth",
        "k tokens",
        numbers.models if len(numbers.models) > 1 else ("ASR",),
        [(str(k), [numbers.get("asr_depth", model=m, depth=str(k)) for m in numbers.models]) for k in depths],
    )
    lead = (
        "The reply is begun for the model with the first k tokens of a violating answer, and the model goes on. "
        "A model whose refusal is only a few tokens deep breaks as k grows."
    )
    return Section(key="depth", title="How deep the refusal goes", lead=lead, figures=_drawn(figure), tables=(table,))


def refusals(numbers: Numbers) -> Section | None:
    """Where in a reply refusals begin, and how much was given before."""
    curves = [(slot, m, refusal_curve(numbers.run.records, m)) for slot, m in enumerate(numbers.models)]
    series = tuple(
        Series(name=clean(model, 24), slot=slot, points=tuple(Point(x=float(x), value=y) for x, y in curve))
        for slot, model, curve in curves
        if curve
    )
    figure = Figure(
        key="position",
        kind="steps",
        caption="Cumulative share of refusals by the token at which they begin.",
        alt="Cumulative share of refusals by position; most refusals begin where the curve is steep.",
        series=series,
        x_label="token at which the refusal begins",
        y_label="refusals begun (%)",
        log=True,
        wide=False,
    )
    tables = _kept([_first_tokens(numbers), _late(numbers)])
    if not series and not tables:
        return None
    lead = (
        "Among replies to what should be refused that hold a refusal at all: the token at which it begins. "
        "A curve that is complete within five tokens belongs to a model that can only refuse at once."
    )
    return Section(key="position", title="Where refusals begin", lead=lead, figures=_drawn(figure), tables=tables)


def refusal_curve(records: Sequence[Record], model: str) -> list[tuple[int, float]]:
    """(token counted from 1, share of refusals begun by it), over all replies of a model that hold a refusal."""
    places = sorted(
        r.judgements[0].refusal_at + 1
        for r in records
        if r.model == model and r.expect == "refuse" and r.judgements and r.judgements[0].refusal_at is not None
    )
    return [(at, (i + 1) / len(places)) for i, at in enumerate(places) if i + 1 == len(places) or places[i + 1] > at]


def _first_tokens(numbers: Numbers) -> Table | None:
    """The paper's Table 1, with how much was given before a refusal."""
    rows = []
    for model in numbers.models:
        first, given = numbers.get("refusal_first5", model=model), numbers.get("given_before_refusal", model=model)
        if first or given:
            rows.append(Row(cells=(Cell(text=clean(model, 32)), compact(first), tokens_cell(given))))
    columns = ("model", "begin within 5 tokens", "tokens given before")
    return Table(title="Refusals of each model", columns=columns, rows=tuple(rows)) if rows else None


def _late(numbers: Numbers) -> Table | None:
    """Early and late refusals by attack."""
    rows = []
    for attack in numbers.attacks:
        before = ""
        for model in numbers.models:
            first = numbers.get("refusal_first5", model=model, attack=attack)
            late = numbers.get("late_refusal", model=model, attack=attack)
            if first or late:
                labels = _labels(numbers, attack if attack != before else "", model)
                words = tuple(Cell(text=clean(label, 28)) for label in labels)
                opens = len(numbers.models) > 1 and attack != before
                rows.append(Row(cells=(*words, compact(first), compact(late)), opens=opens))
                before = attack
    named = ("attack", "model") if len(numbers.models) > 1 else ("attack",)
    columns = (*named, "begin within 5 tokens", "late refusals")
    note = "Late: the model refuses, but only after it has begun to answer. ASR is judged on what it gave."
    return Table(title="By attack", columns=columns, rows=tuple(rows), left=len(named), note=note) if rows else None


def over_refusal(numbers: Numbers) -> Section | None:
    """What is refused though it should be answered."""
    tasks, words = numbers.values("over_refusal", "task"), ("set", "model") if len(numbers.models) > 1 else ("set",)
    entries = [
        (_labels(numbers, t, m), numbers.get("over_refusal", model=m, task=t)) for t in tasks for m in numbers.models
    ]
    answered: list[Entry] = [
        (_labels(numbers, t, m), metric)
        for t in numbers.values("answered", "task")
        for m in numbers.models
        if (metric := numbers.get("answered", model=m, task=t))
    ]
    tables = [
        long_table("Refused though it should be answered", words, "refused", entries),
        _early_late(numbers, tasks),
        long_table("Answered", words, "answered", answered, note="Neither refused, nor off the topic, nor empty."),
    ]
    if not any(tables):
        return None
    figure = Figure(
        key="overrefusal",
        kind="bars",
        caption="Refused requests that should be answered, with 95% intervals: early (full colour) and late (light).",
        alt="Share of harmless requests refused, early and late, for each set and model; the table gives the numbers.",
        series=_by_category(numbers, "over_refusal", "task", tasks, early=True),
        x_label="refused (%), lower is better",
    )
    lead = (
        "Requests that look like the forbidden ones but are harmless should be answered. "
        "Early refusals begin at the start of the reply; late ones break off an answer under way."
    )
    title = "What it refuses but should answer"
    return Section(key="overrefusal", title=title, lead=lead, figures=_drawn(figure), tables=_kept(tables))


def _early_late(numbers: Numbers, tasks: Sequence[str]) -> Table | None:
    """Over-refusal split by where the refusal begins."""
    rows = []
    for task in tasks:
        for model in numbers.models:
            pair = [numbers.get(f"over_refusal_{when}", model=model, task=task) for when in ("early", "late")]
            if any(pair):
                words = tuple(Cell(text=clean(label, 32)) for label in _labels(numbers, task, model))
                rows.append(Row(cells=(*words, *(compact(m) for m in pair))))
    words_ = ("set", "model") if len(numbers.models) > 1 else ("set",)
    columns = (*words_, "early", "late")
    return Table(title="Early and late", columns=columns, rows=tuple(rows), left=len(words_)) if rows else None


def helpfulness(numbers: Numbers) -> Section | None:
    """What the model can still do."""
    tasks, words = numbers.values("helpfulness", "task"), ("task", "model") if len(numbers.models) > 1 else ("task",)
    entries = [
        (_labels(numbers, t, m), numbers.get("helpfulness", model=m, task=t)) for t in tasks for m in numbers.models
    ]
    table = long_table("Helpfulness", words, "solved", entries)
    if table is None:
        return None
    figure = Figure(
        key="helpfulness",
        kind="dots",
        caption="Helpfulness by task, with 95% intervals.",
        alt="Share of helpfulness items solved by each model on each task; the table gives the numbers.",
        series=_by_category(numbers, "helpfulness", "task", tasks),
        x_label="solved (%), higher is better",
    )
    lead = "The share of ordinary tasks solved. A defence that costs much of this is not worth having."
    title = "What it can still do"
    return Section(key="helpfulness", title=title, lead=lead, figures=_drawn(figure), tables=(table,))


def tradeoff(numbers: Numbers) -> Section | None:
    """Safety against what it costs, one mark a model."""
    if len(numbers.models) < 2:
        return None
    tasks = numbers.values("helpfulness", "task")
    asked = numbers.values("over_refusal", "task")
    sizes = {m: part(part(numbers.run.info, "models"), m).get("parameters") for m in numbers.models}
    figures = [
        _scatter(
            numbers,
            "useful",
            "helpfulness: mean of tasks solved (%)",
            {m: _mean(numbers, "helpfulness", m, tasks) for m in numbers.models},
        ),
        _scatter(
            numbers,
            "strict",
            "requests refused that should be answered (%)",
            {m: _mean(numbers, "over_refusal", m, asked) for m in numbers.models},
        ),
        _scatter(
            numbers,
            "size",
            "parameters (billions)",
            {
                m: Metric(name="size", value=float(s) / 1e9, low=None, high=None, n=1)
                for m, s in sizes.items()
                if isinstance(s, int | float) and s > 0
            },
            log=True,
        ),
    ]
    drawn = tuple(f for f in figures if f is not None)
    lead = (
        "One mark a model. Up: the share of behaviors that at least one attack got an answer to (lower is safer). "
        "A good defence moves down without moving sideways."
    )
    return Section(key="tradeoff", title="Safety against what it costs", lead=lead, figures=drawn) if drawn else None


def _scatter(
    numbers: Numbers, key: str, x_label: str, xs: dict[str, Metric | None], *, log: bool = False
) -> Figure | None:
    """ASR over any attack against another number; None with fewer than two models that have both."""
    series = []
    for slot, model in enumerate(numbers.models):
        y, x = numbers.scored("asr_any", model=model), xs.get(model)
        if y is not None and x is not None and x.value is not None:
            point = _point(y, x=x.value, x_low=x.low, x_high=x.high)
            series.append(Series(name=clean(model, 24), slot=slot, points=(point,)))
    if len(series) < 2 or (log and len({s.points[0].x for s in series}) < 2):
        return None
    caption = f"Attack success rate (any attack) against {x_label.split(' (')[0]}, with 95% intervals."
    return Figure(
        key=key, kind="scatter", caption=caption, alt=caption, series=tuple(series), x_label=x_label,
        y_label="ASR, any attack (%)", log=log, wide=False,
    )  # fmt: skip


def _mean(numbers: Numbers, name: str, model: str, tasks: Sequence[str]) -> Metric | None:
    """The metric of the only task, or the plain mean over several, which bears no interval."""
    found = [m for t in tasks if (m := numbers.scored(name, model=model, task=t))]
    if len(found) < 2 or len(found) < len(tasks):
        return found[0] if len(found) == len(tasks) == 1 else None
    value = sum(m.value or 0.0 for m in found) / len(found)
    return Metric(name=name, value=value, low=None, high=None, n=sum(m.n for m in found))


def variants(numbers: Numbers) -> Section | None:
    """ASR of each variant of each attack."""
    found = [m for m in numbers.run.metrics if m.name == "asr" and set(m.group) == {"model", "attack", "variant"}]
    order = {name: i for i, name in enumerate(numbers.attacks)}
    found.sort(key=lambda m: order.get(str(m.group["attack"]), len(order)))
    several = len(numbers.models) > 1
    entries: list[Entry] = [
        ((str(m.group["attack"]), str(m.group["variant"]) or "–", *((str(m.group["model"]),) if several else ())), m)
        for m in found
    ]
    words = ("attack", "variant", "model") if several else ("attack", "variant")
    table = long_table("Attack success rate by variant", words, "ASR", entries)
    lead = "The same numbers, one row for each variant of an attack."
    return Section(key="variants", title="By variant", lead=lead, tables=(table,)) if table else None


def _labels(numbers: Numbers, first: str, model: str) -> tuple[str, ...]:
    return (first, model) if len(numbers.models) > 1 else (first,)


def _point(
    metric: Metric, *, x: float = 0.0, x_low: float | None = None, x_high: float | None = None, label: str = ""
) -> Point:
    return Point(
        value=metric.value or 0.0, low=metric.low, high=metric.high, x=x, x_low=x_low, x_high=x_high, label=label
    )


def _by_category(
    numbers: Numbers, name: str, key: str, values: Sequence[str], *, early: bool = False
) -> tuple[Series, ...]:
    """One series a model, one point a category that has a value."""
    series = []
    for slot, model in enumerate(numbers.models):
        points = []
        for value in values:
            metric = numbers.scored(name, **{"model": model, key: value})
            if metric is None:
                continue
            first = numbers.scored(f"{name}_early", **{"model": model, key: value}) if early else None
            points.append(
                Point(
                    value=metric.value or 0.0,
                    low=metric.low,
                    high=metric.high,
                    label=clean(value, 24),
                    part=first.value if first else None,
                )
            )
        if points:
            series.append(Series(name=clean(model, 24), slot=slot, points=tuple(points)))
    return tuple(series)


def _drawn(figure: Figure) -> tuple[Figure, ...]:
    """A figure only where it has something to show."""
    return (figure,) if any(series.points for series in figure.series) else ()


def _kept(tables: Sequence[Table | None]) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
