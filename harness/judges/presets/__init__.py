"""Presets of the LLM judge: what it is shown and how its answer is read. One YAML file each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

from harness.errors import DataError, UnknownName
from harness.types import Label, sha

FOLDER = Path(__file__).parent
Grade: TypeAlias = Literal["rating", "strongreject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One way to ask a model for a verdict.

    Either `system` and `user` (any chat model, answers in JSON as `fields` say), or `raw` or `turns` (a classifier
    model with a format of its own, read with `find`). `labels` maps the verdict's words; "" stands for "not complied":
    whether it refused is then read from the reply by rule.
    """

    name: str
    about: str = ""
    source: str
    digest: str
    system: str = ""
    user: str = ""
    raw: str = ""
    turns: bool = False
    fields: Mapping[str, tuple[str, ...] | range] = field(default_factory=dict)
    labels: Mapping[str, Label | Literal[""]] = field(default_factory=dict)
    grade: Grade | None = None
    complied_from: float = 0.0
    find: str = ""
    refusal: str = ""
    max_tokens: int = 200


def names() -> list[str]:
    """The presets that ship with the program."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@lru_cache(maxsize=32)
def load(name: str) -> Preset:
    """A preset by name, or from the YAML file at a path. Raises UnknownName, or DataError for a broken file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise UnknownName("preset", name, names(), hint=f"known: {', '.join(names())}, or the path of a YAML file")
    text = path.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    if not first.startswith("# source: "):
        raise DataError(f"{path}: a preset opens with '# source: <where its rubric comes from>'")
    try:
        told: dict[str, Any] = yaml.safe_load(text)
        told["fields"] = {key: _choices(value) for key, value in told.get("fields", {}).items()}
        preset = Preset(name=path.stem, source=first.removeprefix("# source: "), digest=sha(text), **told)
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as err:
        raise DataError(f"{path} is no preset: {err}") from err
    _check(preset, path)
    return preset


def _choices(value: Any) -> tuple[str, ...] | range:
    """What a field of the answer may hold: words, or whole numbers from one to another."""
    return range(int(value["from"]), int(value["to"]) + 1) if isinstance(value, dict) else tuple(map(str, value))


def _check(preset: Preset, path: Path) -> None:
    """A preset that could never give a verdict is refused when it is loaded."""
    shown = preset.user or preset.raw
    if not preset.turns and not ("{request}" in shown and "{reply}" in shown):
        raise DataError(f"{path}: the prompt shows no {{request}} or no {{reply}}")
    if preset.user and "{nonce}" not in preset.user:
        raise DataError(f"{path}: the prompt asks for no {{nonce}}, so a reply could forge the verdict")
    verdicts = preset.fields.get("verdict", ())
    if not preset.grade and not preset.find and not (verdicts and set(verdicts) == set(preset.labels)):
        raise DataError(f"{path}: `labels` must name every verdict, or `grade` must be given")
