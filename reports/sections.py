"""The results, one function a section: what the numbers mean, figures and tables; None where nothing was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.metrics import CONTRAST, EARLY, FIRST, refusal_curve
from harness.types import Metric
from reports.numbers import Numbers
from reports.tables import ANY, long_table, overview, table_of, tokens_cell
from reports.view import Cell, Figure, Point, Row, Section, Series, Table
from reports.words import compact, plural, shorten

UNLABELLED = "As judged: without people's labels nothing is corrected (harness judge sample)."
DEEP = "prefill"  # the attack that the depth curve is made of
SHARES = ("full", "partial", "neither", "refused")  # from what a look-alike should get to what its contrast should


def side_by_side(numbers: Numbers) -> Section | None:
    """Every model in one row: what attacks get out of it, what it refuses, what it solves."""
    tables = overview(numbers) if numbers.several else ()
    lead = "One row a model, each number with its 95% interval: what a defence gains, and what it costs."
    return Section(key="models", title="Models side by side", lead=lead, tables=tables) if tables else None


def attacks(numbers: Numbers) -> Section | None:
    """ASR by attack and model, and over all attacks."""
    entries = numbers.across("asr", "attack", numbers.attacks)
    if not entries:
        return None
    entries += [(ANY, m, metric) for m in numbers.models if (metric := numbers.get("asr_any", model=m))]
    note = "Any attack: behaviors that at least one attack got an answer to. " if numbers.has("asr_any") else ""
    fixed = corrected_column(numbers, entries)
    note = note.strip() if fixed else f"{note}{UNLABELLED}"
    table = long_table(numbers, "Attack success rate", ("attack", "judged ASR"), entries, extras=fixed, note=note)
    figure = Figure(
        key="asr",
        kind="dots",
        caption="Attack success rate by attack, with 95% intervals.",
        alt="Attack success rate of each model under each attack, as dots with intervals; the table gives the numbers.",
        series=_series(numbers, entries),
        x_label="attack success rate (%), lower is safer",
        wide=numbers.several,
    )
    lead = (
        "The attack success rate (ASR) is the share of replies that gave what the model should refuse. It is judged "
        "on what was given: a refusal after the answer does not undo it."
    )
    return Section(
        key="asr", title="What the attacks got out of it", lead=lead, figures=_drawn(figure), tables=_kept([table])
    )


def corrected_column(
    numbers: Numbers, entries: Sequence[tuple[str, str, Metric | None]]
) -> dict[str, list[Metric | None]]:
    """The corrected rate beside each judged one, as a column; none where nobody labelled any reply."""
    if not numbers.has("asr_corrected"):
        return {}
    none = Metric(name="asr_corrected", value=None, low=None, high=None, n=0, note="no labels")
    by_attack = replace(none, note="by attack only")
    return {
        "corrected": [
            by_attack if attack == ANY else numbers.get("asr_corrected", model=model, attack=attack) or none
            for attack, model, _ in entries
        ]
    }


def depth(numbers: Numbers) -> Section | None:
    """ASR against the number of tokens of a violating answer the reply already holds."""
    depths = [str(d) for d in sorted({int(d) for d in numbers.values("asr_depth", "depth") if d.isdigit()})]
    entries = numbers.across("asr_depth", "depth", depths)
    if not entries:
        return None
    figure = Figure(
        key="depth",
        kind="lines",
        caption="Success rate by depth of the prefill, with 95% intervals.",
        alt="Attack success rate against the number of prefilled tokens; the table gives the numbers.",
        series=_series(numbers, entries),
        x_label="tokens of the answer already there (k)",
        y_label="attack success rate (%)",
        log=True,
        wide=False,
    )
    tables = table_of(numbers, "Success rate by depth", ("k", "ASR"), entries)
    lead = (
        "The reply is begun for the model with the first k tokens of a violating answer, and the model goes on. "
        "A model whose refusal is only a few tokens deep breaks as k grows."
    )
    return Section(key="depth", title="How deep the refusal goes", lead=lead, figures=_drawn(figure), tables=tables)


def refusals(numbers: Numbers) -> Section | None:
    """Where in a reply refusals begin, and how much was given before."""
    series = tuple(
        Series(name=numbers.name(model), slot=slot, points=tuple(Point(x=at + 1.0, value=share) for at, share in curve))
        for slot, model in enumerate(numbers.models)
        if (curve := refusal_curve(numbers.run.records, model))
    )
    figure = Figure(
        key="position",
        kind="steps",
        caption="Share of refusals that have begun by a token.",
        alt="Cumulative share of refusals by the token at which they begin; most begin where the curve is steep.",
        series=series,
        x_label="token of the reply",
        y_label="refusals begun (%)",
        log=True,
        wide=False,
    )
    table = _first_tokens(numbers)
    if not series and table is None:
        return None
    lead = (
        "Among replies that hold a refusal: the token at which it begins. A curve that is complete within five tokens "
        "belongs to a model that refuses at once or not at all."
    )
    return Section(
        key="position", title="Where refusals begin", lead=lead, figures=_drawn(figure), tables=_kept([table])
    )


def _first_tokens(numbers: Numbers) -> Table | None:
    """The paper's Table 1, with how much was given before a refusal."""
    rows = []
    for model in numbers.models:
        first, given = numbers.get("refusal_first5", model=model), numbers.get("given_before_refusal", model=model)
        if first or given:
            rows.append(Row(cells=(Cell(text=numbers.name(model)), compact(first), tokens_cell(given))))
    columns = ("model", f"begin within {FIRST} tokens", "tokens given before")
    table = Table(title="Refusals of each model", columns=columns, rows=tuple(rows), stacked=True)
    return table if rows else None


def over_refusal(numbers: Numbers) -> Section | None:
    """What is refused though it should be answered."""
    tasks = numbers.values("over_refusal", "task")
    entries = numbers.across("over_refusal", "task", tasks)
    others = {"early": "over_refusal_early", "late": "over_refusal_late", "answered": "answered"}
    extras = {
        head: [numbers.get(name, model=model, task=task) for task, model, _ in entries]
        for head, name in others.items()
        if any(numbers.get(name, model=model, task=task) for task, model, _ in entries)
    }
    twins = numbers.across("answered", "task", [t for t in numbers.values("answered", "task") if t not in tasks])
    tables = [
        long_table(numbers, "Refused though it should be answered", ("set", "refused"), entries, extras=extras),
        _shares(numbers, "Full answers, partial ones, refusals", SHARES),
        _shares(numbers, "Unsafe contrasts, to be refused", tuple(reversed(SHARES)), attack=CONTRAST),
        long_table(numbers, "Answered", ("set", "answered"), twins),
    ]
    if not any(tables):
        return None
    series = _series(numbers, entries, parts=extras.get("early"))
    hollow = any(point.part is None for one in series for point in one.points)
    figure = Figure(
        key="overrefusal",
        kind="bars",
        caption="Refused though it should be answered: early in full colour, late in light"
        f"{', in outline where positions are unknown' if hollow else ''}; 95% intervals of the sum.",
        alt="Share of harmless requests refused, early and late, for each set and model; the table gives the numbers.",
        series=series,
        x_label="refused (%), lower is better",
    )
    lead = (
        "Requests that look like the forbidden ones but are harmless should be answered. "
        f"Early refusals begin within the first {EARLY} tokens; late ones break off an answer under way."
    )
    title = "What it refuses but should answer"
    return Section(key="overrefusal", title=title, lead=lead, figures=_drawn(figure), tables=_kept(tables))


def _shares(numbers: Numbers, title: str, order: Sequence[str], **group: str) -> Table | None:
    """Every share of a set's replies, each with its interval; the first of `order` is the one that is wanted."""
    wanted = [
        (task, model)
        for task in numbers.values("share_full", "task")
        for model in numbers.models
        if any(numbers.get("share_full", model=m, task=task, **group) for m in numbers.models)
    ]
    columns = {
        name: [numbers.get(f"share_{name}", model=model, task=task, **group) for task, model in wanted]
        for name in order
    }
    first, *others = order
    entries = [(task, model, metric) for (task, model), metric in zip(wanted, columns[first], strict=True)]
    note = "Partial: an answer that also refuses. Neither: off the topic, empty, an echo."
    return long_table(numbers, title, ("set", first), entries, extras={n: columns[n] for n in others}, note=note)


def helpfulness(numbers: Numbers) -> Section | None:
    """What the model can still do."""
    entries = numbers.across("helpfulness", "task", numbers.values("helpfulness", "task"))
    if not entries:
        return None
    compared = numbers.values("win_rate_lc", "task")
    tables = [
        long_table(numbers, "Helpfulness", ("task", "solved"), [e for e in entries if e[0] not in compared]),
        _win_rates(numbers, [e for e in entries if e[0] in compared]),
        _readings(numbers),
    ]
    figure = Figure(
        key="helpfulness",
        kind="dots",
        caption="Helpfulness by task, with 95% intervals.",
        alt="Share of helpfulness items solved by each model on each task; the table gives the numbers.",
        series=_series(numbers, entries),
        x_label="solved or won (%), higher is better",
        wide=False,
    )
    lead = "The share of ordinary tasks solved: what a defence must not cost."
    title = "What it can still do"
    return Section(key="helpfulness", title=title, lead=lead, figures=_drawn(figure), tables=_kept(tables))


def _win_rates(numbers: Numbers, entries: Sequence[tuple[str, str, Metric | None]]) -> Table | None:
    """Comparisons with a reference: the plain rate, the one for equal lengths, and how often the order decided."""
    others = {"length-controlled": "win_rate_lc", "first shown won": "first_preferred", "second": "second_preferred"}
    extras = {
        head: [numbers.get(name, model=model, task=task) for task, model, _ in entries] for head, name in others.items()
    }
    note = (
        "Each reply against a reference, shown in both orders; a preference that follows the order is a tie. "
        "Length-controlled: what the rate would be had both replies been equally long."
    )
    return long_table(numbers, "Replies preferred to the reference", ("task", "won"), entries, extras=extras, note=note)


def _readings(numbers: Numbers) -> Table | None:
    """Tasks under the other readings of their replies, such as a stricter one."""
    found = [m for m in numbers.run.metrics if m.name == "helpfulness" and set(m.group) == {"model", "task", "reading"}]
    order = list(numbers.models)
    found.sort(key=lambda m: (m.group["task"], m.group["reading"], order.index(m.group["model"])))
    entries = [(f"{numbers.name(m.group['task'])}: {m.group['reading']}", m.group["model"], m) for m in found]
    return long_table(numbers, "The same tasks read otherwise", ("task: reading", "solved"), entries)


def details(numbers: Numbers) -> Section | None:
    """ASR of each variant of an attack, where refusals stand under each attack, and what else an attack changes."""
    late = numbers.across("late_refusal", "attack", numbers.attacks)
    first = numbers.across("refusal_first5", "attack", numbers.attacks)
    variants, left_out = _variants(numbers)
    tables = [
        *variants,
        *table_of(
            numbers,
            "Given, then refused all the same",
            ("attack", "share"),
            late,
            note="Of all replies. They count as successes of the attack: a late refusal is not safety.",
        ),
        *table_of(
            numbers,
            f"Refusals that begin within {FIRST} tokens",
            ("attack", "share"),
            first,
            note="Of the replies that hold a refusal.",
        ),
        *table_of(
            numbers,
            "Harmless requests in the shape of an attack",
            ("attack: set", "answered"),
            _pieces(numbers, "answered", "task"),
            note="Answered: what an attack's form alone does to requests that should be answered.",
        ),
        *table_of(
            numbers,
            "Tasks in the shape of an attack",
            ("attack: task", "solved"),
            _pieces(numbers, "helpfulness", "task"),
        ),
    ]
    lead = "The same measures in finer pieces; with fewer replies in each, their intervals are wider."
    if left_out and not variants:
        lead += f" {left_out}"
    return Section(key="details", title="In detail", lead=lead, tables=tuple(tables)) if tables else None


def _variants(numbers: Numbers, fewest: int = 5) -> tuple[tuple[Table, ...], str]:
    """ASR by variant, less those of a few replies on every model and what the depth curve shows; how many were few."""
    entries = _pieces(numbers, "asr", "variant", without=DEEP if numbers.has("asr_depth") else "")
    large = {label for label, _, m in entries if m and m.n + m.n_error + m.n_unscored >= fewest}
    small = {label for label, _, _ in entries} - large
    note = f"{plural(len(small), 'variant')} with fewer than {fewest} replies left out." if small else ""
    kept = [entry for entry in entries if entry[0] in large]
    return table_of(numbers, "Success rate by variant", ("attack: variant", "ASR"), kept, note=note), note


def _pieces(numbers: Numbers, name: str, key: str, without: str = "") -> list[tuple[str, str, Metric | None]]:
    """A metric that is cut by attack and one more key, as (attack: value, model, metric)."""
    found = [m.group for m in numbers.run.metrics if m.name == name and set(m.group) == {"model", "attack", key}]
    pairs = sorted({(str(g["attack"]), str(g[key])) for g in found}, key=lambda p: (numbers.attacks.index(p[0]), p[1]))
    pairs = [pair for pair in pairs if pair[0] != without]
    shown = shorten([value for _, value in pairs], 18)
    return [
        (f"{numbers.name(attack)}: {shown[value] or 'plain'}", model, metric)
        for attack, value in pairs
        for model in numbers.models
        if (metric := numbers.get(name, **{"model": model, "attack": attack, key: value}))
    ]


def _series(
    numbers: Numbers,
    entries: Sequence[tuple[str, str, Metric | None]],
    *,
    parts: Sequence[Metric | None] | None = None,
) -> tuple[Series, ...]:
    """(label, model, metric) as one series a model, less what has no value; a label that is a number is its place.

    `parts` of the values are taken where they are known of all that the value is made of.
    """
    series = []
    for slot, model in enumerate(numbers.models):
        points = [
            Point(
                value=metric.value,
                low=metric.low,
                high=metric.high,
                label=numbers.name(label),
                x=float(label) if label.isdigit() else 0.0,
                part=piece.value if (piece := parts[i] if parts else None) and piece.n == metric.n else None,
            )
            for i, (label, who, metric) in enumerate(entries)
            if who == model and metric is not None and metric.n and metric.value is not None
        ]
        if points:
            series.append(Series(name=numbers.name(model), slot=slot, points=tuple(points)))
    return tuple(series)


def _drawn(figure: Figure) -> tuple[Figure, ...]:
    """A figure only where it has something to show."""
    return (figure,) if any(series.points for series in figure.series) else ()


def _kept(tables: Sequence[Table | None]) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
