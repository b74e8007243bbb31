"""From coroutines to an engine's thread, and from it back to the one that waits."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any, TypeVar

from harness.errors import ModelError

T = TypeVar("T")


class Inbox(queue.SimpleQueue[T | None]):
    """What is sent before `close` comes out before its None; what is sent after it is refused."""

    def __init__(self) -> None:
        self._closed = False
        self._gate = threading.Lock()

    def send(self, item: T) -> None:
        """Puts it in. Raises ModelError once closed."""
        with self._gate:
            if self._closed:
                raise ModelError("the model was closed")
            self.put(item)

    def close(self) -> None:
        """Puts in None, after which nothing comes."""
        with self._gate:
            self._closed = True
            self.put(None)


def hand_over(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: Exception | None = None
) -> None:
    """Settles the asker's future in its own loop, unless either has gone."""

    def settle() -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
