"""Keeps libraries quiet: their logs and bars would bury ours, and none of them is asked to phone home."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path


def hush() -> None:
    """Call before the first import of vllm, transformers or lm_eval; safe to call again."""
    for name, value in {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "DATASETS_VERBOSITY": "error",
    }.items():
        os.environ.setdefault(name, value)
    for noisy in ("httpx", "openai", "urllib3", "filelock", "datasets", "lm_eval", "lm-eval", "triton"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


@contextmanager
def silence() -> Iterator[None]:
    """Drops what Python code prints to standard error inside the block; errors raised still come out."""
    hush()
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        yield


@contextmanager
def captured() -> Iterator[Callable[[], str]]:
    """Keeps the terminal clean of what native code and child processes print inside the block.

    Yields a function that returns the last lines caught, for the error that a user is shown.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:

        def tail() -> str:
            log.seek(0)
            return " | ".join(line.strip() for line in log.read().splitlines()[-8:])

        sys.stdout.flush()
        sys.stderr.flush()
        kept = {fd: os.dup(fd) for fd in (1, 2)}
        try:
            for fd in kept:
                os.dup2(log.fileno(), fd)
            yield tail
        finally:
            for fd, was in kept.items():
                os.dup2(was, fd)
                os.close(was)
