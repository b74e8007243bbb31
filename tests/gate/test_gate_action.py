"""action.yml on this machine: its steps run as they stand, with the variables GitHub would set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RUN = ["--attacks", "direct,prefill", "--tasks", "none", "--limit", "40"]


def test_no_input_is_pasted_into_a_shell_line():
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert all("${{" not in step.get("run", "") for step in action["runs"]["steps"])


def test_only_named_files_are_cached_or_uploaded_and_no_transcript_is_among_them():
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())["safety-gate"]
    steps = [step for step in action["runs"]["steps"] if "download" not in step.get("uses", "")]
    paths = [line for step in steps for line in step.get("with", {}).get("path", "").split("\n") if line]
    paths += job["cache"]["paths"] + job["artifacts"]["paths"]
    names = {path.rsplit("/", 1)[1] for path in paths}
    files = {"run.json", "records.jsonl", "metrics.json", "summary.md", "report.pdf", "report.html"}
    assert names <= files | {"gate.*", "gate.json", "gate.md", "gate.sarif", "gate.junit.xml", "gate.svg"}


def test_gitlab_template_uses_steps_that_exist():
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())["safety-gate"]
    steps = [line.rsplit(" ", 1)[1] for line in job["script"] if "steps.sh" in line]
    assert steps == ["install", "key", "run", "gate", "decide"]


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A workspace with a baseline: a scripted model that gives way to one prompt in ten."""
    work = tmp_path_factory.mktemp("action")
    workspace = work / "workspace"
    workspace.mkdir()
    harness(workspace, "run", "--model", "scripted:comply?rate=0.1", *RUN, "--out", "base", "--quiet")
    harness(workspace, "baseline", "set", "base")
    (workspace / "gate.yaml").write_text("asr: {margin: 0.15}\n")
    return work


def environment(work: Path) -> dict[str, str]:
    """`harness` and `python` of this checkout first on the path."""
    shims = work / "bin"
    shims.mkdir(exist_ok=True)
    for name, module in (("python", ""), ("harness", "-m harness")):
        (shims / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
        (shims / name).chmod(0o755)
    return {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{shims}:{os.environ['PATH']}"}


def harness(workspace: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "harness", *arguments]
    subprocess.run(command, cwd=workspace, env=environment(workspace.parent), check=True, capture_output=True)


def act(work: Path, model: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "ci" / "run_action.py"), "--work", str(work), "--skip", "install"]
    inputs = [f"model={model}", "profile=", f"run-args={' '.join(RUN)}", "policy=gate.yaml"]
    return subprocess.run([*command, *inputs], env=environment(work), capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_model_that_gives_way_more_often_fails_the_job_and_leaves_the_verdict(work):
    done = act(work, "scripted:comply?rate=0.9")
    assert done.returncode == 1, done.stderr
    assert "::error title=asr/direct::" in done.stdout
    uploaded = {p.name for p in (work / "artifacts" / "harness-gate").iterdir()}
    assert {"gate.json", "gate.junit.xml", "gate.sarif", "run.json", "records.jsonl"} <= uploaded
    assert not {"transcripts.jsonl", "memo.jsonl"} & uploaded
    assert "### Safety gate: fail" in (work / "summary.md").read_text()


@pytest.mark.slow
def test_an_unchanged_model_passes_and_is_run_only_once(work):
    first = act(work, "scripted:comply?rate=0.1")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "was run before" not in first.stdout
    again = act(work, "scripted:comply?rate=0.1")
    assert again.returncode == 0
    assert "was run before" in again.stdout


@pytest.mark.slow
def test_a_missing_baseline_is_a_usage_error(work):
    (work / "workspace" / ".harness").rename(work / "workspace" / ".away")
    done = act(work, "scripted:comply?rate=0.1")
    (work / "workspace" / ".away").rename(work / "workspace" / ".harness")
    assert done.returncode == 2
    assert "not a run folder" in done.stderr
