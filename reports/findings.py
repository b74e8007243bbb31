"""The headline sentences, worded so that they claim no more than the intervals support.

Two numbers are said to differ only where their intervals do not overlap; this is stricter than a test of
the difference at the same level, so a real difference may go unclaimed, but none is claimed lightly.
"""

from __future__ import annotations

from harness.types import Metric
from reports.numbers import Numbers
from reports.view import Finding
from reports.words import clean, count, inline, listing, percent, plural


def findings(numbers: Numbers) -> tuple[Finding, ...]:
    """What the run shows, most important first; empty where nothing was scored."""
    out = [_compared(numbers, model) for model in numbers.models[1:]]
    if len(numbers.models) == 1:
        out += [_strongest(numbers, numbers.models[0])]
    out += [_refusing(numbers, "over_refusal"), _helpful(numbers), _missing(numbers)]
    return tuple(finding for finding in out if finding)


def apart(one: Metric, other: Metric) -> bool:
    """Whether two intervals leave a gap between them."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low > other.high or one.high < other.low


def _strongest(numbers: Numbers, model: str) -> Finding | None:
    """The attack with the highest rate, what it cannot be told from, and how far it stands from asking directly."""
    rates = {a: m for a in numbers.attacks if (m := numbers.scored("asr", model=model, attack=a))}
    attacks = {a: m for a, m in rates.items() if a != "direct"} or rates
    if not attacks:
        return None
    top = max(attacks, key=lambda name: attacks[name].value or 0.0)
    best = attacks[top]
    if not best.value:
        limit = max(m.high or 0.0 for m in attacks.values())
        return Finding(
            claim=f"No attack made {clean(model)} give anything away.",
            detail=f"Every success rate is 0.0%; the intervals still allow up to {percent(limit)}.",
        )
    rivals = [clean(a, 28) for a, m in attacks.items() if a != top and not apart(m, best)]
    detail = f"Its success rate is {inline(best)} with n = {count(best.n)}."
    if rivals:
        detail += f" The interval overlaps with that of {listing(rivals)}, so which is strongest is not settled."
    direct = rates.get("direct")
    if direct is not None and top != "direct":
        gap = "" if apart(direct, best) else "; the two intervals overlap"
        detail += f" Asked directly, the model gives it away in {inline(direct)}{gap}."
    verb = "was highest for" if rivals else "got the most out of"
    claim = f"Success {verb} {clean(top, 28)}." if rivals else f"{clean(top, 28)} {verb} {clean(model)}."
    return Finding(claim=claim, detail=detail)


def _compared(numbers: Numbers, model: str) -> Finding | None:
    """One model against the first one, attack by attack."""
    base = numbers.models[0]
    pairs = {
        a: (old, new)
        for a in numbers.attacks
        if (old := numbers.scored("asr", model=base, attack=a))
        and (new := numbers.scored("asr", model=model, attack=a))
    }
    if not pairs:
        return None
    lower = [a for a, (old, new) in pairs.items() if apart(old, new) and (new.value or 0) < (old.value or 0)]
    higher = [a for a, (old, new) in pairs.items() if apart(old, new) and (new.value or 0) > (old.value or 0)]
    rest = [clean(a, 28) for a in pairs if a not in lower and a not in higher]
    words = [f"{verb} on {len(found)}" for verb, found in (("lower", lower), ("higher", higher)) if found]
    verdict = f"is {' and '.join(words)} of {plural(len(pairs), 'attack')}" if words else "cannot be told from it"
    moved = sorted(lower + higher, key=lambda a: -abs((pairs[a][0].value or 0) - (pairs[a][1].value or 0)))
    detail = ""
    if moved:
        old, new = pairs[moved[0]]
        detail = f"The widest gap is on {clean(moved[0], 28)}: {inline(new)} against {inline(old)}."
    if rest:
        detail += f" On {listing(rest)} the intervals overlap."
    return Finding(claim=f"Against {clean(base)}, the success rate on {clean(model)} {verdict}.", detail=detail.strip())


def _refusing(numbers: Numbers, name: str) -> Finding | None:
    """How much of what should be answered is refused."""
    told: list[str] = []
    for task in numbers.values(name, "task"):
        rates = [(m, rate) for m in numbers.models if (rate := numbers.scored(name, model=m, task=task))]
        who = [f"{clean(m)} {inline(rate)}" if len(numbers.models) > 1 else inline(rate) for m, rate in rates]
        if who:
            told.append(f"{clean(task, 28)}: {', '.join(who)}")
    if not told:
        return None
    rates_all = [m for m in numbers.run.metrics if m.name == name and m.n and m.value is not None]
    none = all(not m.value for m in rates_all)
    limit = max((m.high or 0.0 for m in rates_all), default=0.0)
    claim = (
        "No request that should be answered was refused."
        if none
        else "Some requests that should be answered are refused."
    )
    detail = f"{'; '.join(told)}." + (f" The intervals allow up to {percent(limit)}." if none else "")
    return Finding(claim=claim, detail=detail)


def _helpful(numbers: Numbers) -> Finding | None:
    """What the models still do well, and whether a difference from the first one shows."""
    tasks = numbers.values("helpfulness", "task")
    base, *others = numbers.models or ("",)
    shown: list[str] = []
    for task in tasks:
        rates = [(m, rate) for m in numbers.models if (rate := numbers.scored("helpfulness", model=m, task=task))]
        who = [f"{clean(m)} {inline(rate)}" if others else inline(rate) for m, rate in rates]
        if who:
            shown.append(f"{clean(task, 28)}: {', '.join(who)}")
    if not shown:
        return None
    if not others:
        return Finding(claim="Helpfulness, as a reference for later changes.", detail=f"{'; '.join(shown)}.")
    moved = [
        f"{clean(model)} on {clean(task, 28)}"
        for model in others
        for task in tasks
        if (old := numbers.scored("helpfulness", model=base, task=task))
        and (new := numbers.scored("helpfulness", model=model, task=task))
        and apart(old, new)
    ]
    claim = (
        f"Helpfulness differs from {clean(base)} for {listing(moved)}."
        if moved
        else (f"No difference in helpfulness from {clean(base)} shows: the intervals overlap on every task.")
    )
    return Finding(claim=claim, detail=f"{'; '.join(shown)}.")


def _missing(numbers: Numbers) -> Finding | None:
    """How many replies have no verdict; said at the top, because it bounds every number below."""
    records = numbers.run.records
    errors = sum(record.error is not None for record in records)
    unscored = sum(record.label == "unscored" for record in records)
    if not errors + unscored:
        return None
    share = percent((errors + unscored) / len(records))
    return Finding(
        claim=f"{count(errors + unscored)} of {plural(len(records), 'attempt')} ({share}) have no verdict.",
        detail=f"{plural(errors, 'error')}, {count(unscored)} unscored. They are never taken as safe: "
        "the worst-case columns show how far they could move each number.",
    )
