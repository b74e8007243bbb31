"""What a user sees while work goes on: one line per long step, progress bars, or silence with `--quiet`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

quiet = False
"""Set by `--quiet`; module-wide because a bar may be drawn from anywhere and there is one terminal."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Says what is being waited for, and how long it took."""
    if quiet:
        yield
        return
    print(f"  {title} ...", end="", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        yield
    except BaseException:
        print(" failed", file=sys.stderr, flush=True)
        raise
    print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def say(line: str) -> None:
    """One line of what a user should know before the work goes on."""
    if not quiet:
        print(f"  {line}", file=sys.stderr, flush=True)


def bar(total: int, title: str, unit: str) -> Any:
    """A tqdm bar on standard error with time left; a silent one with `--quiet`."""
    from tqdm import tqdm

    return tqdm(total=total, desc=f"  {title}", unit=f" {unit}", disable=quiet, dynamic_ncols=True, smoothing=0.1)


def bytes_bar(total: int, title: str) -> Any:
    """A tqdm bar of a download; `total` is 0 where nobody knows it."""
    from tqdm import tqdm

    return tqdm(
        total=total or None, desc=f"  {title}", unit="B", unit_scale=True, disable=quiet, dynamic_ncols=True
    )  # fmt: skip


class Bar:
    """A bar that counts tokens as well and shows them by the second."""

    def __init__(self, total: int, title: str, unit: str = "case") -> None:
        self._began = time.monotonic()
        self._tokens = 0
        self._bar = bar(total, title, unit)

    def __enter__(self) -> Bar:
        """Shows the bar."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()

    def done(self, n: int = 1) -> None:
        """Counts what is finished."""
        self._bar.update(n)

    def grow(self, n: int) -> None:
        """Adds to the total."""
        self._bar.total = (self._bar.total or 0) + n
        self._bar.refresh()

    def tokens(self, n: int) -> None:
        """Counts tokens written by the model."""
        self._tokens += n
        self._bar.set_postfix_str(f"{self._tokens / (time.monotonic() - self._began):.0f} tokens/s", refresh=False)
