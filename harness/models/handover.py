"""From an engine's thread back to the coroutine that waits."""

from __future__ import annotations

import asyncio
from typing import Any


def hand_over(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], result: Any, error: Exception | None = None
) -> None:
    """Settles the asker's future in its own loop, unless either has gone."""

    def settle() -> None:
        if not future.done():
            future.set_exception(error) if error else future.set_result(result)

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
