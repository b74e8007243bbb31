"""What the attacks share: bundled texts, files a user supplies in their place, and slot filling.

Files are read once and checked by hash where one is given. No error quotes what a file holds, since a
user's demonstrations may be harmful.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError, UsageError

TEMPLATES = Path(__file__).parent / "templates"
SCENE = 'one JSON object a line: {"request": "...", "target": "..."}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One exchange in which the assistant does what it was asked."""

    request: str
    reply: str


def fill(template: str, **slots: str) -> str:
    """Puts `slots` into the `{name}` places in one pass: braces in what is put in are left alone."""
    names = "|".join(map(re.escape, slots))
    return re.sub(r"\{(" + names + r")\}", lambda found: slots[found[1]], template)


def read_file(path: str | Path, sha256: str = "") -> str:
    """The text of a file. Raises DataError when it is missing, not UTF-8 or not the one that was pinned."""
    try:
        raw = Path(path).expanduser().read_bytes()
    except OSError as err:
        raise DataError(f"cannot read {path}: {err.strerror}") from err
    found = hashlib.sha256(raw).hexdigest()
    if sha256 and found != sha256.lower():
        raise DataError(f"{path} is not the pinned file", hint=f"its sha256 is {found}, the option says {sha256}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise DataError(f"{path} is not UTF-8 text") from err


@functools.cache
def load_demonstrations(path: str = "", sha256: str = "") -> tuple[Demonstration, ...]:
    """The bundled demonstrations, or those of a JSONL file with `request` and `reply` in each row."""
    source = path or TEMPLATES / "demonstrations.jsonl"
    rows = []
    for number, line in enumerate(read_file(source, sha256).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            request, reply = row["request"], row["reply"]
        except (ValueError, KeyError, TypeError, RecursionError) as err:
            # `from None` on purpose: the JSON error would carry the row itself.
            hint = "each row needs 'request' and 'reply'"
            raise DataError(f"{source}, line {number}: {type(err).__name__}", hint=hint) from None
        if not (isinstance(request, str) and isinstance(reply, str) and request.strip() and reply.strip()):
            raise DataError(f"{source}, line {number}: 'request' and 'reply' must be texts and not empty")
        rows.append(Demonstration(request=request, reply=reply))
    if not rows:
        raise DataError(f"{source} holds no demonstrations")
    return tuple(rows)


@functools.cache
def load_role_plays(path: str = "", sha256: str = "") -> Mapping[str, str]:
    """The bundled role-play templates by name, or a YAML file's of the same shape; each has a `{request}` slot."""
    import yaml

    source = path or TEMPLATES / "jailbreakchat.yaml"
    try:
        table = yaml.safe_load(read_file(source, sha256))
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise DataError(f"{source}{where}: not valid YAML") from None
    if not isinstance(table, dict) or not table:
        raise DataError(f"{source} must map the name of each template to its text")
    for name, text in table.items():
        if not isinstance(text, str) or "{request}" not in text:
            raise DataError(f"{source}: template {name!r} has no {{request}} slot")
    return {str(name): text for name, text in table.items()}


def load_scenes(path: str) -> list[tuple[str, str]]:
    """Requests and the openings of replies to work towards, of a JSONL file: what one search is to serve at once."""
    try:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]
        scenes = [(str(row["request"]), str(row["target"] or "")) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise UsageError(f"{path} can't be read: {type(err).__name__}", hint=SCENE) from None
    for number, (_, target) in enumerate(scenes, 1):
        if not target.strip():
            raise DataError(f"{path}, row {number}: the target is empty", hint=SCENE)
    if not scenes:
        raise UsageError(f"{path} is empty", hint=SCENE)
    return scenes


def check_count(option: str, value: object, *, least: int, most: int | None = None) -> None:
    """Raises UsageError unless `value` is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"of {least} or more" if most is None else f"from {least} to {most}"
        raise UsageError(f"{option} is {value!r}; it must be a whole number {span}")


def check_number(option: str, value: object, *, most: float | None = None, zero: bool = True) -> None:
    """Raises UsageError unless `value` is a number from 0 to `most`, or of any finite size; without `zero`, above 0."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    if not fits or (most is not None and value > most) or not (value or zero):  # type: ignore[operator]
        span = "of 0 or more" if zero else "above 0"
        raise UsageError(f"{option} is {value!r}; it must be a number {span}" + (f", at most {most:g}" if most else ""))


def counts(option: str, value: object, *, least: int) -> tuple[int, ...]:
    """A grid of whole numbers, rising and without doubles. Raises UsageError for anything else."""
    given = [value] if isinstance(value, int) else value
    if not isinstance(given, (list, tuple)) or not given:
        hint = f"such as {option}: [{least}, {least + 5}]"
        raise UsageError(f"{option} must be a list of whole numbers, not {value!r}", hint=hint)
    for number in given:
        check_count(f"a number in {option}", number, least=least)
    return tuple(sorted(set(given)))
