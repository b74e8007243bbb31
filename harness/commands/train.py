"""`harness train`: from a recipe to a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness import progress


@click.command()
@click.argument("method", required=False)
@click.option("--recipe", help="a bundled recipe (harness ls recipes) or a YAML file")
@click.option("--base", help="checkpoint to start from; with METHOD, its recipe for this base, or smollm2-METHOD")
@click.option("--data", help="training data: a bundled set, a folder of triples and helpful pairs, or official rows")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the checkpoint [checkpoints/RECIPE]")
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="change a setting of the recipe")
@click.option("--dry-run", is_flag=True, help="say memory, steps, tokens and hours, and stop")
@click.option("--gpus", type=click.IntRange(0), help="for --dry-run: how many [8; the embedded base: 0, the CPU]")
@click.option("--gpu", default="H100", show_default=True, help="for --dry-run: A100, H100 or H200")
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def train(
    method: str | None,
    recipe: str | None,
    base: str | None,
    data: str | None,
    out: Path | None,
    changes: tuple[str, ...],
    dry_run: bool,
    gpus: int | None,
    gpu: str,
    quiet: bool,
) -> None:
    """Train a checkpoint or an adapter by a recipe; a killed training goes on when it is typed again.

    \b
    harness train derta --base smollm2-135m
    harness train derta --base meta-llama/Meta-Llama-3-8B --data my-set
    harness train --recipe smollm2-vanilla --set seed=1 --out checkpoints/vanilla-1
    harness train --recipe llama3-70b-lora-derta --dry-run
    harness train --recipe llama3-8b-derta --data my-set --dry-run --gpus 4 --gpu A100
    """
    progress.quiet = quiet
    chosen = choose(method, recipe, base, data, changes)
    if dry_run:
        from harness.train.plan import plan, text

        click.echo(text(chosen, plan(chosen, gpus=gpus, gpu=gpu)))
        return
    from harness.train.trainer import train as train_recipe

    result = train_recipe(chosen, out or Path("checkpoints") / chosen.name)
    click.echo(str(result.folder))


def choose(method: str | None, recipe: str | None, base: str | None, data: str | None, changes: tuple[str, ...]) -> Any:
    """The recipe that is meant. Raises UsageError or UnknownName."""
    from harness.errors import UsageError
    from harness.train.recipe import change, find, find_for

    if bool(method) == bool(recipe):
        raise UsageError("name a method or a recipe", hint="harness train derta, or: harness train --recipe NAME")
    values: dict[str, Any] = {key: value for key, value in (("base", base), ("data", data)) if value}
    for item in changes:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"--set {item!r} is not of the form key=value")
        values[key] = value
    chosen = find(recipe) if recipe else find_for(str(method), base or "smollm2-135m")
    return change(chosen, values)
