"""`harness merge`: an adapter and its base as one checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from harness import progress


@click.command()
@click.argument("adapter")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the checkpoint [ADAPTER-merged]")
@click.option("--base", default="", help="checkpoint the adapter was trained on [the one it names]")
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def merge(adapter: str, out: Path | None, base: str, quiet: bool) -> None:
    """Fold an adapter into its base and write whole weights, for engines that take no adapter.

    ADAPTER is a folder, one that ships (vanilla, derta) or a hub id. `harness run --adapter` needs none of this: it
    swaps adapters in one load of the base.

    \b
    harness merge checkpoints/smollm2-derta --out derta-merged
    harness run --model derta-merged
    """
    progress.quiet = quiet
    from harness.models.options import ModelOptions
    from harness.models.source import find_adapter
    from harness.train.merge import merge as merge_adapter

    label, folder = find_adapter(adapter, ModelOptions())
    here = Path(adapter).expanduser()
    here = here if here.name not in ("", "..") else here.resolve()
    usual = here.with_name(f"{here.name}-merged") if here.is_dir() else Path(f"{label}-merged")
    done = merge_adapter(folder, out or usual, base)
    click.echo(str(done.folder))
