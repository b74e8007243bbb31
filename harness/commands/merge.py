"""`harness merge`: an adapter and its base as one checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from harness import progress


@click.command()
@click.argument("adapter", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="folder of the checkpoint [ADAPTER-merged]")
@click.option("--base", default="", help="checkpoint the adapter was trained on [the one it names]")
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def merge(adapter: Path, out: Path | None, base: str, quiet: bool) -> None:
    """Fold an adapter into its base and write whole weights, for engines that take no adapter.

    `harness run --adapter` needs none of this: it swaps adapters in one load of the base.

    \b
    harness merge checkpoints/smollm2-derta --out derta-merged
    harness run --model derta-merged
    """
    progress.quiet = quiet
    from harness.train.merge import merge as merge_adapter

    adapter = adapter.expanduser()
    done = merge_adapter(adapter, out or adapter.with_name(f"{adapter.resolve().name}-merged"), base)
    click.echo(str(done.folder))
