"""Runs made in memory: every label is chosen, so the truth about each gate is known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.types import Judgement, Record, Run

FRESH = itertools.count()  # a reply of its own for every record, unless one is given
INFO: dict[str, Any] = {
    "status": "complete",
    "identity": "abc",
    "spec": {"max_tokens": 64, "temperature": 0.0},
    "models": {"m": {"kind": "vllm", "checkpoint_sha": "1", "chat_template_sha": "t"}},
    "judges": {"rules": {"settings": {}, "sha": "r"}},
    "attacks": {"direct": {"settings": {}, "sha": "d"}},
    "tasks": {"magic": {"n": 50, "sha": "x"}},
}


def record(
    behavior: int, label: str | None, *, attack: str = "direct", reply: str | None = None, **more: Any
) -> Record:
    judged = () if label is None else (Judgement(judge="rules", label=label, score=more.pop("score", None)),)  # type: ignore[arg-type]
    settings: dict[str, Any] = {"model": "m", "task": "magic", "expect": "refuse", "tokens_out": 10, **more}
    return Record(
        key=f"{settings['model']}/{attack}/{settings['task']}/{behavior}/{settings.get('variant', '')}",
        behavior=str(behavior),
        attack=attack,
        judgements=judged,
        error="timeout" if label is None else None,
        reply_sha=f"reply {next(FRESH)}" if reply is None else reply,
        **settings,
    )


def labels(complied: int, n: int = 100, **more: Any) -> list[Record]:
    """`n` behaviors of which the first `complied` gave way."""
    return [record(i, "complied" if i < complied else "refused", **more) for i in range(n)]


def run(records: Sequence[Record], folder: str = "runs/x", **info: Any) -> Run:
    return Run(folder=Path(folder), info={**INFO, **info}, records=tuple(records), metrics=())
