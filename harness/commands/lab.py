"""`harness lab`: from recipes to a report on what each of them is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness import progress
from harness.commands.options import ENDS

EXIT_CODES = f"Exit codes: 0 done, 1 a gate failed, 2 usage or data, 3 inconclusive, 4 incomplete, {ENDS}"


@click.command(epilog=EXIT_CODES)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="folder of the lab [labs/NAME]")
@click.option("--dry-run", is_flag=True, help="say what would be trained and how long it takes, and stop")
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def lab(file: Path, out: Path | None, dry_run: bool, quiet: bool) -> int:
    """Train, attack, judge, measure and gate: methods x seeds from one YAML file, one manifest, one report.

    Finished checkpoints are not trained again, and one load of the base evaluates all of them. Killed at any point,
    the same command goes on.

    \b
    harness lab examples/lab.yaml
    harness lab examples/tradeoff.yaml --dry-run
    """
    progress.quiet = quiet
    from harness.lab import read_spec, run_lab

    spec = read_spec(file)
    if dry_run:
        for line in outline(spec):
            click.echo(line)
        return 0
    from harness.lab.spec import slug

    done = run_lab(spec, out or Path("labs") / slug(spec.name))
    if not quiet:
        from harness import registry

        registry.load("report", "terminal")(done.run)
    click.echo(str(done.folder / "report.pdf"))
    return done.exit_code


def outline(spec: Any) -> list[str]:
    """One line a checkpoint: steps, tokens and time, and their sum."""
    from harness.models import embedded
    from harness.train.plan import plan

    lines, hours = [], 0.0
    for trial in spec.trials():
        found = plan(trial.recipe, gpus=None if trial.recipe.base == embedded.NAME else 1)  # a lab is one process
        hours += found.hours
        reading = found.reading
        size = f"{reading.steps} steps, {reading.tokens / 1e6:.2f} M tokens ({reading.source})"
        lines.append(f"{trial.name}: {size}, {60 * found.hours:.0f} min, {found.speed}")
    run = spec.outline()
    lines.append(f"training in all: {60 * hours:.0f} min where no checkpoint is finished yet")
    lines.append(f"one run over the base and {len(lines) - 1} checkpoints: attacks {', '.join(run.attacks)}")
    lines += [f"gate: {candidate} against {baseline}" for baseline, candidate in spec.gates]
    return lines
