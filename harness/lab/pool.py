"""Seeds of a method as one: means over checkpoints, with intervals for other behaviors and other training seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.metrics import APART, any_attack, attacked, checkpoint, compute, question
from harness.stats.intervals import over_columns
from harness.types import Metric, Record, Run

SHOWN = ("asr", "asr_any", "over_refusal", "over_refusal_early", "over_refusal_late", "answered", "helpfulness")
NO_SHARES = ("cost", "given_before_refusal", "cost_per_success")  # the last comes with its interval over checkpoints


def pool(run: Run, labels: Mapping[str, str]) -> Run:
    """The run with the checkpoints of a method under one name; `labels` maps each model to its method's.

    Metrics by method come first; then the main ones of every checkpoint, which say `checkpoint`, not `model`.
    """
    records = one_name(run.records, labels)
    each = compute(run.records)
    parts: dict[tuple[str, str, frozenset[tuple[str, str]]], list[Metric]] = defaultdict(list)
    for metric in each:
        parts[place(metric, labels)].append(metric)
    together = [
        across(any_by_checkpoint(metric, records) if metric.name == "asr_any" else metric, parts[place(metric, {})])
        for metric in compute(records)
        if place(metric, {}) in parts  # else it is of seeds that no checkpoint alone has
    ]
    main = [m for m in each if m.name in SHOWN and "reading" not in m.group and m.group["model"] in labels]
    return replace(run, records=records, metrics=(*together, *map(by_checkpoint, main)))


def one_name(records: Sequence[Record], labels: Mapping[str, str]) -> tuple[Record, ...]:
    """The records under their methods' names; those of each checkpoint get seeds of their own, so that what is counted
    by behavior and seed (what an attack spent) is counted for each checkpoint."""
    first: dict[str, int] = {}
    for r in records:
        first[r.model] = min(r.seed, first.get(r.model, r.seed))
    apart = {name: number * APART - first.get(name, 0) for number, name in enumerate(labels)}
    return tuple(
        replace(r, model=labels[r.model], seed=r.seed + apart[r.model]) if r.model in labels else r for r in records
    )


def any_by_checkpoint(metric: Metric, records: Sequence[Record]) -> Metric:
    """Whether any attack got an answer, asked of each behavior on each checkpoint."""
    model = metric.group["model"]
    mine = [r for r in records if r.model == model and attacked(r)]
    return any_attack(model, mine, lambda r: (question(r), checkpoint(r)))


def place(metric: Metric, labels: Mapping[str, str]) -> tuple[str, str, frozenset[tuple[str, str]]]:
    """Name, method and what else it is cut by."""
    model = metric.group["model"]
    rest = frozenset((key, value) for key, value in metric.group.items() if key != "model")
    return metric.name, labels.get(model, model), rest


def across(metric: Metric, parts: Sequence[Metric]) -> Metric:
    """A pooled share with its interval widened by what its checkpoints differ in beyond chance.

    Counts and mean costs, and what has a single checkpoint, keep the interval over behaviors.
    """
    told = [(part.value, part.n) for part in parts if part.value is not None and part.n]
    if metric.name in NO_SHARES or metric.value is None or metric.low is None or metric.high is None or len(told) < 2:
        return metric
    low, high = over_columns(metric.value, (metric.low, metric.high), told)
    return replace(metric, low=low, high=high)


def by_checkpoint(metric: Metric) -> Metric:
    """The metric of one checkpoint, kept apart from those of models and methods."""
    group = {"checkpoint" if key == "model" else key: value for key, value in metric.group.items()}
    return replace(metric, group=group)
