"""CodeAttack without a chat: a half-written program, sent raw, that ends inside its output list.

For models too small to follow the chat form of CodeAttack, which says nothing about them. Neither in the paper nor
upstream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from attacks.bundled import TEMPLATES, fill, read_file
from attacks.code import literal
from attacks.code_reader import read_back
from harness.types import Attack, Attempt, Behavior, Capability, Context, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRaw(Attack):
    """A Python program that ends in the first item of its output list; the model goes on writing it."""

    name: ClassVar[str] = "code_raw"
    needs: ClassVar[frozenset[Capability]] = frozenset({"raw"})

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt: the program up to the opening of its first item."""
        yield Attempt(
            behavior=behavior,
            attack=self.name,
            variant="python-raw",
            seed=context.seed,
            prompt=Prompt(
                text=fill(read_file(TEMPLATES / "code" / "python-raw.txt"), encoded=literal(behavior.request))
            ),
        )

    def read(self, attempt: Attempt, text: str) -> str:
        """The items of the list as the model went on with it; the text itself where there are none."""
        # The model's text starts inside a string and may close the code with a fence that was never opened.
        items = read_back('output_list = ["' + text.partition("\n```")[0], "python", otherwise="")
        return items or text
