"""The metrics of a run, looked up by name and group; its models and attacks in the order they were asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.types import Metric, Run
from reports.words import known


class Numbers:
    """An index over `run.metrics`; group values are matched as they stand in the file."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._by: dict[tuple[str, frozenset[tuple[str, str]]], Metric] = {}
        for metric in run.metrics:
            self._by.setdefault((metric.name, frozenset((k, str(v)) for k, v in metric.group.items())), metric)
        spec = part(run.info, "spec")
        self.models = _order(self._names("model", run), [*part(run.info, "models"), *_strings(spec.get("model"))])
        asked = _strings(spec.get("attacks"))
        self.attacks = _order(self._names("attack", run), ["direct", *asked] if "direct" in asked else asked)

    def get(self, name: str, **group: str) -> Metric | None:
        """The metric with exactly this name and group."""
        return self._by.get((name, frozenset(group.items())))

    def scored(self, name: str, **group: str) -> Metric | None:
        """The same, where it has a value."""
        metric = self.get(name, **group)
        return metric if metric is not None and metric.n and known(metric.value) else None

    def values(self, name: str, key: str) -> list[str]:
        """Every value of `key` among the metrics of one name, in the order of the file."""
        return list(dict.fromkeys(str(m.group[key]) for m in self.run.metrics if m.name == name and key in m.group))

    def has(self, name: str) -> bool:
        """Whether any metric bears this name."""
        return any(m.name == name for m in self.run.metrics)

    def _names(self, key: str, run: Run) -> list[str]:
        recorded = [str(getattr(record, key)) for record in run.records]
        return list(dict.fromkeys([*(str(m.group[key]) for m in run.metrics if key in m.group), *recorded]))


def part(info: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A section of run.json; empty where it is missing or is not one."""
    found = info.get(key)
    return found if isinstance(found, Mapping) else {}


def _strings(value: object) -> list[str]:
    """The names in a setting that may be one name, a list of them, or a list of tables with a `name`."""
    if isinstance(value, str):
        return value.split(",")
    if isinstance(value, Mapping):
        return [str(key) for key in value]
    if isinstance(value, Iterable):
        return [str(item.get("name", "")) if isinstance(item, Mapping) else str(item) for item in value]
    return []


def _order(names: list[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """`names`, those in `wanted` first and in its order."""
    return tuple(dict.fromkeys([name for name in wanted if name in names] + names))
