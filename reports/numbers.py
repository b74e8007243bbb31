"""The metrics of a run, looked up by name and group; its models and attacks in the order they were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.metrics import CONTRAST
from harness.types import Metric, Run
from reports.words import clean, known, shorten


class Numbers:
    """An index over `run.metrics`, with what the sections ask of a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._by: dict[tuple[str, frozenset[tuple[str, str]]], Metric] = {}
        for metric in run.metrics:
            self._by.setdefault((metric.name, frozenset((k, str(v)) for k, v in metric.group.items())), metric)
        spec = part(run.info, "spec")
        self.models = _order(self._named("model"), [*part(run.info, "models"), *_strings(spec.get("model"))])
        attacks = [name for name in self._named("attack") if name != CONTRAST]
        self.attacks = _order(attacks, ["direct", *part(run.info, "attacks"), *_strings(spec.get("attacks"))])

        tasks = [*self._named("task"), *part(run.info, "tasks")]
        self._shown = shorten([*self.attacks, *(str(task) for task in tasks)]) | shorten(self.models, family=True)

    def name(self, label: str) -> str:
        """A model, attack or task as tables and figures show it: short, and unlike the others."""
        return self._shown.get(label) or clean(label, 40)

    @property
    def several(self) -> bool:
        """Whether models stand side by side."""
        return len(self.models) > 1

    def get(self, name: str, **group: str) -> Metric | None:
        """The metric with exactly this name and group."""
        return self._by.get((name, frozenset(group.items())))

    def scored(self, name: str, **group: str) -> Metric | None:
        """The same, where it has a value."""
        metric = self.get(name, **group)
        return metric if metric is not None and metric.n and known(metric.value) else None

    def across(self, name: str, key: str, values: Sequence[str]) -> list[tuple[str, str, Metric | None]]:
        """(value, model, metric) for every model, of those values that any model has this metric for."""
        return [
            (value, model, self.get(name, **{"model": model, key: value}))
            for value in values
            if any(self.get(name, **{"model": m, key: value}) for m in self.models)
            for model in self.models
        ]

    def values(self, name: str, key: str) -> list[str]:
        """Every value of `key` among the metrics of one name, in the order of the file."""
        return list(dict.fromkeys(str(m.group[key]) for m in self.run.metrics if m.name == name and key in m.group))

    def has(self, name: str) -> bool:
        """Whether any metric bears this name."""
        return any(m.name == name for m in self.run.metrics)

    def _named(self, key: str) -> list[str]:
        measured = [str(m.group[key]) for m in self.run.metrics if key in m.group]
        recorded = (str(getattr(record, key)) for record in self.run.records)
        return [*measured, *filter(None, recorded)]  # an item of a task was asked by no attack


def part(info: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A section of run.json; empty where it is missing or is not one."""
    found = info.get(key)
    return found if isinstance(found, Mapping) else {}


def _strings(value: object) -> list[str]:
    """The names in a setting that may be one name, a list of names, or a list of tables with a `name`."""
    if isinstance(value, str):
        return value.split(",")
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    if isinstance(value, Iterable):
        return [str(item.get("name", "")) if isinstance(item, Mapping) else str(item) for item in value]
    return []


def _order(names: Sequence[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """`names` without repeats, those in `wanted` first and in its order."""
    there = set(names)
    return tuple(dict.fromkeys([*(name for name in wanted if name in there), *names]))
