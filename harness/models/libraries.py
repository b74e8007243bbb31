"""Keeps libraries quiet: their logs and bars would bury ours, and none of them is asked to phone home."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


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
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):  # noqa: PTH123
        yield
