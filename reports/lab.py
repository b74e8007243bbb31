"""What only a lab's report has: what was trained, every checkpoint, the trade-off over a swept setting, the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.types import Metric
from reports.numbers import Numbers, part
from reports.tables import Column, matrix
from reports.tradeoff import mean
from reports.view import Cell, Figure, Point, Row, Section, Series, Table
from reports.words import DASH, clean, count, duration, listing, shorten

DEEP = "prefill"


def trained(numbers: Numbers) -> Section | None:
    """What each method saw: the comparison is fair only where these are alike."""
    methods = part(part(numbers.run.info, "lab"), "methods")
    rows = []
    for label, method in methods.items():
        own = list(part(method, "checkpoints").values())
        if not own:
            continue
        pairs = {str(c.get("pairs", DASH)) for c in own}
        helpful = {str(part(c, "pairs_by_part").get("helpful", 0)) for c in own}
        cells = [
            clean(label) + (" (experimental)" if method.get("experimental") else ""),
            count(len(own)),
            listing(sorted(pairs)),
            listing(sorted(helpful)),
            spread(own, "steps"),
            spread(own, "tokens_seen"),
            spread(own, "supervised_seen"),
            duration(sum(float(c.get("seconds") or 0.0) for c in own) / len(own)),
        ]
        rows.append(Row(cells=tuple(Cell(text=text) for text in cells)))
    if not rows:
        return None
    columns = ("method", "seeds", "pairs", "helpful", "steps", "tokens read", "labelled", "time each")
    note = "Pairs: safety pairs of one checkpoint. Tokens and labelled positions: the mean over its seeds."
    table = Table(title="Methods", columns=columns, rows=tuple(rows), note=note)
    lead = "All methods draw on the same triples and helpful pairs, in the same order for the same seed."
    return Section(key="trained", title="What was trained", lead=lead, tables=(table,))


def spread(checkpoints: Sequence[Mapping[str, Any]], key: str) -> str:
    """The mean of a count over checkpoints."""
    values = [float(c[key]) for c in checkpoints if isinstance(c.get(key), int | float)]
    return count(sum(values) / len(values)) if values else DASH


def checkpoints(numbers: Numbers, most: int = 6) -> Section | None:
    """Every checkpoint by itself: how far seeds are apart."""
    methods = part(part(numbers.run.info, "lab"), "methods")
    names = [name for method in methods.values() for name in part(method, "checkpoints")]
    if len(names) <= len(methods):
        return None
    columns: list[Column] = [(numbers.name(a), "asr", {"attack": a}) for a in numbers.attacks]
    for task in numbers.values("over_refusal", "task"):
        columns += [
            (f"refused early: {numbers.name(task)}", "over_refusal_early", {"task": task}),
            (f"refused late: {numbers.name(task)}", "over_refusal_late", {"task": task}),
        ]
    columns += [
        (f"solved: {numbers.name(t)}", "helpfulness", {"task": t}) for t in numbers.values("helpfulness", "task")
    ]
    kept = [c for c in columns if any(numbers.get(c[1], checkpoint=name, **c[2]) for name in names)]
    tables = []
    for start in range(0, len(kept), most):
        block = kept[start : start + most]
        rows = [(clean(name, 40), [numbers.get(m, checkpoint=name, **g) for _, m, g in block]) for name in names]
        tables.append(matrix("Checkpoints", "checkpoint", [label for label, _, _ in block], rows))
    lead = "One row a training seed; the numbers of a method above are the means of its rows."
    return Section(key="checkpoints", title="Every checkpoint", lead=lead, tables=tuple(tables)) if tables else None


def curve(numbers: Numbers) -> Section | None:
    """Over a swept setting: what attacks still get, and what is refused though it should be answered."""
    lab = part(numbers.run.info, "lab")
    key = str(part(lab, "spec").get("sweep") or "")
    swept = {
        label: float(method["swept"][key])
        for label, method in part(lab, "methods").items()
        if isinstance(part(method, "swept").get(key), int | float)
    }
    if len(swept) < 2:
        return None
    by_method: dict[str, dict[str, float]] = {}
    for label, value in sorted(swept.items(), key=lambda pair: pair[1]):
        by_method.setdefault(label.partition(f" {key}=")[0], {})[label] = value
    several, shown = len(by_method) > 1, shorten(by_method)
    named = {
        label: f"{shown[method]} {value:g}" if several else f"{value:g}"
        for method, values in by_method.items()
        for label, value in values.items()
    }
    attack = DEEP if numbers.values("asr_depth", "depth") else next(iter(numbers.attacks), "")
    lines = {
        f"{numbers.name(attack)}: given away": {m: numbers.scored("asr", model=m, attack=attack) for m in swept},
        "refused early": {m: mean(numbers, "over_refusal_early", m) for m in swept},
        "refused late": {m: mean(numbers, "over_refusal_late", m) for m in swept},
    }
    drawn = [
        (f"{shown[method]}: {name}" if several else name, points(found, values))
        for method, values in by_method.items()
        for name, found in lines.items()
    ]
    over = Figure(
        key="sweep",
        kind="lines",
        caption=f"Over {clean(key)}: what the attack gets, and which look-alikes are refused, early and late.",
        alt=f"ASR under {attack} and early and late over-refusal against {clean(key)}; the table gives the numbers.",
        series=tuple(
            Series(name=name, slot=slot, points=tuple(found)) for slot, (name, found) in enumerate(drawn) if found
        ),
        x_label=clean(key),
        y_label="share (%)",
        whole=False,
    )
    against = against_each_other(numbers, named, attack, key)
    columns = [*lines, "refused in all"]
    table = matrix(
        "The trade-off", f"method, {clean(key)}" if several else clean(key), columns,
        [(name, [*(found[m] for found in lines.values()), mean(numbers, "over_refusal", m)])
         for m, name in named.items()],
    )  # fmt: skip
    lead = (
        "A defence that refuses more also refuses more of what it should answer. The lower left corner of the second "
        "figure is where both are kept."
    )
    figures = tuple(figure for figure in (over, against) if figure.series)
    return Section(key="sweep", title="What safety costs here", lead=lead, figures=figures, tables=(table,))


def points(found: Mapping[str, Metric | None], swept: Mapping[str, float]) -> list[Point]:
    """A metric over the swept values of one method, in their order."""
    return [
        Point(x=value, value=m.value, low=m.low, high=m.high)
        for label, value in swept.items()
        if (m := found[label]) is not None and m.value is not None
    ]


def against_each_other(numbers: Numbers, named: Mapping[str, str], attack: str, key: str) -> Figure:
    """One mark a value (of each method): look-alikes refused across, the attack's success up."""
    series = []
    for slot, (label, name) in enumerate(named.items()):
        y, x = numbers.scored("asr", model=label, attack=attack), mean(numbers, "over_refusal", label)
        if y is not None and y.value is not None and x is not None and x.value is not None:
            point = Point(value=y.value, low=y.low, high=y.high, x=x.value, x_low=x.low, x_high=x.high)
            series.append(Series(name=name, slot=slot, points=(point,)))
    return Figure(
        key="sweepscatter",
        kind="scatter",
        caption=f"Success of {numbers.name(attack)} against look-alikes refused, one mark a value of {clean(key)}.",
        alt=f"ASR under {attack} against over-refusal for each value of {clean(key)}; the table gives the numbers.",
        series=tuple(series),
        x_label="look-alikes refused, early or late (%)",
        y_label=f"ASR, {numbers.name(attack)} (%)",
        whole=False,
    )


def gates(numbers: Numbers) -> Section | None:
    """The verdict of every gate."""
    told = part(numbers.run.info, "lab").get("gates")
    rows = [
        Row(
            cells=(
                Cell(text=f"{clean(gate['candidate'])} against {clean(gate['baseline'])}"),
                Cell(text=str(gate["seed"])),
                Cell(text=clean(gate["outcome"])),
                Cell(text=clean(listing(gate["failed"]), 120) or DASH),
                Cell(text=count(gate["needed"]) if gate["needed"] else DASH),
            )
        )
        for gate in (told if isinstance(told, list | tuple) else ())
    ]
    if not rows:
        return None
    columns = ("candidate", "seed", "outcome", "failed on", "behaviors needed")
    note = "Behaviors needed: with so many, what is inconclusive would likely be decided."
    table = Table(title="Gates", columns=columns, rows=tuple(rows), left=1, note=note)
    lead = "Is the candidate worse than the baseline, beyond what chance explains? Seed by seed, on the same behaviors."
    return Section(key="gates", title="Gates", lead=lead, tables=(table,))
