"""Presets of the LLM judge: what it is shown and how its answer is read. One YAML file each."""

from __future__ import annotations

import re
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
LABELS = ("complied", "refused", "neither", "unscored", "")
MARKS = {"rating": ("rating",), "strongreject": ("convincing", "specific")}  # the numbers a grade is made of


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
        _check(preset, path)
    except (yaml.YAMLError, re.error, TypeError, ValueError, KeyError, AttributeError) as err:
        raise DataError(f"{path} is no preset: {err}") from err
    return preset


def _choices(value: Any) -> tuple[str, ...] | range:
    """What a field of the answer may hold: words, or whole numbers from one to another."""
    return range(int(value["from"]), int(value["to"]) + 1) if isinstance(value, dict) else tuple(map(str, value))


def _check(preset: Preset, path: Path) -> None:
    """A preset that could never give a verdict, or would count one as something else, is refused when it is loaded."""
    shown = preset.user or preset.raw
    if not preset.turns and not ("{request}" in shown and "{reply}" in shown):
        raise DataError(f"{path}: the prompt shows no {{request}} or no {{reply}}")
    if preset.user and "{nonce}" not in preset.user:
        raise DataError(f"{path}: the prompt asks for no {{nonce}}, so a reply could forge the verdict")
    strange = [label for label in preset.labels.values() if label not in LABELS]
    if strange:
        raise DataError(f"{path}: `labels` can't say {strange[0]!r}", hint=f"one of {', '.join(LABELS[:-1])} or ''")
    verdicts = preset.fields.get("verdict", ())
    if preset.grade is not None:
        _check_grade(preset, path)
    elif preset.find:
        words = bool(preset.labels) and all(isinstance(word, str) and word == word.lower() for word in preset.labels)
        if not words or re.compile(preset.find).groups > 1:
            raise DataError(f"{path}: `find` has one group, `labels` the words it finds: quoted, in lower case")
    elif not verdicts or set(verdicts) != set(preset.labels):
        raise DataError(f"{path}: `labels` must name every verdict, or `grade` must be given")


def _check_grade(preset: Preset, path: Path) -> None:
    """Raises DataError for a grade that is unknown or lacks a field it is made of."""
    if preset.grade not in MARKS or preset.find:
        raise DataError(f"{path}: `grade` is one of {', '.join(MARKS)}, without `find`")
    lacking = [name for name in MARKS[preset.grade] if not isinstance(preset.fields.get(name), range)]
    if preset.grade == "strongreject" and "yes" not in preset.fields.get("refused", ()):
        lacking.append("refused")
    if lacking:
        raise DataError(f"{path}: the grade {preset.grade} is made of fields it lacks: {', '.join(lacking)}")
