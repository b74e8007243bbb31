"""The official prompts of the DeRTa paper, sent as they are: for its 200 questions, and for no others.

Upstream: RobustNLP/DeRTa at 70bdb52b5e13, `data/test`; pulled at run time (`harness data pull derta-code`), never
bundled. Row i of the code, jailbreakchat and cipher files is made of question i; openings stand in another order and
come with the behavior. Use with `--behaviors derta-200`.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from attacks.code_reader import read_back
from harness.data import pinned, rows
from harness.errors import DataError, UsageError
from harness.types import Attack, Attempt, Behavior, Capability, Context, Prompt

SET = "derta-200"
VARIANT = "official"


@functools.cache
def prompts(where: Path) -> tuple[str, ...]:
    """The prompts of a test file, byte for byte. Raises DataError when a row has none."""
    found = [row.get("question") if isinstance(row, dict) else None for _, row in rows.lines(where)]
    if not all(isinstance(text, str) and text.strip() for text in found):
        raise DataError(f"{where} has a row without a question")
    return tuple(map(str, found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Official(Attack):
    """Row i of a test file for question i, in one user turn."""

    source: ClassVar[str]

    def __post_init__(self) -> None:
        pinned.path(self.source)  # said before anything is spent

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt: the official prompt."""
        yield Attempt(
            behavior=behavior, attack=self.name, variant=VARIANT, seed=context.seed, prompt=self.prompt(behavior)
        )

    def prompt(self, behavior: Behavior) -> Prompt:
        """The prompt of this question. Raises UsageError for a behavior of another set."""
        number = behavior.id.removeprefix("derta-")
        known = prompts(pinned.path(self.source))
        if behavior.task != SET or not number.isdigit() or not 0 < int(number) <= len(known):
            raise UsageError(f"attack {self.name} has prompts for {SET} alone", hint=f"--behaviors {SET}")
        return Prompt.chat(known[int(number) - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class DertaCode(Official):
    """The paper's 200 CodeAttack prompts, as they are (--behaviors derta-200)."""

    name: ClassVar[str] = "derta_code"
    source: ClassVar[str] = "derta-code"

    def read(self, attempt: Attempt, text: str) -> str:
        """The strings the program would put into its output list; the text itself where there are none."""
        return read_back(text, "python")


@dataclass(frozen=True, slots=True, kw_only=True)
class DertaJailbreakChat(Official):
    """The paper's 200 JailbreakChat prompts, as they are (--behaviors derta-200)."""

    name: ClassVar[str] = "derta_jailbreakchat"
    source: ClassVar[str] = "derta-jailbreakchat"


@dataclass(frozen=True, slots=True, kw_only=True)
class DertaCipher(Official):
    """The paper's 200 SelfCipher prompts, as they are (--behaviors derta-200)."""

    name: ClassVar[str] = "derta_cipher"
    source: ClassVar[str] = "derta-cipher"


@dataclass(frozen=True, slots=True, kw_only=True)
class DertaCompletion(Official):
    """The paper's 200 CompletionAttack openings, raw, as they are (--behaviors derta-200)."""

    name: ClassVar[str] = "derta_completion"
    needs: ClassVar[frozenset[Capability]] = frozenset({"raw"})
    source: ClassVar[str] = "derta-completion"

    def prompt(self, behavior: Behavior) -> Prompt:
        """The opening that came with the behavior. Raises UsageError for a behavior of another set."""
        if behavior.task != SET or not behavior.opening:
            raise UsageError(f"attack {self.name} has openings for {SET} alone", hint=f"--behaviors {SET}")
        return Prompt(text=behavior.opening)
