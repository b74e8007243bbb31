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
@click.option("--judge", "names", default="rules", help="judges, comma-separated")
@click.option("--judge-model", default="", help="model of the llm judge: smollm2-135m, a folder, a served name")
@click.option("--judge-base-url", default="", help="endpoint that serves --judge-model")
@click.option("--judge-api-key-env", default="", help="environment variable that holds that endpoint's key")
@click.option("--set", "changes", multiple=True, metavar="JUDGE.KEY=VALUE", help="a setting of a judge")
@click.option("--probed", type=int, default=50, help="replies the order, length and forgery probes run on")
@click.option("--seed", type=int, default=0)
def check(
    labels: Path,
    names: str,
    judge_model: str,
    judge_base_url: str,
    judge_api_key_env: str,
    changes: tuple[str, ...],
    probed: int,
    seed: int,
) -> None:
    """Hold judges against labels (question, answer, label): accuracy, kappa, by attack, probes. One JSON object.

    \b
    harness judge check labels.csv
    harness judge check labels.csv --judge rules,classifier --set classifier.path=mine.npz
    harness judge check labels.csv --judge llm --judge-model smollm2-135m
    """
    from harness.config import make_spec
    from harness.judges.check import check_async
    from harness.scoring import opened

    own = {"judge_base_url": judge_base_url, "judge_api_key_env": judge_api_key_env}
    told = {"judge": names, "judge_model": judge_model, **own, "set": changes}
    with opened(make_spec({"model": "recorded", **told})) as (judges, runner):
        found = runner.run(check_async(labels, judges, seed=seed, probed=probed))
    click.echo(json.dumps(found.plain(), indent=2))
    for one in found.judges:
        if not one.informative:
            click.echo(f"{one.judge}: uninformative: {one.why}", err=True)


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
@click.option("--lookalikes", is_flag=True, help="replies to what should be answered, too")
@click.option("--seed", type=int, default=0)
def sample(run: Path, out: Path, half_width: float, n: int, lookalikes: bool, seed: int) -> None:
    """Draw a blinded sheet of replies for people to label: a random sample of each model and attack.

    \b
    harness judge sample runs/mine --half-width 0.1 --out sheet.csv
    harness judge label sheet.csv runs/mine
    """
    from harness.judges.sheet import GUIDELINE
    from harness.judges.sheet import sample as draw

    sheet = draw(run, out, half_width=half_width, n=n, lookalikes=lookalikes, seed=seed)
    click.echo(f"{sheet.path}: {sheet.n} rows to label")
    click.echo(f"{GUIDELINE}\nthen: harness judge label {sheet.path} {run}")


@judge.command()
@click.argument("sheet", type=PATH)
@click.argument("run", type=PATH)
@click.option("--by", default="", help="who labelled, kept with the labels")
def label(sheet: Path, run: Path, by: str) -> None:
    """Read a labelled sheet (or question,answer,label) back into its run, and write its corrected reports.

    \b
    harness judge label sheet.csv runs/mine --by ann
    """
    from harness.engine import rewrite
    from harness.scoring import take_labels

    click.echo(f"{take_labels(run, sheet, by=by)} labels kept in {run}")
    for metric in rewrite(run).metrics:
        if metric.name == "asr_corrected":
            told = "-" if metric.value is None else f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]"
            click.echo(f"{metric.group['attack']} on {metric.group['model']}: {told} ({metric.note})")
