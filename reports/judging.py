"""How far the judge can be trusted: against people, against other judges, under other policies and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.types import Metric
from reports.numbers import Numbers
from reports.tables import table_of
from reports.view import Cell, Finding, Row, Section, Table
from reports.words import DASH, clean, compact, count, inline, known, listing, percent, plural

Slice = tuple[str, str]  # attack, model


def judging(numbers: Numbers) -> Section | None:
    """Everything that says what a verdict of this run is worth; None where nothing does."""
    tables = [*_against_people(numbers), *_against_judges(numbers), *_policies(numbers), *_spread(numbers)]
    tables += _repeated(numbers)
    if not tables:
        return None
    lead = (
        "A rate is worth what its judge is worth: how often it sees what people see, and how far the rate moves with "
        "the judge, its policy, the seed and the questions."
    )
    return Section(key="judge", title="How far the judge can be trusted", lead=lead, tables=tuple(tables))


def corrections(numbers: Numbers) -> Finding | None:
    """What people's labels did to the rates, or why they did nothing."""
    found = [(where, m) for where in _slices(numbers) if (m := _of(numbers, "asr_corrected", where))]
    if not found:
        return None
    done = [(where, m) for where, m in found if known(m.value)]
    names = [_name(numbers, where) for where, m in found if not known(m.value)]
    failed = (
        f"Not corrected, because the labels do not show that the judge can tell: {listing(names)}." if names else ""
    )
    if not done:
        return Finding(claim="The judge is uninformative here: no rate is corrected.", detail=failed)
    judged = [_of(numbers, "asr", where) for where, _ in done]
    told = [
        f"{_name(numbers, where)} {inline(m)} (judged {percent(before.value if before else None)})"
        for (where, m), before in zip(done, judged, strict=True)
    ]
    claim = f"Corrected by people's labels: {plural(len(done), 'success rate')}."
    return Finding(claim=claim, detail=f"{listing(told)}. {failed}".strip())


def _slices(numbers: Numbers) -> Iterator[Slice]:
    yield from ((attack, model) for attack in numbers.attacks for model in numbers.models)


def _of(numbers: Numbers, name: str, where: Slice, **more: str) -> Metric | None:
    return numbers.get(name, attack=where[0], model=where[1], **more)


def _name(numbers: Numbers, where: Slice) -> str:
    attack, model = map(numbers.name, where)
    return f"{attack} on {model}" if numbers.several else attack


def _heads(numbers: Numbers, where: Slice) -> tuple[Cell, ...]:
    attack, model = map(numbers.name, where)
    return (Cell(text=attack), *([Cell(text=model)] if numbers.several else []))


def _table(numbers: Numbers, title: str, columns: Sequence[str], rows: Sequence[Row], note: str = "") -> list[Table]:
    first = ("attack", "model") if numbers.several else ("attack",)
    made = Table(title=title, columns=(*first, *columns), rows=tuple(rows), left=len(first), note=note.strip())
    return [made] if rows else []


def _against_people(numbers: Numbers) -> list[Table]:
    """Sensitivity, specificity and what is left of them beyond a coin, with what came of the correction."""
    rows, notes = [], dict[str, list[str]]()
    for where in _slices(numbers):
        fixed = _of(numbers, "asr_corrected", where)
        if fixed is None:
            continue
        parts = [_of(numbers, f"judge_{name}", where) for name in ("sensitivity", "specificity", "informedness")]
        labels = Cell(text=count(parts[2].n) if parts[2] else DASH)
        rows.append(Row(cells=(*_heads(numbers, where), labels, *map(compact, parts), compact(fixed))))
        if not known(fixed.value) or "carried over" in fixed.note:
            notes.setdefault(clean(fixed.note, 300), []).append(_name(numbers, where))
    columns = ("labels", "sensitivity", "specificity", "beyond a coin", "corrected ASR")
    told = [f"{listing(names)}: {why}." for why, names in notes.items()]
    note = (
        "Sensitivity: violations that the judge saw. Specificity: other replies that it left alone. Beyond a coin: "
        f"both added, less 1; where its interval holds 0 nothing is corrected. {' '.join(told)}"
    )
    return _table(numbers, "The judge against people's labels", columns, rows, note)


def _against_judges(numbers: Numbers) -> list[Table]:
    entries = numbers.across("judges_disagree", "attack", numbers.attacks)
    note = "Of the replies that several judges scored: on how many two of them differ about a violation."
    return list(table_of(numbers, "Where the judges differ", ("attack", "differ"), entries, note=note))


def _policies(numbers: Numbers) -> list[Table]:
    """Both readings of what two people could read two ways, where they differ."""
    rows = []
    for where in _slices(numbers):
        strict, lenient = (_of(numbers, "asr_policy", where, policy=name) for name in ("strict", "lenient"))
        if strict and lenient and strict.value != lenient.value:
            rows.append(Row(cells=(*_heads(numbers, where), compact(lenient), compact(strict))))
    note = (
        "Lenient: a reply that halts itself early is safe, and what follows an early refusal does not count. Strict: "
        "all that was given counts. Attacks on which the two agree are left out."
    )
    return _table(numbers, "ASR under either policy", ("lenient", "strict"), rows, note)


def _spread(numbers: Numbers) -> list[Table]:
    """What the questions, the seed and the judge each add to a rate's uncertainty."""
    rows = []
    for where in _slices(numbers):
        parts = [_of(numbers, "asr_spread", where, source=name) for name in ("question", "seed", "judge")]
        if any(parts):
            rows.append(Row(cells=(*_heads(numbers, where), *map(_points, parts))))
    note = (
        "One standard deviation of the rate, in points, had this alone been drawn again: other questions, another "
        "seed, another of the judges."
    )
    return _table(numbers, "What moves the rate", ("questions", "seed", "judge"), rows, note)


def _points(metric: Metric | None) -> Cell:
    if metric is None or metric.value is None:
        return Cell(text=DASH)
    return Cell(text=f"{100 * metric.value:.1f}", sub=f"of {count(metric.n)}")


def _repeated(numbers: Numbers) -> list[Table]:
    """What an attacker gets who tries again with every seed."""
    rows = []
    for where in _slices(numbers):
        for k in numbers.values("asr_at_k", "k"):
            if metric := _of(numbers, "asr_at_k", where, k=k):
                rows.append(Row(cells=(*_heads(numbers, where), Cell(text=clean(k, 8)), compact(metric))))
    note = "Behaviors that fall to at least one of k tries, each with its own seed."
    return _table(numbers, "Tried again", ("k", "success"), rows, note)
