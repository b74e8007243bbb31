"""Makes the adapters that ship with the program: trains `smollm2-NAME`, puts the result where the wheel takes it from.

    python ci/ship_adapters.py vanilla derta        # what `make adapters` runs; 40 to 60 CPU minutes in all

A killed run goes on. The last line of each says whether the weights came out as they were shipped.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from harness.models.weights import fingerprint
from harness.train.data import load
from harness.train.recipe import Recipe, find
from harness.train.trainer import locate, made_by, read_manifest, train

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "harness" / "train" / "adapters"
FILES = (
    "adapter_config.json", "adapter_model.safetensors", "manifest.json", "README.md", "log.jsonl", "loss.svg",
)  # fmt: skip
LARGEST = 12 * 2**20  # bytes of one adapter: it is downloaded by everyone who installs the program


def ship(name: str, work: Path) -> str:
    """Trains one adapter (or finds it trained), replaces the shipped one; says how the two compare."""
    fresh, shipped = work / name, SHIPPED / name
    recipe = find(f"smollm2-{name}")
    if not up_to_date(fresh, recipe):
        train(recipe, fresh)
    size = sum((fresh / file).stat().st_size for file in FILES)
    if size > LARGEST:
        raise SystemExit(f"{name}: {size / 2**20:.1f} MiB is too much to ship")
    told = compare(fresh, shipped)
    half = shipped.with_name(f".{name}.part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for file in FILES:
        shutil.copyfile(fresh / file, half / file)
    shutil.rmtree(shipped, ignore_errors=True)
    half.rename(shipped)
    return f"{name}: {told}, {size / 2**20:.1f} MiB in {shipped.relative_to(ROOT)}"


def up_to_date(fresh: Path, recipe: Recipe) -> bool:
    """Whether an earlier start finished this very recipe; what another one left is removed."""
    found = read_manifest(fresh)
    if found is None:
        return False
    if made_by(found, recipe, load(recipe.data).digest, fingerprint(Path(locate(recipe.base)))):
        return True
    shutil.rmtree(fresh)
    return False


def compare(fresh: Path, shipped: Path) -> str:
    """Whether the fresh weights are the shipped ones."""
    old, new = read_manifest(shipped), read_manifest(fresh)
    if old is None or new is None:
        return "new"
    changed = [key for key in ("recipe_sha", "data_sha", "base_sha") if old.get(key) != new.get(key)]
    if changed:
        return f"another one than shipped ({', '.join(changed)})"
    weights = [(folder / "adapter_model.safetensors").read_bytes() for folder in (fresh, shipped)]
    return "the shipped weights, byte for byte" if weights[0] == weights[1] else "the shipped recipe, other weights"


def main() -> None:
    """Ships every adapter that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="vanilla, derta, ...: the recipes smollm2-NAME")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "adapters", help="where training goes on")
    args = parser.parse_args()
    for name in args.names:
        print(ship(name, args.work))


if __name__ == "__main__":
    main()
