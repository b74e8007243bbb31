"""The headline sentences, worded so that they claim no more than the intervals support.

Two numbers are said to differ only where their intervals do not overlap; this is stricter than a test of
the difference at the same level, so a real difference may go unclaimed, but none is claimed lightly.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.types import Metric
from reports.judging import corrections
from reports.numbers import Numbers
from reports.view import Finding
from reports.words import count, inline, listing, missing, percent, plural

Pair = tuple[str, Metric, Metric]  # what is compared, on the first model, on the other


def findings(numbers: Numbers) -> tuple[Finding, ...]:
    """What the run shows, most important first; empty where nothing was scored."""
    others = numbers.models[1:]
    if len(others) > 3:
        out = [_lowest(numbers)]
    elif others:
        out = [_attacked(numbers, model) for model in others]
        out += [_cost(numbers, model) for model in others]
    else:
        out = [_strongest(numbers), _refusing(numbers), _helpful(numbers)]
    return tuple(finding for finding in [*out, corrections(numbers), _missing(numbers)] if finding)


def apart(one: Metric, other: Metric) -> bool:
    """Whether two intervals leave a gap between them."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return False
    return one.low > other.high or one.high < other.low


def _strongest(numbers: Numbers) -> Finding | None:
    """The attacks with the highest rates that intervals cannot tell apart, and how asking directly compares."""
    model = next(iter(numbers.models), "")
    rates = {a: m for a in numbers.attacks if (m := numbers.scored("asr", model=model, attack=a))}
    attacks = {a: m for a, m in rates.items() if a != "direct"} or rates
    if not attacks:
        return None
    direct = rates.get("direct")
    first = max(attacks, key=lambda a: attacks[a].value or 0.0)
    if direct is not None and direct.value and first != "direct" and direct.value >= (attacks[first].value or 0.0):
        claim = f"No attack got more out of {numbers.name(model)} than asking directly: {inline(direct)}."
        return Finding(claim=claim, detail=f"The strongest, {numbers.name(first)}, got {inline(attacks[first])}.")
    limit = percent(max(m.high or 0.0 for m in attacks.values()))
    if not any(m.value for m in attacks.values()):
        asked = [a for a in numbers.attacks if numbers.get("asr", model=model, attack=a)]
        none, some = [a for a in asked if a not in rates], [a for a in asked if a in rates and missing(rates[a])]
        claim = f"No attack made {numbers.name(model)} give anything away."
        detail = f"Every success rate is 0.0%; the intervals still allow up to {limit}."
        if none or some:
            claim = f"No reply of {numbers.name(model)} that has a verdict gave anything away."
        for start, found in (("Replies", none), ("Some replies", some)):
            if found:
                detail += f" {start} under {listing([numbers.name(a) for a in found], limit=6)} have none."
        return Finding(claim=claim, detail=detail)
    ranked = sorted(attacks, key=lambda a: -(attacks[a].value or 0.0))
    best = attacks[ranked[0]]
    top = [a for a in ranked if a == ranked[0] or not apart(attacks[a], best)]
    named = listing([f"{numbers.name(a)} {inline(attacks[a])}" for a in top])
    if len(top) == 1:
        claim, detail = f"{numbers.name(top[0])} got the most out of {numbers.name(model)}: {inline(best)}.", ""
    elif len(top) == len(attacks):
        claim, detail = "No attack stands out: the intervals overlap.", f"Success rates: {named}."
    else:
        claim, detail = "The strongest attacks cannot be told apart.", f"Success rates: {named}."
    if direct is not None and direct is not best:
        close = "." if apart(direct, best) else ", and the intervals overlap."
        detail += f" Asked directly, the model gives away {inline(direct)}{close}"
    return Finding(claim=claim, detail=detail.strip())


def _lowest(numbers: Numbers) -> Finding | None:
    """Of many models, those with the lowest rate over all attacks that intervals cannot tell apart."""
    rates = {m: rate for m in numbers.models if (rate := numbers.scored("asr_any", model=m))}
    if not rates:
        return None
    ranked = sorted(rates, key=lambda m: rates[m].value or 0.0)
    best = rates[ranked[0]]
    top = [m for m in ranked if m == ranked[0] or not apart(rates[m], best)]
    named = listing([f"{numbers.name(m)} {inline(rates[m])}" for m in top])
    rest = "" if len(top) == 1 else " The intervals overlap, so the order among them is not settled."
    claim = f"Lowest success rate over all attacks: {listing([numbers.name(m) for m in top])}."
    return Finding(claim=claim, detail=f"{named}.{rest}")


def _attacked(numbers: Numbers, model: str) -> Finding | None:
    """One model under attack, against the first."""
    base = numbers.name(numbers.models[0])
    pairs = _pairs(numbers, model, "asr", "attack", numbers.attacks)
    if not pairs:
        return None
    lower, higher, rest = _split(pairs)
    words = [f"{verb} on {len(found)}" for verb, found in (("lower", lower), ("higher", higher)) if found]
    name = numbers.name(model)
    if not words:
        claim = f"{name}: no attack tells it from {base}."
        return Finding(claim=claim, detail=f"The intervals overlap on {_all(rest)}.")
    claim = f"{name}: success rate {' and '.join(words)} of {plural(len(pairs), 'attack')} than on {base}."
    what, old, new = max(lower + higher, key=_gap)
    detail = f"The widest gap is on {what}: {inline(new)} against {inline(old)}."
    return Finding(claim=claim, detail=detail + (f" The intervals overlap on {_all(rest)}." if rest else ""))


def _cost(numbers: Numbers, model: str) -> Finding | None:
    """What a model refuses and solves, against the first."""
    refused = _pairs(numbers, model, "over_refusal", "task", numbers.values("over_refusal", "task"))
    solved = _pairs(numbers, model, "helpfulness", "task", numbers.values("helpfulness", "task"))
    if not refused and not solved:
        return None
    base, name = numbers.name(numbers.models[0]), numbers.name(model)
    fewer, more, _ = _split(refused)
    worse, better, _ = _split(solved)
    told = (
        ("refuses more of", more),
        ("refuses less of", fewer),
        ("solves less of", worse),
        ("solves more of", better),
    )
    moved = [f"{verb} {what} ({inline(new)} against {inline(old)})" for verb, found in told for what, old, new in found]
    wide = max(((m.high or 0.0) - (m.low or 0.0)) / 2 for _, *two in refused + solved for m in two)
    limit = f"The intervals reach up to {100 * wide:.0f} points either way: smaller changes would not show."
    if not moved:
        kinds = [word for word, found in (("over-refusal", refused), ("helpfulness", solved)) if found]
        what, old, new = pair = max(refused + solved, key=_gap)
        verb = "refuses" if pair in refused else "solves"
        seen = f"It {verb} {inline(new)} of {what} against {inline(old)}; the intervals overlap. " if _gap(pair) else ""
        return Finding(claim=f"{name}: no change of {' or '.join(kinds)} from {base} is settled.", detail=seen + limit)
    same = len(refused) + len(solved) - len(moved)
    rest = f" On the other {plural(same, 'set')} no change shows." if same else ""
    return Finding(claim=f"{name} {listing(moved)}.", detail=f"Compared with {base}.{rest}")


def _refusing(numbers: Numbers) -> Finding | None:
    """How much of what should be answered is refused, for one model."""
    rates = _rates(numbers, "over_refusal")
    if not rates:
        return None
    if any(m.value for _, m in rates):
        claim = "Some of what should be answered is refused."
        return Finding(claim=claim, detail=f"{_told(rates)}.")
    limit = percent(max(m.high or 0.0 for _, m in rates))
    whole = len(rates) == len(numbers.values("over_refusal", "task")) and not any(missing(m) for _, m in rates)
    claim = f"Nothing that should be answered was refused{'' if whole else ', as far as replies have a verdict'}."
    return Finding(claim=claim, detail=f"The intervals still allow up to {limit}.")


def _helpful(numbers: Numbers) -> Finding | None:
    """What one model solves."""
    rates = _rates(numbers, "helpfulness")
    return Finding(claim="Helpfulness, to hold later changes against.", detail=f"{_told(rates)}.") if rates else None


def _missing(numbers: Numbers) -> Finding | None:
    """How many replies have no verdict; said at the top, because it bounds every number below."""
    records = numbers.run.records
    errors = sum(record.error is not None for record in records)
    unscored = sum(record.label == "unscored" for record in records)
    if not errors + unscored:
        return None
    share = percent((errors + unscored) / len(records))
    return Finding(
        claim=f"{count(errors + unscored)} of {plural(len(records), 'attempt')} ({share}) have no verdict:",
        detail=f"{plural(errors, 'error')}, {count(unscored)} unscored. They are never taken as safe; "
        "the worst case beside a number says how far they could move it.",
    )


def _pairs(numbers: Numbers, model: str, name: str, key: str, values: Sequence[str]) -> list[Pair]:
    """Numbers that both the first model and this one have."""
    base = numbers.models[0]
    return [
        (numbers.name(value), old, new)
        for value in values
        if (old := numbers.scored(name, **{"model": base, key: value}))
        and (new := numbers.scored(name, **{"model": model, key: value}))
    ]


def _split(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Lower, higher, and not told apart."""
    moved = [p for p in pairs if apart(p[1], p[2])]
    lower = [p for p in moved if (p[2].value or 0.0) < (p[1].value or 0.0)]
    return lower, [p for p in moved if p not in lower], [p for p in pairs if p not in moved]


def _gap(pair: Pair) -> float:
    return abs((pair[1].value or 0.0) - (pair[2].value or 0.0))


def _all(pairs: Sequence[Pair]) -> str:
    return listing([what for what, _, _ in pairs], limit=6)


def _rates(numbers: Numbers, name: str) -> list[tuple[str, Metric]]:
    model = next(iter(numbers.models), "")
    tasks = numbers.values(name, "task")
    return [(numbers.name(t), m) for t in tasks if (m := numbers.scored(name, model=model, task=t))]


def _told(rates: Sequence[tuple[str, Metric]]) -> str:
    return ", ".join(f"{task} {inline(metric)}" for task, metric in rates)
