"""Seeds of a method as one: means over checkpoints, with intervals for other behaviors and other training seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.metrics import compute
from harness.stats.intervals import over_columns
from harness.types import Metric, Run

SHOWN = ("asr", "asr_any", "over_refusal", "over_refusal_early", "over_refusal_late", "answered", "helpfulness")


def pool(run: Run, labels: Mapping[str, str]) -> Run:
    """The run with the checkpoints of a method under one name; `labels` maps each model to its method's.

    Metrics by method come first; then the main ones of every checkpoint, which say `checkpoint`, not `model`.
    """
    records = tuple(replace(record, model=labels.get(record.model, record.model)) for record in run.records)
    each = compute(run.records)
    parts: dict[tuple[str, str, frozenset[tuple[str, str]]], list[Metric]] = defaultdict(list)
    for metric in each:
        parts[place(metric, labels)].append(metric)
    together = [across(metric, parts[place(metric, {})]) for metric in compute(records)]
    main = [m for m in each if m.name in SHOWN and "reading" not in m.group and m.group["model"] in labels]
    return replace(run, records=records, metrics=(*together, *map(by_checkpoint, main)))


def place(metric: Metric, labels: Mapping[str, str]) -> tuple[str, str, frozenset[tuple[str, str]]]:
    """Name, method and what else it is cut by."""
    model = metric.group["model"]
    rest = frozenset((key, value) for key, value in metric.group.items() if key != "model")
    return metric.name, labels.get(model, model), rest


def across(metric: Metric, parts: Sequence[Metric]) -> Metric:
    """A pooled rate with its interval widened by what its checkpoints differ in beyond chance.

    Counts (which bear no bounds) and what has a single checkpoint keep the interval over behaviors.
    """
    told = [(part.value, part.n) for part in parts if part.value is not None and part.n]
    if metric.value is None or metric.low is None or metric.high is None or metric.floor is None or len(told) < 2:
        return metric
    low, high = over_columns(metric.value, (metric.low, metric.high), told)
    return replace(metric, low=low, high=high)


def by_checkpoint(metric: Metric) -> Metric:
    """The metric of one checkpoint, kept apart from those of models and methods."""
    group = {"checkpoint" if key == "model" else key: value for key, value in metric.group.items()}
    return replace(metric, group=group)
