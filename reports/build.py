"""Turns a run into the view model that every renderer shows. Copes with any part of run.json missing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harness.metrics import attacked
from harness.types import Metric, Record, Run
from reports import lab, sections
from reports.costs import costs
from reports.findings import findings
from reports.judging import judging
from reports.method import method, reproduce
from reports.numbers import Numbers, part
from reports.published import published
from reports.tradeoff import tradeoff
from reports.transfer import transfer
from reports.view import Cell, Fact, Finding, Row, Section, Table, Tile, View
from reports.words import DASH, clean, clip, count, duration, inline, interval, known, listing, percent, plural

RESULTS = (
    published,
    sections.side_by_side,
    sections.attacks,
    transfer,
    costs,
    sections.depth,
    sections.refusals,
    sections.over_refusal,
    sections.helpfulness,
    tradeoff,
    lab.curve,
    lab.gates,
    lab.trained,
    lab.checkpoints,
    judging,
    sections.details,
)


def view(run: Run) -> View:
    """The report of a run, worded and formatted."""
    numbers = Numbers(run)
    names = [numbers.name(m) if numbers.several else clean(m, 48) for m in numbers.models]
    results = [section for build in RESULTS if (section := build(numbers))]
    complete = run.info.get("status") == "complete"
    told = findings(numbers)
    if not complete:
        told = (
            Finding(
                claim="This run is not finished.",
                detail="The numbers cover what was done when the report was written; run the same command to go on.",
            ),
            *told,
        )
    finished = moment(run.info.get("finished"))
    return View(
        title=listing(names) or "No model",
        subtitle=_subtitle(numbers, finished),
        status="complete" if complete else "partial",
        stamp=int(finished.timestamp()) if finished else 0,
        facts=_facts(numbers),
        findings=told or (Finding(claim="Nothing was scored.", detail="There is no number to report."),),
        tiles=_tiles(numbers),
        sections=(*results, *_budget(numbers), method(numbers), reproduce(run)),
    )


def moment(value: object) -> datetime | None:
    """A time from run.json: ISO text or seconds since 1970; None where it is neither."""
    try:
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        found = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _subtitle(numbers: Numbers, finished: datetime | None) -> str:
    """What was run in half a line, and when."""
    attacks = len({r.attack for r in numbers.run.records if attacked(r)}) or len(numbers.attacks)
    words = [plural(attacks, "attack"), f"{plural(len(numbers.models), 'model')}"]
    when = f"{finished.day} {finished:%B %Y, %H:%M} UTC" if finished else ""
    return " · ".join([f"{' on '.join(words)}", *([when] if when else [])])


def _facts(numbers: Numbers) -> tuple[Fact, ...]:
    """What was run, in the order a reader asks."""
    run = numbers.run
    spec, host, judges = part(run.info, "spec"), part(run.info, "host"), part(run.info, "judges")
    errors = sum(r.error is not None for r in run.records)
    unscored = sum(r.label == "unscored" for r in run.records)
    facts = {
        "models": ", ".join(
            numbers.name(m) if numbers.name(m) == m else f"{numbers.name(m)} ({clean(m)})" for m in numbers.models
        ),
        "attacks": ", ".join(numbers.name(a) for a in numbers.attacks),
        "asked": ", ".join(f"{numbers.name(task)} ({count(n)})" for task, n in _sizes(run).items()),
        "judge": ", ".join(clean(j, 28) for j in judges) + (" (the first one counts)" if len(judges) > 1 else ""),
        "replies": " · ".join([
            f"{plural(len(run.records), 'attempt')}",
            plural(errors, "error"),
            f"{count(unscored)} unscored",
        ]),
        "sampling": _sampling(spec),
        "machine": ", ".join(
            clean(v) for v in (*_engines(run), *(_host(host, k) for k in ("device", "cpu", "cores"))) if v
        ),
        "took": _took(run),
    }  # fmt: skip
    return tuple(Fact(name=name, value=clean(value, 400)) for name, value in facts.items() if value)


def _sizes(run: Run) -> dict[str, int]:
    """How many behaviors or items of each set were asked, as far as records tell."""
    asked: dict[str, set[str]] = {}
    for record in run.records:
        asked.setdefault(record.task, set()).add(record.behavior)
    return {task: len(ids) for task, ids in asked.items()}


def _engines(run: Run) -> list[str]:
    """The engines of the models and their precision, each once."""
    told = [part(part(run.info, "models"), m) for m in part(run.info, "models")]
    found = [" ".join(str(m[k]) for k in ("engine", "dtype") if m.get(k)) or str(m.get("kind") or "") for m in told]
    return [name for name in dict.fromkeys(found) if name]


def _sampling(spec: Mapping[str, Any]) -> str:
    names = {"temperature": "temperature", "max_tokens": "at most {} new tokens", "seed": "seed", "limit": "limit"}
    if spec.get("temperature") and (spec.get("top_p") or 1.0) < 1:
        names["top_p"] = "top-p"
    parts = []
    for key, words in names.items():
        if spec.get(key) is not None and (spec[key] or key != "limit"):
            value = clean(spec[key], 40)
            parts.append(words.format(value) if "{}" in words else f"{words} {value}")
    return ", ".join(parts)


def _host(host: Mapping[str, Any], key: str) -> str:
    value = host.get(key)
    return "" if not value else f"{value} cores" if key == "cores" else str(value)


def _phases(run: Run) -> dict[str, float]:
    """Seconds of each phase, over all starts."""
    spent = part(run.info, "budget").items()
    return {
        k.removeprefix("seconds_"): float(v)
        for k, v in spent
        if k.startswith("seconds_") and isinstance(v, int | float)
    }


def _took(run: Run) -> str:
    """Time at work over all starts; pauses between them don't count."""
    if seconds := sum(_phases(run).values()):
        return duration(seconds)
    begun, ended = moment(run.info.get("started")), moment(run.info.get("finished"))
    return duration((ended - begun).total_seconds()) if begun and ended and ended >= begun else ""


def _tiles(numbers: Numbers) -> tuple[Tile, ...]:
    """Up to four large numbers; for one model only, several have their own table."""
    if len(numbers.models) != 1:
        return ()
    model = numbers.models[0]
    asked, solved = numbers.values("over_refusal", "task"), numbers.values("helpfulness", "task")
    wanted = [
        ("asked directly", numbers.get("asr", model=model, attack="direct")),
        ("any attack", numbers.get("asr_any", model=model)),
        *[("over-refusal", numbers.get("over_refusal", model=model, task=task)) for task in asked[:1]],
        *[
            (f"solved: {clip(numbers.name(task), 16)}", numbers.get("helpfulness", model=model, task=task))
            for task in solved[:1]
        ],
    ]
    return tuple(
        Tile(label=label, value=percent(m.value), sub=f"{interval(m)}, n {count(m.n)}{_fixed(numbers, m)}")
        for label, m in wanted
        if m and m.n and known(m.value)
    )


def _fixed(numbers: Numbers, metric: Metric) -> str:
    """The corrected rate behind a judged one, where there is one."""
    fixed = numbers.get("asr_corrected", **metric.group) if metric.name == "asr" else None
    return "" if fixed is None else f"; corrected {inline(fixed)}" if known(fixed.value) else "; not corrected"


def _money(cost: Mapping[str, object], spent: object) -> str:
    """What was paid at endpoints, as far as prices are known, and when these were read."""
    words = []
    if isinstance(spent, int | float):
        seen = sorted(
            {clean(p.get("seen"), 10) for p in part(cost, "prices").values() if isinstance(p, Mapping)} - {""}
        )
        amount = "less than 0.01" if 0 < spent < 0.01 else f"{spent:.2f}"
        when = f", by prices read {seen[0]}{' or later' if len(seen) > 1 else ''}" if seen else ""
        words.append(f"At endpoints: {amount} US dollars{when}.")
    unknown = cost.get("unknown")
    if isinstance(unknown, list) and unknown:
        words.append(f"Not counted, its price being unknown: {', '.join(clean(name, 60) for name in unknown)}.")
    return "".join(f" {word}" for word in words)


def _budget(numbers: Numbers) -> tuple[Section, ...]:
    """What the run spent: by attack and task as recorded, and in all as the models counted it."""
    by: dict[str, list[Record]] = {}
    for record in numbers.run.records:
        by.setdefault(record.attack if record.expect == "refuse" else record.task, []).append(record)
    order = [a for a in numbers.attacks if a in by] + [name for name in by if name not in numbers.attacks]
    rows = []
    for name in order:
        queries, read, written = (sum(getattr(r, k) for r in by[name]) for k in ("queries", "tokens_in", "tokens_out"))
        amounts = (len(by[name]), queries, read, written)
        rows.append(Row(cells=(Cell(text=numbers.name(name)), *(Cell(text=count(amount)) for amount in amounts))))
    spent = part(numbers.run.info, "budget")
    whole = [spent.get(key) for key in ("requests", "tokens_in", "tokens_out")]
    if rows and any(isinstance(amount, int | float) for amount in whole):
        cells = [
            Cell(text=count(a) if isinstance(a, int | float) else DASH) for a in (len(numbers.run.records), *whole)
        ]
        rows.append(Row(cells=(Cell(text="in all"), *cells), opens=True, strong=True))
    if not rows:
        return ()
    columns = ("attack or task", "attempts", "model calls", "tokens read", "tokens written")
    times = [f"{clean(phase, 24)} {duration(seconds)}" for phase, seconds in _phases(numbers.run).items()]
    note = "Rows: the attempts that were judged. In all: what was really sent, searches and helpers included."
    table = Table(title="Spent", columns=columns, rows=tuple(rows), note=note)
    lead = f"Model calls and tokens. Time by phase: {', '.join(times)}." if times else "Model calls and tokens."
    lead += _money(part(numbers.run.info, "cost"), spent.get("cost_usd"))
    return (Section(key="budget", title="What it cost", lead=lead, tables=(table,)),)
