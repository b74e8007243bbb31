"""The front door: `train(recipe, out)` makes a checkpoint and says what it made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.train.data import load as load_data
from harness.train.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished checkpoint: its folder and its manifest (also in `manifest.json`)."""

    folder: Path
    manifest: dict[str, Any]


def train(recipe: Recipe, out: Path) -> Result:
    """Trains `recipe` into the folder `out`; a killed run goes on when it is started again with the same two.

    Under torchrun every process calls it. Raises UsageError or DataError for what the user can mend.
    """
    if (out / "manifest.json").exists():
        raise UsageError(f"{out} holds a finished checkpoint", hint="name another folder with --out")
    if recipe.method == "circuit-breaker" and recipe.tune != "lora":
        raise UsageError("circuit-breaker needs tune: lora: the base without the adapter is its reference")
    data = load_data(recipe.data)
    base = locate(recipe.base)
    from harness.models.weights import fingerprint
    from harness.train import checkpoint, loop

    log, loaded, items = loop.run(recipe, data, base, out)
    manifest = checkpoint.save(out, recipe, data, loaded, items, log, fingerprint(Path(base)))
    return Result(folder=out, manifest=manifest)


def locate(base: str) -> str:
    """The local folder of a base checkpoint, by its name, its folder or its hub id."""
    from harness.models.source import locate as find

    return str(find(base))
