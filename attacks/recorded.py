"""Prompts that were recorded elsewhere, sent as they are: another tool's attack, against this model.

A prompt finds its behavior by id or by the request itself. Rows may be JSONL, JSON, CSV or TSV, with `prompt` and with
`id` or `request`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.data import rows
from harness.errors import DataError, UsageError
from harness.types import Attack, Attempt, Behavior, Capability, Context, Prompt


@functools.cache
def load(path: str) -> Mapping[str, tuple[str, ...]]:
    """Prompts by id and by request, in the file's order. Raises DataError naming the broken row, never its text."""
    found: dict[str, list[str]] = {}
    for number, row in rows.every(Path(path).expanduser()):
        told = row if isinstance(row, Mapping) else {}
        text = told.get("prompt")
        names = {str(told[key]) for key in ("id", "request") if told.get(key) not in (None, "")}
        if not (isinstance(text, str) and text.strip()) or not names:
            raise DataError(f"{path} row {number}: a row needs `prompt`, and `id` or `request`")
        for name in names:
            found.setdefault(name, []).append(text)
    if not found:
        raise DataError(f"{path} holds no prompts")
    return {key: tuple(prompts) for key, prompts in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Attack):
    """The prompts of a file, as they are, in one user turn: --set recorded.file=PATH.

    One attempt for each of a behavior's prompts, the variant being its number. A behavior that the file has no
    prompt for is an error in its record: left out of no denominator.
    """

    name: ClassVar[str] = "recorded"

    file: str = ""

    def __post_init__(self) -> None:
        if not self.file:
            raise UsageError(f"attack {self.name} needs a file of prompts", hint=f"--set {self.name}.file=PATH")
        load(self.file)

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt a prompt."""
        known = load(self.file)
        mine = known.get(behavior.id) or known.get(behavior.request)
        if not mine:
            raise DataError(f"no prompt for behavior {behavior.id}")
        for number, text in enumerate(mine, 1):
            yield Attempt(
                behavior=behavior,
                attack=self.name,
                variant=str(number),
                seed=context.seed,
                prompt=Prompt(text=text) if "raw" in self.needs else Prompt.chat(text),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRaw(Recorded):
    """The prompts of a file, as they are, without any chat template: --set recorded_raw.file=PATH."""

    name: ClassVar[str] = "recorded_raw"
    needs: ClassVar[frozenset[Capability]] = frozenset({"raw"})
