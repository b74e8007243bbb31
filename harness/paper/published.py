"""The published numbers, read from `published.yaml`: one row a model, in percent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

ATTACKS = ("code", "pair", "jailbreakchat", "cipher", "completion", "autodan")
TASKS = ("gsm8k", "mmlu", "alpaca")
FILE = Path(__file__).parent / "published.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One model of the paper. `rates` maps an attack or task to its percentage; what the paper lacks is missing."""

    name: str
    rates: dict[str, float] = field(default_factory=dict)
    billions: float = 0.0  # of parameters; 0: not known
    checkpoints: tuple[str, ...] = ()  # the hub ids that hold this model
    file: str = ""  # words that the name of its result files holds

    @property
    def method(self) -> str:
        """What was done to the base: `vanilla`, `DeRTa`, `Instruct DeRTa`, ...; else the name itself."""
        base, _, done = self.name.partition(" ")
        kind = base.partition("-")[2] if base.endswith("-Instruct") else ""
        return " ".join(part for part in (kind, done) if part) or self.name

    def mean(self, names: Sequence[str]) -> float | None:
        """The plain mean of these rates, as a fraction; None where one is missing."""
        found = [self.rates[name] for name in names if name in self.rates]
        return sum(found) / len(found) / 100 if len(found) == len(names) else None


@cache
def rows() -> tuple[Published, ...]:
    """Every row of the published table, in its order."""
    import yaml

    told: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return tuple(_row(row) for row in told["rows"])


def _row(told: dict[str, Any]) -> Published:
    rates = {name: float(told[name]) for name in (*ATTACKS, *TASKS) if name in told}
    return Published(
        name=told["name"],
        rates=rates,
        billions=told.get("billions", 0.0),
        checkpoints=tuple(told.get("checkpoints", ())),
        file=told.get("file", ""),
    )


def of_checkpoint(model: str) -> Published | None:
    """The row of a checkpoint by its hub id or the last part of it; None where the paper has none."""
    ids = {name: row for row in rows() for whole in row.checkpoints for name in (whole, whole.rpartition("/")[2])}
    return ids.get(model)


def of_file(stem: str) -> Published | None:
    """The row of a recorded result file by its name, such as `Llama-3-8B_derta_eval_mmlu_500`; None where it has none.

    The row with the most words in the name wins, so that an Instruct model is not taken for its base.
    """
    words = re.sub(r"[_\s]+", " ", stem.lower())
    fits = [row for row in rows() if row.file and all(word in words for word in row.file.split())]
    return max(fits, key=lambda row: len(row.file), default=None)
