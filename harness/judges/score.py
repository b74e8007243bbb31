"""Judges replies that others recorded: rows in, records out, one at a time.

Judges that need no model run in as many processes as there are cores; those that ask a model keep a window of
questions in flight. The records come in the order of the rows and hold no text.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from harness.data.item import Recorded
from harness.data.recorded import read
from harness.errors import UsageError
from harness.types import Judge, Judgement, Record

CHUNK = 250  # rows handed to a process at once
WINDOW = 64  # questions to a judge model in flight
FEW = 2 * CHUNK  # so many rows are not worth a process


def score(
    path: str | Path, judges: Sequence[Judge], *, format: str = "", questions: str | Path = "", workers: int = 0
) -> Iterator[Record]:
    """The records of a recorded file, each judged by every judge; the first one's verdict counts.

    `workers` is the number of processes for judges that need no model (0: one for each core). Raises what `read` does.
    """
    return judged(read(path, format, questions=questions), judges, workers=workers)


def judged(
    found: Iterable[Recorded], judges: Sequence[Judge], *, workers: int = 0, runner: asyncio.Runner | None = None
) -> Iterator[Record]:
    """Recorded replies as judged records, in their order. `runner` has the loop that a judge's model was opened on."""
    if not judges:
        raise UsageError("no judge given", hint="--judge rules")
    items = iter(found)
    if not all(getattr(judge, "offline", False) for judge in judges):
        return _with_models(items, judges, runner)
    workers = workers or len(os.sched_getaffinity(0))
    first = list(islice(items, FEW))
    # A fork of a process that holds an engine may hang: then one core has to do.
    if workers < 2 or len(first) < FEW or "torch" in sys.modules:
        return _here(chain(first, items), judges)
    return _in_processes(chain(first, items), judges, workers)


async def judge_one(item: Recorded, judges: Sequence[Judge]) -> Record:
    """One record. A reply that is missing stays an error; what a source settled itself counts as it says."""
    if item.settled is not None:
        return replace(item.record, judgements=tuple(replace(item.settled, judge=judge.name) for judge in judges))
    if item.completion is None:
        return item.record
    if item.graded:
        return replace(item.record, judgements=item.graded)
    verdicts = [await told(judge.name, judge.judge, item.attempt, item.completion, item.said) for judge in judges]
    return replace(
        item.record,
        judgements=tuple(verdicts),
        finish=item.completion.finish,
        tokens_in=item.completion.tokens_in,
        tokens_out=item.completion.tokens_out,
    )


async def told(
    judge: str, ask: Callable[..., Awaitable[Judgement]], *asked: Any, longer: int | None = None
) -> Judgement:
    """What a judge says when asked; one that breaks leaves the reply unscored. `longer`: as in Judgement."""
    try:
        return await ask(*asked)
    except UsageError:
        raise
    except Exception as err:  # the per-sample edge: a judge that breaks is data
        return Judgement(judge=judge, label="unscored", reason=f"judge_failed:{type(err).__name__}", longer=longer)


async def _all(items: Sequence[Recorded], judges: Sequence[Judge]) -> list[Record]:
    return [await judge_one(item, judges) for item in items]


def _here(items: Iterator[Recorded], judges: Sequence[Judge]) -> Iterator[Record]:
    while chunk := list(islice(items, CHUNK)):
        yield from asyncio.run(_all(chunk, judges))


def _chunk(items: Sequence[Recorded], judges: Sequence[Judge]) -> list[Record]:
    """What a worker process does."""
    return asyncio.run(_all(items, judges))


def _in_processes(items: Iterator[Recorded], judges: Sequence[Judge], workers: int) -> Iterator[Record]:
    """Chunks in flight are bounded, so a file of any size takes the same memory."""
    flying: deque[Future[list[Record]]] = deque()
    forked, deaf = multiprocessing.get_context("fork"), (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is ours to answer
    with ProcessPoolExecutor(workers, mp_context=forked, initializer=signal.signal, initargs=deaf) as pool:
        while True:
            while len(flying) < 2 * workers and (chunk := list(islice(items, CHUNK))):
                flying.append(pool.submit(_chunk, chunk, tuple(judges)))
            if not flying:
                return
            yield from flying.popleft().result()


def _with_models(items: Iterator[Recorded], judges: Sequence[Judge], runner: asyncio.Runner | None) -> Iterator[Record]:
    """One event loop for the whole file: a judge's model belongs to the loop it was first used on."""
    with nullcontext(runner) if runner else asyncio.Runner() as runner:
        while chunk := list(islice(items, WINDOW)):
            yield from runner.run(_together(chunk, judges))


async def stream(found: Iterable[Recorded], judges: Sequence[Judge]) -> AsyncIterator[Record]:
    """`judged` for a program that runs a loop of its own, on which its judges' models were opened."""
    items = iter(found)
    while chunk := list(islice(items, WINDOW)):
        for record in await _together(chunk, judges):
            yield record


async def _together(items: Sequence[Recorded], judges: Sequence[Judge]) -> list[Record]:
    return await asyncio.gather(*(judge_one(item, judges) for item in items))
