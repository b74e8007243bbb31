"""The front door: `train(recipe, out)` makes a checkpoint and says what it made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError
from harness.models.hub import bare
from harness.train.data import load as load_data
from harness.train.methods import WITHOUT_RTO, check_rows
from harness.train.recipe import Recipe

IDLE = ("name", "save_every", "micro_tokens", "experimental", "precision")
"""Settings that leave the weights as they are, but for rounding."""
HASHED = ("base", "data")
"""Settings that name what the hashes beside a recipe identify, however it is spelled."""


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
    check(recipe)
    data = load_data(recipe.data)
    check_rows(recipe, data)
    base = locate(recipe.base)
    if Path(base).resolve() in (out.resolve(), *out.resolve().parents):
        raise UsageError(f"{out} lies in its base: it would change what identifies it", hint="name another --out")
    import torch

    from harness.train import checkpoint, loop, state

    recipe = settled(recipe, on_gpu=torch.cuda.is_available())
    state.make_folder(out)  # before hours go into what can't be kept
    log, loaded, items = loop.run(recipe, data, base, out)
    manifest = checkpoint.save(out, recipe, data, loaded, items, log)
    return Result(folder=out, manifest=manifest)


def settled(recipe: Recipe, *, on_gpu: bool) -> Recipe:
    """The recipe with the precision that `auto` comes to on a GPU or on this CPU: what a manifest holds."""
    from harness.models.weights import bf16_in_hardware

    if recipe.precision != "auto":
        return recipe
    return replace(recipe, precision="bf16" if on_gpu or bf16_in_hardware() else "fp32")


def check(recipe: Recipe) -> None:
    """Raises UsageError for settings that a method can't work with."""
    if recipe.method == "circuit-breaker" and recipe.tune != "lora":
        raise UsageError("circuit-breaker needs tune: lora: the base without the adapter is its reference")
    if recipe.method == "circuit-breaker" and recipe.shard:
        raise UsageError("circuit-breaker needs shard: false: it reads hidden states of whole weights")
    if recipe.method == "r2d2" and (recipe.shard or recipe.template != "chat"):
        wrong, right = ("shard", "false") if recipe.shard else ("template", "chat")
        raise UsageError(f"r2d2 needs {wrong}: {right}: its search reads whole weights under the chat template")


def read_manifest(folder: Path, hint: str = "") -> dict[str, Any] | None:
    """The manifest of a finished checkpoint; None where there is none, or another tool's. Raises DataError for a broken
    one, with the hint."""
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:
        raise DataError(f"{path} is broken: {err}", hint=hint) from err
    return found if isinstance(found, dict) else None


def made_by(manifest: dict[str, Any], recipe: Recipe, data_sha: str, base_sha: str) -> bool:
    """Whether a finished checkpoint is what this recipe would make of these data and this base.

    A setting that the checkpoint's version did not have must be at its default now.
    """
    same = manifest.get("data_sha") == data_sha and manifest.get("base_sha") == base_sha
    then = manifest.get("recipe")
    if not (same and then and isinstance(then, dict)):
        return False
    return deciding({**asdict(Recipe()), **then}) == deciding(asdict(recipe))


def deciding(recipe: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe decides the weights besides data and base, as JSON holds it.

    Without RTO rows a method goes by the other's name.
    """
    decisive = {f.name for f in fields(Recipe)} - {*IDLE, *HASHED}
    kept = {key: list(v) if isinstance(v, tuple) else v for key, v in recipe.items() if key in decisive}
    if not kept["rto_share"]:
        kept["method"] = WITHOUT_RTO.get(recipe["method"], recipe["method"])
    if kept["method"] not in WITHOUT_RTO:
        del kept["rto_share"]  # nobody else reads it
    return kept


def locate(base: str) -> str:
    """The local folder of a base checkpoint, by name, folder or hub id. Raises UsageError for an adapter."""
    from harness.models.source import locate as find

    folder = find(base)
    if (folder / "adapter_config.json").exists():
        hint = "train from whole weights, which `harness merge` makes of an adapter and its base"
        raise UsageError(f"{bare(base)} is an adapter", hint=hint)
    return str(folder)
