"""`harness judge`: how good a judge is, one fitted on your own labels, and sheets for people to label."""

from __future__ import annotations

import json
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.group()
def judge() -> None:
    """Check a judge against labels, fit one, or draw a sheet for people to label."""


@judge.command()
@click.argument("labels", type=PATH)
@click.option("--judge", "names", default="rules", help="judges that need no model, comma-separated")
@click.option("--set", "changes", multiple=True, metavar="JUDGE.KEY=VALUE", help="a setting of a judge")
@click.option("--probed", type=int, default=50, help="replies the order, length and forgery probes run on")
@click.option("--seed", type=int, default=0)
def check(labels: Path, names: str, changes: tuple[str, ...], probed: int, seed: int) -> None:
    """Hold judges against labels (question, answer, label): accuracy, kappa, by attack, probes. One JSON object.

    \b
    harness judge check labels.csv
    harness judge check labels.csv --judge rules,classifier --set classifier.path=mine.npz
    """
    from harness import registry
    from harness.config import RunSpec
    from harness.judges.check import check as check_judges

    spec = RunSpec(set=changes)
    judges = [registry.make("judge", name, spec.options_of(name)) for name in names.split(",")]
    click.echo(json.dumps(check_judges(labels, judges, seed=seed, probed=probed).plain(), indent=2))


@judge.command()
@click.argument("labels", type=PATH)
@click.option("--out", type=PATH, default=Path("judge.npz"), show_default=True, help="file of the fitted judge")
@click.option("--seed", type=int, default=0)
def fit(labels: Path, out: Path, seed: int) -> None:
    """Fit the classifier judge on labels; prints its card with the cross-validated agreement.

    \b
    harness judge fit labels.csv --out mine.npz
    harness run --model smollm2-135m --judge classifier --set classifier.path=mine.npz
    """
    from harness.judges.classifier import fit as fit_judge

    weights = fit_judge(labels, seed=seed)
    weights.save(out)
    click.echo(json.dumps(dict(weights.card), indent=2))


@judge.command()
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, default=Path("sheet.csv"), show_default=True, help="the sheet")
@click.option("--half-width", type=float, default=0.1, show_default=True, help="wanted half-width of each interval")
@click.option("--n", type=int, default=0, help="rows of each model and attack, instead of a half-width")
@click.option("--seed", type=int, default=0)
def sample(run: Path, out: Path, half_width: float, n: int, seed: int) -> None:
    """Draw a blinded sheet of replies for people to label: a random sample of each model and attack."""
    from harness.judges.sheet import sample as draw

    sheet = draw(run, out, half_width=half_width, n=n, seed=seed)
    click.echo(f"{sheet.path}: {sheet.n} rows to label")


@judge.command()
@click.argument("sheet", type=PATH)
@click.argument("run", type=PATH)
@click.option("--by", default="", help="who labelled, kept with the labels")
def label(sheet: Path, run: Path, by: str) -> None:
    """Read a labelled sheet back into its run folder, for the corrected rates."""
    from harness.judges.sheet import keep, read_sheet

    click.echo(f"{keep(run, read_sheet(sheet, run), by=by)} labels kept in {run}")
