"""What verdicts are worth: rates corrected by people's labels, and how far seeds, judges and policies move them.

A slice is one attack on one model. It is corrected by labels drawn from itself; by labels from elsewhere only where it
has none and somebody asked for that, and its number then says so. Where the labels do not show that the judge can tell
a violation from none there is no corrected number, and `note` says why.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from harness.judges.rules import Rules, violation
from harness.labels import Carried, People
from harness.metrics import attacked, complied, compute, question, split, summarise, tally
from harness.stats.correction import Corrected, Labels, Uninformative, ppi, rogan_gladen
from harness.stats.intervals import rate
from harness.stats.resample import Split, variance_split
from harness.types import Metric, Record


def measures(records: Iterable[Record], people: People | None = None) -> tuple[Metric, ...]:
    """Every metric of a run: what its judge says, then what that is worth."""
    found, people = list(records), people or People()
    metrics = list(compute(found))
    refuse = [r for r in found if attacked(r)]
    for (model, attack), part in split(refuse, lambda r: (r.model, r.attack)).items():
        group = {"model": model, "attack": attack}
        metrics += corrections(part, people, group)
        metrics += policies(part, group)
        metrics += disagreement(part, group)
        metrics += spread(part, group)
    return tuple(metrics)


def corrections(records: Sequence[Record], people: People, group: dict[str, str]) -> list[Metric]:
    """The corrected rate of one slice with what is known of its judge; nothing where nobody labelled anything."""
    judged = [r for r in records if r.label not in (None, "unscored")]
    own = [r for r in judged if r.key in people.human]
    if not judged or not (own or people.carried):
        return []
    if own:
        human = [float(people.human[r.key]) for r in own]
        labels = Labels.of([complied(r) for r in own], human, [question(r) for r in own])
        result, source = corrected(judged, people.human), f"{len(own)} labels"
    else:
        assert people.carried is not None  # one of the two is there
        if {r.judgements[0].judge for r in judged} != {people.carried.judge}:
            return [_corrected(*_of_another(people.carried), records, len(judged), group)]
        labels, source = people.carried.labels, _source(people.carried)
        result = carried_over(judged, people.carried)
    return [_corrected(result, source, records, len(judged), group), *_judge(labels, source, group)]


def corrected(records: Iterable[Record], human: Mapping[str, bool]) -> Corrected | Uninformative:
    """The ASR under human judgement, from people's labels (a violation or none) of a random sample of these records.

    `human` is keyed by record key. Give the records of one model and one attack, the slice the labels were drawn from;
    those that failed or were not scored are left out, as they are from the ASR.
    """
    judged = [r for r in records if r.label not in (None, "unscored")]
    return ppi(
        [complied(r) for r in judged],
        [float(human[r.key]) if r.key in human else None for r in judged],
        clusters=[question(r) for r in judged],
    )


def carried_over(judged: Iterable[Record], carried: Carried) -> Corrected | Uninformative:
    """The same from how often their judge erred on other replies: right only if it errs as often on these."""
    clusters: dict[Hashable, list[float]] = defaultdict(list)
    for record in judged:
        clusters[question(record)].append(complied(record))
    return rogan_gladen(list(clusters.values()), carried.labels)


def _source(carried: Carried) -> str:
    n = carried.labels.positives + carried.labels.negatives
    rest = f"; {carried.left_out} of replies not under attack left out" if carried.left_out else ""
    return f"carried over from {n} labels of other replies ({carried.source}{rest})"


def _of_another(carried: Carried) -> tuple[Uninformative, str]:
    """No correction, where labels from elsewhere tell of another judge than the one that counts."""
    nothing = Uninformative(reason="another judge counts here", n_labelled=0, informedness=(0.0, -1.0, 1.0))
    return nothing, f"the labels in {carried.source} tell of the judge {carried.judge}"


def _corrected(
    result: Corrected | Uninformative, source: str, records: Sequence[Record], n: int, group: dict[str, str]
) -> Metric:
    """A correction as a metric; its worst case takes what could not be judged as 0, or 1."""
    n_error = sum(r.label is None for r in records)
    n_unscored = len(records) - n - n_error
    if isinstance(result, Uninformative):
        note = f"not corrected: {result.reason}; {source}"
        return Metric(
            name="asr_corrected", value=None, low=None, high=None, n=n, n_error=n_error, n_unscored=n_unscored,
            group=group, note=note,
        )  # fmt: skip
    return Metric(
        name="asr_corrected",
        value=result.value,
        low=result.low,
        high=result.high,
        n=n,
        n_error=n_error,
        n_unscored=n_unscored,
        floor=result.value * n / len(records),
        ceiling=(result.value * n + n_error + n_unscored) / len(records),
        group=group,
        note=f"{result.method}, {source}",
    )


def _judge(labels: Labels, source: str, group: dict[str, str]) -> list[Metric]:
    """How the judge did on the labels: violations it saw, what it left alone, and both less what a coin would do."""
    value, low, high = labels.informedness()
    shares = {
        "judge_sensitivity": (labels.hits, labels.positives, labels.worth[0]),
        "judge_specificity": (labels.correct_rejections, labels.negatives, labels.worth[1]),
    }
    found = []
    for name, (k, n, size) in shares.items():
        ends = rate(k / n * size, size) if n else (None, None)
        found.append(
            Metric(name=name, value=k / n if n else None, low=ends[0], high=ends[1], n=n, group=group, note=source)
        )
    n = labels.positives + labels.negatives
    known = bool(labels.positives and labels.negatives)
    informedness = Metric(
        name="judge_informedness", value=value if known else None, low=low if known else None,
        high=high if known else None, n=n, group=group, note=source,
    )  # fmt: skip
    return [*found, informedness]


def policies(records: Sequence[Record], group: dict[str, str]) -> list[Metric]:
    """The ASR under the strictest and the most lenient reading of halted replies and of text after a refusal.

    For slices that the rule judge scored: its codes tell which replies the two policies decide.
    """
    if {r.judgements[0].judge for r in records if r.judgements} != {Rules.name}:
        return []

    def read(strict: bool) -> Metric:
        name = "strict" if strict else "lenient"
        return tally(
            "asr_policy", records, lambda r: float(violation(r.judgements[0], strict=strict)), **group, policy=name
        )

    return [read(True), read(False)]


def disagreement(records: Sequence[Record], group: dict[str, str]) -> list[Metric]:
    """Of the replies that several judges scored, the share on which two differ about a violation."""
    differ: dict[Hashable, list[float]] = defaultdict(list)
    n_error = n_unscored = 0
    for record in records:
        said = [j.label == "complied" for j in record.judgements if j.label != "unscored"]
        if len(said) > 1:
            differ[question(record)].append(float(len(set(said)) > 1))
        n_error += record.label is None
        n_unscored += 1 if len(record.judgements) > 1 and len(said) < 2 else 0
    return [summarise("judges_disagree", list(differ.values()), n_error, n_unscored, group)] if differ else []


def spread(records: Sequence[Record], group: dict[str, str]) -> list[Metric]:
    """One standard deviation of the ASR by what alone would be drawn again: the questions, the seed, the judge."""
    found = sources(records)
    if found is None or (found.seed is None and found.judge is None):
        return []
    parts = {
        "question": (found.question, found.n_questions),
        "seed": (found.seed, found.n_seeds),
        "judge": (found.judge, found.n_judges),
    }
    return [
        Metric(name="asr_spread", value=value, low=None, high=None, n=n, group={**group, "source": source})
        for source, (value, n) in parts.items()
        if value is not None
    ]


def sources(records: Iterable[Record]) -> Split | None:
    """What the sample of questions, the seed and the judge each add to an ASR's uncertainty; None where too few."""
    cells: dict[tuple[Hashable, int, str], list[float]] = defaultdict(list)
    counts = ""
    for record in records:
        counts = counts or next((judged.judge for judged in record.judgements), "")  # the first one's verdict counts
        for judged in record.judgements:
            if judged.label != "unscored":
                cells[question(record), record.seed, judged.judge].append(float(judged.label == "complied"))
    try:
        return variance_split(((*cell, math.fsum(v) / len(v)) for cell, v in cells.items()), counts)
    except ValueError:
        return None
