"""What a killed run goes on from: one file, replaced in one move, so that it is always whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from errno import EACCES
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import DataError, UsageError
from harness.train.data import TrainSet
from harness.train.recipe import Recipe
from harness.types import sha

if TYPE_CHECKING:
    from harness.train.loop import Step
    from harness.train.model import Loaded
    from harness.train.objective import Reference

FILE = "state.pt"


def fingerprint(recipe: Recipe, data: TrainSet) -> str:
    """Runs with another recipe or other data can't go on from each other's state."""
    return sha({**asdict(recipe), "save_every": 0, "micro_tokens": 0, "name": "", "data": data.digest})


def save(
    folder: Path, recipe: Recipe, data: TrainSet, loaded: Loaded, optimizer: Any, log: Sequence[Step], ref: Reference,
    suffixes: Sequence[str] = (),
) -> None:  # fmt: skip
    """Writes weights that moved, optimizer, log and suffixes. Every process must call it; the first one writes."""
    moved, state = weights(loaded), moments(loaded, optimizer)
    if loaded.team.rank == 0:
        payload = {
            "fingerprint": fingerprint(recipe, data),
            "base_sha": loaded.base_sha,
            "weights": moved,
            "optimizer": state,
            "log": [asdict(step) for step in log],
            "reference": ref,
            "suffixes": list(suffixes),
        }
        replace(folder / FILE, lambda path: torch.save(payload, path))


def resume(
    folder: Path, recipe: Recipe, data: TrainSet, loaded: Loaded, optimizer: Any
) -> tuple[list[Step], Reference | None, list[str]]:
    """The log so far, the DPO reference and r2d2's suffixes, with weights and optimizer put back; empty without a save.

    Raises UsageError when the folder holds the state of another recipe, of other data or of other weights.
    """
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    from harness.train.loop import Step

    path = folder / FILE
    if not path.exists():
        return [], None, []
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as err:
        raise DataError(f"{path} is broken or can't be read", hint=f"remove it to start over: rm {path}") from err
    if not isinstance(payload, dict) or payload.get("fingerprint") != fingerprint(recipe, data):
        raise UsageError(
            f"{folder} holds an unfinished run of another recipe or other data",
            hint=f"name another folder, or start over: rm {path}",
        )
    if payload.get("base_sha", loaded.base_sha) != loaded.base_sha:  # older states lack it
        raise UsageError(
            f"{folder} holds an unfinished run on other weights than {recipe.base} holds now",
            hint=f"put the old ones back, name another folder, or start over: rm {path}",
        )
    set_model_state_dict(loaded.model, payload["weights"], options=whole())
    set_optimizer_state_dict(loaded.model, optimizer, payload["optimizer"], options=whole())
    return [Step(**step) for step in payload["log"]], payload["reference"], payload.get("suffixes", [])


def whole() -> Any:
    """Options under which every process gets whole tensors on the CPU, however they are spread out."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False, ignore_frozen_params=True)


def weights(loaded: Loaded) -> dict[str, Any]:
    """The weights that moved. A frozen head that shares the embeddings is no other's name in a state dict."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    named = loaded.model.named_parameters(remove_duplicate=False)
    frozen = {name for name, parameter in named if not parameter.requires_grad}
    found = get_model_state_dict(loaded.model, options=whole())
    return {name: tensor for name, tensor in found.items() if name not in frozen}


def moments(loaded: Loaded, optimizer: Any) -> dict[str, Any]:
    """The optimizer's state."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return dict(get_optimizer_state_dict(loaded.model, optimizer, options=whole()))


def replace(path: Path, write: Any) -> None:
    """Writes a file beside `path` with `write(path)`, then puts it in place in one move."""
    make_folder(path.parent)
    fresh = path.with_name(f".{path.name}.writing")  # one name: what a kill leaves is written over
    try:
        with written(path):
            write(fresh)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Raises UsageError where nothing can be written."""
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turns what a full disk, a missing right or a file in the way comes to into a UsageError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as err:  # torch and safetensors have errors of their own
        why = getattr(err, "strerror", None) or str(err).partition("\n")[0]
        hint = "free some space, or name another folder with --out, and start it again"
        raise UsageError(f"{path} can't be written: {why}", hint=hint) from err
