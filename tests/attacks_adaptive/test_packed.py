"""Work on the weights beside an engine."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from attacks.packed import apart


def test_work_on_the_weights_leaves_no_thread_behind() -> None:
    async def work() -> threading.Thread:
        return await apart(threading.current_thread)

    thread = asyncio.run(work())
    assert thread is not threading.current_thread()
    thread.join(5)
    assert not thread.is_alive()


def test_what_goes_wrong_there_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(apart(lambda n: 1 / n, 0))


def test_who_no_longer_waits_for_it_does_not_wait_for_its_end() -> None:
    ended = threading.Event()

    async def cancelled() -> float:
        task = asyncio.ensure_future(apart(ended.wait, 5))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(cancelled()) < 2
    ended.set()
