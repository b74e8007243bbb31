"""What a killed run goes on from: one file, replaced in one move, so that it is always whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
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

    Raises UsageError when the folder holds the state of another recipe or of other data.
    """
    from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict

    from harness.train.loop import Step

    path = folder / FILE
    if not path.exists():
        return [], None, []
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as err:
        raise DataError(f"{path} is broken or can't be read", hint=f"remove it to start over: rm {path}") from err
    if payload["fingerprint"] != fingerprint(recipe, data):
        raise UsageError(
            f"{folder} holds an unfinished run of another recipe or other data",
            hint=f"name another folder, or start over: rm {path}",
        )
    set_model_state_dict(loaded.model, payload["weights"], options=whole())
    set_optimizer_state_dict(loaded.model, optimizer, payload["optimizer"], options=whole())
    return [Step(**step) for step in payload["log"]], payload["reference"], payload.get("suffixes", [])


def whole() -> Any:
    """Options under which every process gets whole tensors on the CPU, however they are spread out."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True, strict=False, ignore_frozen_params=True)


def weights(loaded: Loaded) -> dict[str, Any]:
    """The weights that moved."""
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return dict(get_model_state_dict(loaded.model, options=whole()))


def moments(loaded: Loaded, optimizer: Any) -> dict[str, Any]:
    """The optimizer's state."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return dict(get_optimizer_state_dict(loaded.model, optimizer, options=whole()))


def replace(path: Path, write: Any) -> None:
    """Writes a file beside `path` with `write(path)`, then puts it in place in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(fresh)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as err:
        raise UsageError(f"{path} can't be written: {err.strerror}", hint="free some space and start it again") from err
    finally:
        fresh.unlink(missing_ok=True)
