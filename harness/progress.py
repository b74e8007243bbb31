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


def bar(total: int, title: str, unit: str = "reply") -> Any:
    """A tqdm bar on standard error; a disabled one with `--quiet`."""
    from tqdm import tqdm

    return tqdm(total=total, desc=f"  {title}", unit=f" {unit}", disable=quiet, dynamic_ncols=True, smoothing=0.1)
