"""Keeping within an endpoint's limits: requests and tokens a minute, and waiting when it says to wait."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

MINUTE = 60.0
LONGEST = 300.0  # seconds: who is told to wait longer than this is better off starting again later


@dataclass(slots=True)
class Pace:
    """A sliding minute of what was sent. One caller at a time decides, so that nobody overtakes and none starves."""

    requests: int = 0  # most in any minute; 0: no limit
    tokens: int = 0  # most in any minute, read and written; 0: no limit
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _sent: deque[list[float]] = field(default_factory=deque)  # [when, tokens], oldest first
    _held: float = 0.0  # nobody sends before this time
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def turn(self, tokens: int) -> list[float]:
        """Waits until a request of so many tokens may be sent; the entry that `settle` corrects afterwards."""
        async with self._turn:
            while (wait := self._wait(tokens)) > 0:
                await self.sleep(wait)
            entry = [self.clock(), float(tokens)]
            self._sent.append(entry)
            return entry

    def settle(self, entry: list[float], tokens: int) -> None:
        """Puts what a request really took in place of what was expected."""
        entry[1] = float(tokens)

    def hold(self, seconds: float) -> None:
        """Nobody sends for so long: the endpoint has said so."""
        self._held = max(self._held, self.clock() + seconds)

    def _wait(self, tokens: int) -> float:
        """Seconds until something may change; 0: go."""
        now = self.clock()
        while self._sent and self._sent[0][0] <= now - MINUTE:
            self._sent.popleft()
        if now < self._held:
            return self._held - now
        full = 0 < self.requests <= len(self._sent)
        # a request larger than the whole limit goes when nothing else has been sent: it could never go otherwise
        full = full or (bool(self._sent) and 0 < self.tokens < sum(t for _, t in self._sent) + tokens)
        return self._sent[0][0] + MINUTE - now if full else 0.0


def told_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After names, as a number or as a date; None where it names none that can be read."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        try:
            return max(0.0, float(value) / unit)
        except ValueError:
            pass
        if value and unit == 1.0 and (parsed := _date(value)):
            return max(0.0, (parsed - datetime.now(UTC)).total_seconds())
    return None


def _date(value: str) -> datetime | None:
    try:
        parsed = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def backoff(tries: int) -> float:
    """Seconds to wait before the next try where the endpoint names none: doubling, at most a minute, never in step."""
    return min(60.0, 2.0**tries * 0.5) * (0.75 + random.random() / 2)
