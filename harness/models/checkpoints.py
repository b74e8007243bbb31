"""Checkpoints known by name: what each is, what it was tuned from, and how it wants to be asked."""

from __future__ import annotations

import functools
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from harness.errors import DataError, UnknownName, UsageError
from harness.models.formats import BUNDLED, ChatFormat, chat_format

HOME = Path(__file__).with_suffix(".yaml")

Kind: TypeAlias = Literal["full", "lora", "bnb-4bit", "bnb-8bit", "gguf"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One row of checkpoints.yaml, whose head says what each field means."""

    id: str
    kind: Kind = "full"
    base: str = ""
    format: str = ""
    stop: tuple[str, ...] = ()
    gpus: int = 1
    gated: bool = False
    licence: str = ""
    note: str = ""
    at: str = ""  # where its files are, when that is not the hub

    @property
    def chat(self) -> ChatFormat | None:
        """Its chat format; None where the checkpoint brings its own. Raises UsageError when the file can't be read."""
        return chat_format(self.format)

    @property
    def source(self) -> str:
        """Where its files are: `at`, or the hub id it is named by."""
        return self.at or self.id


def checkpoints(file: str = "") -> dict[str, Checkpoint]:
    """Every known checkpoint by id; rows of the user's own `file` win. Raises DataError for a bad row."""
    return {**_read(HOME), **(_read(Path(file).expanduser()) if file else {})}


def checkpoint(name: str, file: str = "") -> Checkpoint:
    """One known checkpoint, by its id or the part after the slash. Raises UnknownName."""
    found = known(name, file)
    if found is None:
        raise UnknownName("checkpoint", name, checkpoints(file), hint="see: harness ls models")
    return found


def known(name: str, file: str = "") -> Checkpoint | None:
    """The row of a name, or None: most of what can be opened is in no table."""
    rows = checkpoints(file)
    if name in rows:
        return rows[name]
    return next((row for id, row in rows.items() if id.partition("/")[2] == name), None)


@functools.cache
def _read(path: Path) -> dict[str, Checkpoint]:
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(f"--checkpoints {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"--checkpoints {path} is not UTF-8") from err
    except yaml.YAMLError as err:
        raise DataError(f"{path.name} is not YAML: {err}") from err
    if not isinstance(told, dict) or not all(isinstance(row, dict) for row in told.values()):
        raise DataError(
            f"{path.name} holds no rows", hint="each is `owner/name:` and its settings, see harness ls models"
        )
    return {str(id): row_of(str(id), row, path) for id, row in told.items()}


def row_of(id: str, row: dict[str, Any], path: Path) -> Checkpoint:
    """One row, checked; a path in it counts from the file it stands in. Raises UnknownName or DataError."""
    for key in row:
        if key not in (names := [f.name for f in fields(Checkpoint) if f.name != "id"]):
            raise UnknownName(f"setting of checkpoint {id!r}:", str(key), names)
    values: dict[str, Any] = {k: tuple(map(str, v)) if k == "stop" else v for k, v in row.items()}
    for f in fields(Checkpoint):
        default: Any = "" if f.default is MISSING else f.default
        if f.name in values and type(values[f.name]) is not type(default):
            raise DataError(f"{path.name}: {f.name} of {id} is not {type(default).__name__}")
    if values.get("kind", "full") not in get_args(Kind):
        raise UnknownName(f"kind of checkpoint {id!r}:", str(values["kind"]), get_args(Kind))
    for key in ("at", "base", "format"):
        value = str(values.get(key, ""))
        if value and value not in BUNDLED and (path.parent / value).exists():
            values[key] = str(path.parent / value)
    found = Checkpoint(id=id, **values)
    if found.kind == "lora" and not found.base:
        raise DataError(f"{path.name}: {id} is a LoRA adapter without a base", hint="base: owner/name")
    return found
