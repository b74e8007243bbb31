"""`harness score`: judge what others recorded, with no model under attack and no GPU."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness import progress
from harness.commands.options import check_json, told_what_is_kept


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="",
    help="derta, derta-gsm8k, derta-mmlu, jailbreakbench, harmbench, inspect, lm-eval, rows, run [found out]",
)
@click.option("--questions", default="", help="file with the bare requests, where the recorded file lacks them")
@click.option("--judge", default="rules", help="judges, comma-separated; the first one's verdict counts")
@click.option("--judge-model", default="", help="model of the llm judge: smollm2-135m, a folder, a served name")
@click.option("--judge-base-url", default="", help="endpoint that serves --judge-model")
@click.option("--judge-api-key-env", default="", help="environment variable that holds that endpoint's key")
@click.option("--set", "changes", multiple=True, metavar="JUDGE.KEY=VALUE", help="a setting of a judge")
@click.option("--labelled", is_flag=True, help="the file's own labels are a random sample's: correct the rates by them")
@click.option("--out", type=click.Path(path_type=Path), help="run folder to write, with reports like any other")
@click.option(
    "--json", "to", default="", metavar="-|FILE", help="write one JSON object: asr (or accuracy), low, high, n, ..."
)
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def score(
    file: Path,
    form: str,
    questions: str,
    judge: str,
    judge_model: str,
    judge_base_url: str,
    judge_api_key_env: str,
    changes: tuple[str, ...],
    labelled: bool,
    out: Path | None,
    to: str,
    quiet: bool,
) -> None:
    """Judge replies that another tool recorded, and say the attack success rate with its interval.

    With --out it goes on where it stopped. Labels that a run folder holds correct its rates again.
    Replies to questions with one right answer are graded, and the object says their accuracy.

    \b
    harness score results.json --format derta --judge rules --json -
    harness score Llama-3-8B_derta_eval_gsm8k_500.json --format derta-gsm8k --json -
    harness score completions.csv --out runs/scored
    harness score labels.csv --labelled
    harness score runs/before --judge rules,llm --judge-model my-judge --judge-base-url http://localhost:8000/v1
    """
    progress.quiet = quiet or to == "-"
    from harness.config import make_spec
    from harness.scoring import score as score_file

    check_json(to)
    own = {"judge_base_url": judge_base_url, "judge_api_key_env": judge_api_key_env}
    told = {"judge": judge, "judge_model": judge_model, **own, "set": changes}
    spec = make_spec({"model": "recorded", **told})
    with told_what_is_kept(out):
        done = score_file(file, spec, form=form, questions=questions, out=out, labelled=labelled)
    if to and to != "-":
        Path(to).write_text(json.dumps(done.told, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(done.told, indent=None if to == "-" else 2))
