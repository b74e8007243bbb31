"""The lab's checkpoints: each is found where it was made, taken over from elsewhere, or trained."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.lab.spec import Trial
from harness.models.adapters import weights_file
from harness.progress import say
from harness.train.data import load as load_data
from harness.train.recipe import Recipe
from harness.train.trainer import deciding, locate, made_by, read_manifest
from harness.types import sha


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A finished checkpoint of a trial."""

    trial: Trial
    folder: Path
    manifest: dict[str, Any]


@dataclass(slots=True)
class Shelf:
    """Where checkpoints lie, by what decides them: a changed recipe, other data or another base make another one."""

    folder: Path
    reuse: Sequence[Path]
    base_sha: str
    digests: dict[str, str]

    @classmethod
    def of(cls, folder: Path, reuse: Sequence[Path], base: str) -> Shelf:
        """Raises UsageError or DataError when there is no such base."""
        from harness.models.weights import fingerprint

        return cls(folder, reuse, fingerprint(Path(locate(base))), {})

    def data_sha(self, data: str) -> str:
        """The digest of a training set, read once."""
        if data not in self.digests:
            self.digests[data] = load_data(data).digest
        return self.digests[data]

    def place(self, trial: Trial) -> Path:
        """The folder of a trial; its last part names the model in the run."""
        decides = deciding(asdict(trial.recipe))
        key = sha({**decides, "data_sha": self.data_sha(trial.recipe.data), "base_sha": self.base_sha})[:8]
        return self.folder / key / trial.name

    def find(self, trial: Trial) -> Checkpoint | None:
        """The trial's checkpoint where it is finished, here or in a folder to take over from.

        Raises DataError for a broken manifest, and for a folder of this lab that holds something else or no weights.
        """
        place = self.place(trial)
        if (manifest := read_manifest(place, f"remove the folder to train again: rm -r {place}")) is not None:
            if not self.fits(manifest, trial.recipe):
                raise DataError(f"{place} holds another checkpoint", hint=f"remove it: rm -r {place}")
            if weights_file(place) is None:
                raise DataError(f"{place} has lost its weights", hint=f"remove it to train again: rm -r {place}")
            return Checkpoint(trial=trial, folder=place, manifest=manifest)
        for source in self.reuse:
            for folder in [source, *sorted(source.glob("*/")), *sorted(source.glob("*/*/"))]:
                hint = f"mend {folder / 'manifest.json'}, or name a folder under `reuse` that it does not lie in"
                manifest = read_manifest(folder, hint)
                if manifest is not None and self.fits(manifest, trial.recipe) and weights_file(folder):
                    return Checkpoint(trial=trial, folder=take_over(folder, place), manifest=manifest)
        return None

    def fits(self, manifest: dict[str, Any], recipe: Recipe) -> bool:
        """Whether a checkpoint is what the recipe would make."""
        return made_by(manifest, recipe, self.data_sha(recipe.data), self.base_sha)


def take_over(source: Path, place: Path) -> Path:
    """Copies a checkpoint in, whole or not at all, in the place of a training that was cut off."""
    half = place.with_name(f".{place.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half)
    shutil.rmtree(place, ignore_errors=True)
    half.rename(place)
    return place


def make(trials: Sequence[Trial], shelf: Shelf) -> list[Checkpoint]:
    """Every checkpoint, in order; what is finished is not trained again, what was killed goes on.

    Raises DataError where the data or the base changed meanwhile: the checkpoints would be of different ones.
    """
    made = []
    for number, trial in enumerate(trials, 1):
        known = shelf.find(trial)
        if known is None:
            say(f"training {trial.name} ({number} of {len(trials)})")
            known = train_one(trial, shelf.place(trial))
            if not shelf.fits(known.manifest, trial.recipe):
                same = known.manifest.get("data_sha") == shelf.data_sha(trial.recipe.data)
                told = f"{'base' if same else 'data'} changed while the lab trained: {known.folder} was made of the new"
                hint = f"rm -r {known.folder}, and start the lab again when nothing writes there any more"
                raise DataError(f"the {told}", hint=hint)
        made.append(known)
    return made


def train_one(trial: Trial, folder: Path) -> Checkpoint:
    """Trains a checkpoint, and gives its memory back before the next one or the engine needs it."""
    import gc

    from harness.train.trainer import train

    manifest = train(trial.recipe, folder).manifest
    gc.collect()
    torch = sys.modules.get("torch")  # loaded by the training, where there was one
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Checkpoint(trial=trial, folder=folder, manifest=manifest)
