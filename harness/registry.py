"""Finds plugins by name: lazy `name -> "module:attribute"` tables, then entry points of other packages.

A third party adds an attack, judge or task with one file and one entry point in the group
`harness.attacks` (or `.judges`, `.tasks`); nothing here changes. Nothing is imported before
it is asked for, so listing names costs no torch.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import typing
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, Literal, TypeAlias

from harness.config import convert
from harness.errors import UnknownName, UsageError
from harness.types import Behavior, Expect

Kind: TypeAlias = Literal["attack", "judge", "task", "report"]

TABLES: dict[Kind, str] = {
    "attack": "attacks",
    "judge": "harness.judges",
    "task": "tasks",
    "report": "reports",
}


@functools.cache
def table(kind: Kind) -> dict[str, str]:
    """`name -> "module:attribute"` of every plugin of a kind; built-in names win over entry points."""
    found = {point.name: point.value for point in entry_points(group=f"harness.{kind}s")}
    return found | dict(importlib.import_module(TABLES[kind]).PLUGINS)


def load(kind: Kind, name: str) -> Any:
    """The plugin itself. Raises UnknownName with the nearest known name."""
    known = table(kind)
    if name not in known:
        raise UnknownName(kind, name, known, hint=f"see: harness ls {kind}s")
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as err:
        raise UsageError(f"{kind} {name!r} could not be loaded: {err}", hint="see: harness doctor") from err


def make(kind: Kind, name: str, options: dict[str, Any] | None = None, **given: Any) -> Any:
    """A plugin with its settings, text values read as the type of their field; `given` is passed on as it is.

    Raises UnknownName for a setting it does not have, UsageError for a value that does not fit.
    """
    plugin = load(kind, name)
    known = [f.name for f in dataclasses.fields(plugin) if f.init] if dataclasses.is_dataclass(plugin) else []
    kinds = typing.get_type_hints(plugin) if options else {}
    typed = {}
    for key, value in (options or {}).items():
        if key not in known:
            raise UnknownName(f"setting of {kind} {name!r}:", key, known)
        typed[key] = convert(kinds[key], value, f"{name}.{key}")
    return plugin(**typed, **given)


def summary(kind: Kind, name: str) -> str:
    """The first line of a plugin's docstring, or of its module's."""
    plugin = load(kind, name)
    text = (plugin.__doc__ or "").strip() or f"{kind} {name}"
    return str(text.splitlines()[0])


def clashes(
    requests: Iterable[str], held_out: Iterable[Behavior], *, expect: Expect = "refuse", limit: float | None = None
) -> dict[str, str]:
    """The requests too close to a held-out behavior of which this is expected -> the id of the closest one.

    See `tasks.overlap`.
    """
    overlap = importlib.import_module("tasks.overlap")
    others = [each for each in held_out if each.expect == expect]
    found: dict[str, str] = overlap.clashes(requests, others, limit=overlap.LIMITS[expect] if limit is None else limit)
    return found


def behaviors(name: str, *, split: str | None = None, expect: Expect = "refuse") -> tuple[Behavior, ...]:
    """A set of behaviors by name or path; rows of a file that don't say are as `expect`.

    Raises UnknownName or DataError.
    """
    found: tuple[Behavior, ...] = importlib.import_module("tasks.load").behaviors(name, split=split, expect=expect)
    return found
