"""CodeAttack without a chat: a half-written program, sent raw, that ends inside its output list.

For models too small to follow the chat form of CodeAttack, which says nothing about them. Neither in the paper nor
upstream.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from attacks.bundled import TEMPLATES, fill, read_file
from attacks.code import literal
from attacks.code_reader import read_back
from harness.types import Attack, Attempt, Behavior, Capability, Context, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRaw(Attack):
    """A half-written Python program, sent raw, that ends in the first item of its output list."""

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
        """The items of the list as the model went on with it; the text itself where it did not go on with a list."""
        # The model's text starts inside a string; it may close the code with a fence that was never opened, or go on
        # with a question of its own.
        code = re.split(r"\n```|\nquestion\b", text, maxsplit=1)[0]
        first = re.match(r'((?:\\.|[^"\\])*)"\s*(?=[,\]+]|$)', code, re.DOTALL)
        if not first:
            return text  # prose, or a first item that never ended
        item = first[1].replace("\n", "\\n")
        return read_back(f'output_list = ["{item}"{code[first.end() :]}', "python", otherwise=text)
