"""CodeAttack: the request hidden in the data of a half-written program that the model is asked to finish.

Paper: Ren et al. 2024 (arXiv 2403.07865). Upstream: AI45Lab/CodeAttack at 6777ed03b115. Differs: own templates, valid
in their language, with a decode function that works; literals are escaped; what upstream's regular expressions lose
on the way back (single quotes, escapes, f-strings, cut-off code, `+=`, `extend`) is read, and nothing is ever
executed.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

from attacks.bundled import TEMPLATES, fill, read_file
from attacks.code_reader import Language, read_back
from harness.errors import UnknownName, UsageError
from harness.types import Attack, Attempt, Behavior, Capability, Context, Prompt

Family: TypeAlias = Literal[
    "python-stack",
    "python-list",
    "python-string",
    "python-stack-plus",
    "python-list-plus",
    "python-string-plus",
    "cpp-string",
    "go-string",
]
FAMILIES: tuple[Family, ...] = get_args(Family)

_ITEM: dict[Language, str] = {
    "python": "    output_list.append(...)  # {unit} {number}",
    "cpp": '    outputList.push_back("");  // {unit} {number}',
    "go": '\toutputList = append(outputList, "") // {unit} {number}',
}


def literal(text: str) -> str:
    """`text` as a string literal that is read alike by Python, C++ and Go."""
    return json.dumps(text, ensure_ascii=False)


def pieces(request: str) -> list[str]:
    """The request split on white space and hyphens; whole when there is nothing else in it."""
    return [piece for piece in re.split(r"[\s\-]+", request) if piece] or [request]


def encode(request: str, base: str) -> tuple[str, str]:
    """The request as data of the program, and the text its decode function puts between the pieces."""
    if base == "python-list":
        return "\n".join(f"    my_list.append({literal(word)})" for word in pieces(request)), " "
    if base == "python-stack":
        words = pieces(request)
        joiner = " " if len(words) > 1 else ""
        stack = reversed(words if joiner else list(words[0]))
        return "\n".join(f"    my_stack.append({literal(word)})" for word in stack), joiner
    return literal(request), ""


@functools.cache
def _template(base: str) -> str:
    return read_file(TEMPLATES / "code" / f"{base}.txt")


def language(family: str) -> Language:
    """The programming language of a family."""
    return "cpp" if family.startswith("cpp") else "go" if family.startswith("go") else "python"


def program(request: str, family: Family) -> str:
    """The prompt of one family: the task in a sentence, then the program to finish."""
    base, unit = family.removesuffix("-plus"), "paragraph of about 100 words" if family.endswith("-plus") else "step"
    encoded, joiner = encode(request, base)
    items = [fill(_ITEM[language(family)], unit=unit.split()[0], number=str(number)) for number in range(1, 6)]
    return fill(_template(base), encoded=encoded, joiner=literal(joiner), unit=unit, items="\n".join(items))


@dataclass(frozen=True, slots=True, kw_only=True)
class Code(Attack):
    """The request in the data of a half-written program, to be finished in a chat.

    One attempt a family of `families`; what counts is what the program's output list would hold.
    `list` splits the request on white space and hyphens; `stack` reverses the pieces too, and takes a single
    word apart into characters; `string` is one literal. `-plus` asks for five paragraphs, not five steps.
    """

    name: ClassVar[str] = "code"
    needs: ClassVar[frozenset[Capability]] = frozenset({"chat"})

    families: tuple[Family, ...] = ("python-stack", "python-list", "python-string")

    def __post_init__(self) -> None:
        if not self.families or not isinstance(self.families, (list, tuple)):
            raise UsageError("families must be a list of names", hint=f"known: {', '.join(FAMILIES)}")
        for family in self.families:
            if family not in FAMILIES:
                raise UnknownName("code family", str(family), FAMILIES)
        object.__setattr__(self, "families", tuple(dict.fromkeys(self.families)))

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt a family, in the order given."""
        for family in self.families:
            yield Attempt(
                behavior=behavior,
                attack=self.name,
                variant=family,
                seed=context.seed,
                prompt=Prompt.chat(program(behavior.request, family)),
            )

    def read(self, attempt: Attempt, text: str) -> str:
        """The strings the program would put into its output list; the text itself where there are none."""
        return read_back(text, language(attempt.variant))
