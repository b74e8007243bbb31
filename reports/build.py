"""Turns a run into the view model that every renderer shows. Copes with any part of run.json missing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from harness.types import Run
from reports import sections
from reports.findings import findings
from reports.method import method, reproduce
from reports.numbers import Numbers, part
from reports.view import Cell, Fact, Finding, Row, Section, Table, Tile, View
from reports.words import clean, compact, count, duration, known, listing, percent, plural

RESULTS = (
    sections.attacks,
    sections.depth,
    sections.refusals,
    sections.over_refusal,
    sections.helpfulness,
    sections.tradeoff,
    sections.variants,
)


def view(run: Run) -> View:
    """The report of a run, worded and formatted."""
    numbers = Numbers(run)
    names = [clean(model, 40) for model in numbers.models]
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
    attacked = len({r.attack for r in numbers.run.records if r.expect == "refuse"}) or len(numbers.attacks)
    words = [plural(attacked, "attack"), f"{plural(len(numbers.models), 'model')}"]
    when = f"{finished.day} {finished:%B %Y, %H:%M} UTC" if finished else ""
    return " · ".join([f"{' on '.join(words)}", *([when] if when else [])])


def _facts(numbers: Numbers) -> tuple[Fact, ...]:
    """What was run, in the order a reader asks."""
    run = numbers.run
    spec, host, judges = part(run.info, "spec"), part(run.info, "host"), part(run.info, "judges")
    errors = sum(r.error is not None for r in run.records)
    unscored = sum(r.label == "unscored" for r in run.records)
    facts = {
        "models": ", ".join(_model(name, part(part(run.info, "models"), name)) for name in numbers.models),
        "attacks": ", ".join(clean(a, 28) for a in numbers.attacks),
        "asked": ", ".join(f"{clean(k, 28)} ({_size(v)})" for k, v in part(run.info, "tasks").items()),
        "judge": ", ".join(clean(j, 28) for j in judges) or clean(spec.get("judge", "")),
        "replies": " · ".join([
            f"{plural(len(run.records), 'attempt')}",
            plural(errors, "error"),
            f"{count(unscored)} unscored",
        ]),
        "sampling": _sampling(spec),
        "machine": ", ".join(clean(v, 60) for k in ("device", "engine", "cpu", "cores") if (v := _host(host, k))),
        "took": _took(run),
    }  # fmt: skip
    return tuple(Fact(name=name, value=clean(value, 400)) for name, value in facts.items() if value)


def _model(label: str, info: Mapping[str, Any]) -> str:
    name = str(info.get("name") or "")
    return f"{clean(label, 40)} ({clean(name)})" if name and name != label else clean(label, 40)


def _size(task: object) -> str:
    n = task.get("n") if isinstance(task, Mapping) else None
    return count(n) if isinstance(n, int | float) else "size unknown"


def _sampling(spec: Mapping[str, Any]) -> str:
    names = {"temperature": "temperature", "max_tokens": "at most {} new tokens", "seed": "seed", "limit": "limit"}
    parts = []
    for key, words in names.items():
        if spec.get(key) is not None:
            value = clean(spec[key], 40)
            parts.append(words.format(value) if "{}" in words else f"{words} {value}")
    return ", ".join(parts)


def _host(host: Mapping[str, Any], key: str) -> str:
    value = host.get(key)
    return "" if not value else f"{value} cores" if key == "cores" else str(value)


def _took(run: Run) -> str:
    total = part(run.info, "budget").get("seconds_total")
    if isinstance(total, int | float):
        return duration(float(total))
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
        *[(f"solved: {clean(task, 16)}", numbers.get("helpfulness", model=model, task=task)) for task in solved[:1]],
    ]
    return tuple(
        Tile(label=label, value=percent(m.value), sub=compact(m).sub)
        for label, m in wanted
        if m and known(m.value) and m.n
    )


def _budget(numbers: Numbers) -> tuple[Section, ...]:
    """What the run spent, by attack and in all."""
    spent = part(numbers.run.info, "budget")
    keys = ("queries", "tokens_in", "tokens_out", "seconds")
    by = {str(name): entry for name, entry in part(spent, "by_attack").items() if isinstance(entry, Mapping)}
    order = [a for a in numbers.attacks if a in by] + [a for a in by if a not in numbers.attacks]
    rows = [Row(cells=(Cell(text=clean(a, 32)), *(_amount(by[a].get(k), k) for k in keys))) for a in order]
    whole = {**spent, "seconds": spent.get("seconds_generate")}
    if any(isinstance(whole.get(k), int | float) for k in keys):
        rows.append(
            Row(cells=(Cell(text="in all"), *(_amount(whole.get(k), k) for k in keys)), opens=True, strong=True)
        )
    if not rows:
        return ()
    judging = spent.get("seconds_judge")
    note = f"Judging took {duration(float(judging))} besides." if isinstance(judging, int | float) else ""
    columns = ("attack", "model calls", "tokens read", "tokens written", "time")
    table = Table(title="Spent", columns=columns, rows=tuple(rows), note=note)
    lead = (
        "Model calls, tokens and time. Attacks run at once: their times overlap and may add up to more than the whole."
    )
    return (Section(key="budget", title="What it cost", lead=lead, tables=(table,)),)


def _amount(value: object, key: str) -> Cell:
    if not isinstance(value, int | float):
        return Cell(text="–")
    return Cell(text=duration(float(value)) if key == "seconds" else count(value))
