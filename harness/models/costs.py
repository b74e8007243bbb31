"""Money: what a token costs, what was spent, and a limit that is kept before it is passed, not after."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import DataError, OverBudget, UsageError
from harness.types import Completion, Prompt

HOME = Path(__file__).with_name("prices.yaml")
DATED = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|latest)$")
OVERHEAD = 16  # tokens a message may take besides its text


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens, and when that was read."""

    input: float
    output: float
    seen: str = ""

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """US dollars of one request."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6

    def of(self, completion: Completion, prompt: Prompt, max_tokens: int) -> float:
        """US dollars of a completion; where the endpoint did not count, the most it can have been."""
        if completion.tokens_in:
            return self.cost(completion.tokens_in, completion.tokens_out)
        return self.cost(size(prompt), max_tokens)


@dataclass(slots=True)
class Bill:
    """What a request came to: the answers the endpoint counted, and whether one was given up under way."""

    settled: list[Completion] = field(default_factory=list)
    lost: bool = False


def price_of(model: str, file: str = "") -> Price | None:
    """The price of a model, `file` first; its version's date and its host's prefix don't matter. None: unknown."""
    tables = [_read(Path(file).expanduser())] if file else []
    names = [model, DATED.sub("", model), model.rpartition("/")[2], DATED.sub("", model.rpartition("/")[2])]
    return next((table[name] for table in [*tables, _read(HOME)] for name in names if name in table), None)


@functools.cache
def _read(path: Path) -> dict[str, Price]:
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {
            str(name): Price(input=float(row["input"]), output=float(row["output"]), seen=str(row.get("seen", "")))
            for name, row in dict(told or {}).items()
        }
    except OSError as err:
        raise UsageError(f"--prices {path}: {err.strerror}") from err
    except (yaml.YAMLError, TypeError, ValueError, KeyError) as err:
        hint = "each line is `model: {input: 2.50, output: 10.00}`, in US dollars per million tokens"
        raise DataError(f"{path.name} holds no prices: {err}", hint=hint) from err


@dataclass(slots=True)
class Purse:
    """What a run may spend at endpoints, shared by all its models.

    A request's dearest outcome is set aside before it is sent: its text at a token a byte, and the longest reply. What
    would not fit waits until others have come back cheaper, and is refused when even then it could pass the limit.
    """

    limit: float = 0.0  # US dollars; 0: none
    prices: str = ""  # the user's own price file
    spent: float = 0.0  # by earlier starts of the run too
    refused: int = 0
    before: float = field(init=False)  # what earlier starts had spent
    known: dict[str, Price] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    _aside: float = 0.0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        """Keeps apart what was spent before."""
        self.before = self.spent

    def price(self, model: str) -> Price | None:
        """The price of an endpoint's model. Raises UsageError when it is unknown and there is a limit to keep."""
        found = price_of(model, self.prices)
        if found is not None:
            self.known[model] = found
            return found
        if self.limit:
            hint = "name it in a file: `MODEL: {input: 2.50, output: 10.00}`, then --prices FILE"
            raise UsageError(f"the price of {model} is unknown, so --max-cost can't be kept", hint=hint)
        self.unknown.add(model)
        return None

    @asynccontextmanager
    async def paying(self, price: Price, prompt: Prompt, max_tokens: int) -> AsyncIterator[Bill]:
        """Sets aside, and settles with what the block writes on its bill, even where it then raises.

        No completion costs nothing, but for a request that is given up while it is under way: the endpoint may have
        written, and billed, all of it. Raises OverBudget.
        """
        dearest = price.cost(size(prompt), max_tokens)
        async with self._changed:
            while (
                self.limit and self._aside and self.spent + self._aside + dearest > self.limit >= self.spent + dearest
            ):
                await self._changed.wait()
            if self.limit and self.spent + self._aside + dearest > self.limit:
                self.refused += 1
                raise OverBudget(f"over budget: it could pass --max-cost {self.limit:g}")
            self._aside += dearest
        bill = Bill()
        try:
            yield bill
        finally:
            told = sum(price.of(c, prompt, max_tokens) for c in bill.settled)
            self.spent += dearest if bill.lost else told
            self._aside -= dearest
            await asyncio.shield(self._wake())

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def told(self) -> dict[str, Any]:
        """What run.json keeps of it."""
        return {
            "currency": "USD",
            "limit": self.limit or None,
            "refused": self.refused,
            "prices": {name: asdict(price) for name, price in self.known.items()},
            "unknown": sorted(self.unknown),
        }


def size(prompt: Prompt) -> int:
    """The most tokens a prompt can be: no tokenizer makes more than one of a byte."""
    texts = [prompt.text or "", prompt.prefill, *(m.content for m in prompt.messages)]
    return sum(len(text.encode("utf-8", "replace")) + OVERHEAD for text in texts if text)
