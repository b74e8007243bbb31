"""Best-of-N jailbreaking: the request misspelt at random, again and again, until one version gets through.

Paper: Hughes et al. 2024 (arXiv 2412.03556), text, sigma 0.4, N up to 10,000, temperature 1. Upstream:
jplhughes/bon-jailbreaking at c11821039caa. Differs: letters outside ASCII change case, where upstream drops them;
white space stays; a sample is drawn from (seed, behavior, number), so it is the same in any order of work; the run's
own sampling is used.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import ClassVar

from attacks.bundled import check_count, check_number
from attacks.search import Tried, tried
from harness.types import Attack, Attempt, Behavior, Context, Prompt


def scrambled(text: str, sigma: float, rng: random.Random) -> str:
    """Shuffles the inner letters of words of four and more, each with probability sqrt(sigma)."""

    def word(found: re.Match[str]) -> str:
        letters = list(found[0][1:-1])
        if rng.random() >= sigma**0.5:
            return found[0]
        rng.shuffle(letters)
        return found[0][0] + "".join(letters) + found[0][-1]

    return re.sub(r"\S{4,}", word, text)


def capitalised(text: str, sigma: float, rng: random.Random) -> str:
    """Swaps the case of letters, each with probability sqrt(sigma)."""
    return "".join(c.swapcase() if c.isalpha() and rng.random() < sigma**0.5 else c for c in text)


def noised(text: str, sigma: float, rng: random.Random) -> str:
    """Moves printable ASCII characters to a neighbour in the code table, each with probability sigma cubed."""

    def moved(character: str) -> str:
        if not " " <= character <= "~" or rng.random() >= sigma**3:
            return character
        neighbour = chr(ord(character) + rng.choice((-1, 1)))
        return neighbour if " " <= neighbour <= "~" else character

    return "".join(map(moved, text))


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfN(Attack):
    """The request misspelt at random, n times or until one version gets through.

    With `stop_on_success` one attempt comes out: the first that the run's judge calls a success, or else
    one whose outcome is open or that came closest. Its `queries` are all that were sent by then, itself included.
    """

    name: ClassVar[str] = "best_of_n"
    ends_on_one: ClassVar[bool] = True

    n: int = 16  # the paper goes to 10,000
    sigma: float = 0.4  # how much is changed, 0 to 1
    stop_on_success: bool = False
    batch: int = 8  # samples in flight before the search looks for a success

    def __post_init__(self) -> None:
        check_count("n", self.n, least=1)
        check_count("batch", self.batch, least=1)
        check_number("sigma", self.sigma, most=1)

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt a sample, or the one the search ended on."""
        if not self.stop_on_success:
            for number in range(self.n):
                yield self._sample(behavior, context, number)
            return
        seen: list[Tried] = []
        while len(seen) < self.n and not context.meter.exhausted and not any(one.won for one in seen):
            numbers = range(len(seen), min(len(seen) + self.batch, self.n))
            samples = [self._sample(behavior, context, number) for number in numbers]
            results = await asyncio.gather(*(tried(self, sample, context) for sample in samples))
            seen += [result for result in results if result]
        first = next((one for one in seen if one.won), None)
        best = first or max(seen, key=lambda one: one.rank, default=None)
        yield replace(best.attempt if best else self._sample(behavior, context, 0), queries=max(1, len(seen)))

    def _sample(self, behavior: Behavior, context: Context, number: int) -> Attempt:
        rng = context.rng(self.name, behavior.id, number)
        text = behavior.request
        for change in (scrambled, capitalised, noised):
            text = change(text, self.sigma, rng)
        return Attempt(
            behavior=behavior,
            attack=self.name,
            variant=f"s{number}",
            seed=context.seed,
            prompt=Prompt.chat(text),
        )
