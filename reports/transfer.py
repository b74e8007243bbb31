"""Transfer: what prompts that another run found do here, beside what they did there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.metrics import attacked, complied, tally
from harness.types import Metric
from reports.numbers import Numbers, part
from reports.view import Cell, Fact, Row, Section, Table
from reports.words import DASH, clean, count, listing, percent, plural, short


def transfer(numbers: Numbers) -> Section | None:
    """Where the replayed prompts are from, and their success there and here; None where nothing was replayed."""
    source = part(part(part(numbers.run.info, "attacks"), "replay"), "source")
    if not source:
        return None
    labels = part(source, "labels")
    rows = []
    for name in labels:
        here = [_here(numbers, m, str(name)) for m in numbers.models]
        rows.append(Row(cells=(Cell(text=clean(name, 48)), there(part(labels, name)), *map(short, here))))
    heads = [f"ASR here: {numbers.name(m)}" for m in numbers.models] if numbers.several else ["ASR here"]
    table = Table(
        title="Transfer",
        columns=("found by: variant @ model", "ASR there", *heads),
        rows=tuple(rows),
        note="The same prompts on the same behaviors. There: as that run judged them.",
        stacked=numbers.several,
    )
    lead = (
        "Prompts that another run found, sent here as they are, at one query each. Where they were found on other "
        "weights, what works here has transferred."
    )
    return Section(key="transfer", title="What transfers", lead=lead, tables=(table,), facts=facts(source))


def _here(numbers: Numbers, model: str, name: str) -> Metric | None:
    """The success rate of one variant; None where it was not tried. The only one that was judged has no metric."""
    if (metric := numbers.get("asr", model=model, attack="replay", variant=name)) is not None:
        return metric
    records = numbers.run.records
    mine = [r for r in records if (r.model, r.attack, r.variant) == (model, "replay", name) and attacked(r)]
    return tally("asr", mine, complied, model=model, attack="replay", variant=name) if mine else None


def there(labels: Mapping[str, Any]) -> Cell:
    """The source run's own rate on these prompts, with what stands outside it."""
    told = {str(k): int(v) for k, v in labels.items() if isinstance(v, int)}
    lost = told.get("error", 0) + told.get("unscored", 0)
    n = sum(told.values()) - lost
    outside = f", {count(lost)} without a verdict" if lost else ""
    metric = rate(told.get("complied", 0), n)
    return Cell(text=percent(metric.value) if metric else DASH, sub=f"n {count(n)}{outside}")


def rate(k: int, n: int) -> Metric | None:
    """k of n as a metric without interval: it is another run's number, told for comparison."""
    return Metric(name="asr", value=k / n, low=None, high=None, n=n) if n else None


def facts(source: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Where the prompts are from, and what has no counterpart."""
    models = [
        f"{clean(name)} ({clean(sha, 16)})" if sha else clean(name) for name, sha in part(source, "models").items()
    ]
    number = {k: v for k, v in source.items() if isinstance(v, int)}
    counterpart = [
        f"{plural(number.get('behaviors', 0), 'behavior')} with prompts",
        f"{count(number.get('without_counterpart', 0))} without",
        f"{count(number.get('not_asked_here', 0))} of the source not asked here",
    ]
    if number.get("beyond_the_model"):
        counterpart.append(f"{plural(number['beyond_the_model'], 'prompt')} beyond what this model can take")
    told = {
        "from": f"{clean(source.get('run', DASH))} ({clean(source.get('status', 'unknown'))})",
        "found on": listing(models),
        "matched by id": ", ".join(counterpart),
    }
    return tuple(Fact(name=name, value=clean(value, 400)) for name, value in told.items() if value)
