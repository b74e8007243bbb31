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
    assert steps == ["key", "install", "run", "gate", "decide"]


def step(name: str, cwd: Path, path: str = "", **given: str) -> subprocess.CompletedProcess[str]:
    """One step of ci/steps.sh, with `path` searched first."""
    environment = {**os.environ, "HARNESS_SOURCE": str(ROOT), "PATH": f"{path}:{os.environ['PATH']}", **given}
    command = ["bash", str(ROOT / "ci" / "steps.sh"), name]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def key(cwd: Path, **given: str) -> str:
    done = step("key", cwd, **{"HARNESS_MODEL": "model", **given})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_candidate_is_named_by_all_it_depends_on_and_by_nothing_else(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("a")
    (tmp_path / "own.jsonl").write_text("1")
    first = key(tmp_path, HARNESS_RUN_ARGS="--behaviors own.jsonl")
    assert key(tmp_path, HARNESS_RUN_ARGS="--behaviors own.jsonl", HARNESS_POLICY="other.yaml") == first
    (tmp_path / "own.jsonl").write_text("2")
    second = key(tmp_path, HARNESS_RUN_ARGS="--behaviors own.jsonl")
    (tmp_path / "model" / "weights").write_text("b")
    third = key(tmp_path, HARNESS_RUN_ARGS="--behaviors own.jsonl")
    fourth = key(tmp_path, HARNESS_RUN_ARGS="--behaviors=own.jsonl")
    fifth = key(tmp_path, HARNESS_RUN_ARGS="--behaviors=own.jsonl", HARNESS_ADAPTER="model")
    source = tmp_path / "source"
    for name in ("harness", "attacks", "tasks", "requirements"):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_text("1")
    given = {"HARNESS_RUN_ARGS": "--behaviors=own.jsonl", "HARNESS_ADAPTER": "model", "HARNESS_SOURCE": str(source)}
    sixth = key(tmp_path, **given)
    (source / "requirements" / "file").write_text("2")
    seventh = key(tmp_path, **given)
    (source / "Makefile").write_text("")
    eighth = key(tmp_path, **given)
    ninth = key(tmp_path, **given, HARNESS_EXTRA="gpu")
    assert len({first, second, third, fourth, fifth, sixth, seventh, eighth, ninth}) == 9


def test_a_folder_of_links_is_what_they_lead_to_and_an_empty_one_is_refused(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "blob").write_text("a")
    (tmp_path / "model" / "weights").symlink_to("../blob")
    before = key(tmp_path)
    (tmp_path / "blob").write_text("b")
    assert key(tmp_path) != before
    (tmp_path / "blob").unlink()
    refused = step("key", tmp_path, HARNESS_MODEL="model")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "model holds no file" in refused.stderr


def test_a_link_that_leads_back_and_a_word_that_names_an_empty_folder_stop_nothing(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("a")
    (tmp_path / "model" / "self").symlink_to(".")
    (tmp_path / "empty").mkdir()
    before = key(tmp_path, HARNESS_RUN_ARGS="--out empty")
    (tmp_path / "model" / "weights").write_text("b")
    assert key(tmp_path, HARNESS_RUN_ARGS="--out empty") != before


def test_arguments_may_stand_on_several_lines(tmp_path):
    shim(tmp_path / "bin", "harness", 'echo "harness $*"')
    given = {"HARNESS_MODEL": "m", "HARNESS_FOLDER": "out", "HARNESS_RUN_ARGS": "--attacks direct\n  --limit 4\n"}
    told = step("run", tmp_path, path=str(tmp_path / "bin"), **given).stdout
    assert told == "harness run --model m --out out --quiet --attacks direct --limit 4\n"


def test_files_among_others_and_those_a_config_names_are_what_they_hold(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("a")
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "judge.npz").write_text("1")
    (tmp_path / "run.yaml").write_text("behaviors: a.csv\n")
    for words, file in (
        ("--overrefusal a.csv,b.csv", "a.csv"), ("--set classifier.path=judge.npz", "judge.npz"),
        ("--config run.yaml", "a.csv"),
    ):  # fmt: skip
        before = key(tmp_path, HARNESS_RUN_ARGS=words)
        assert key(tmp_path, HARNESS_RUN_ARGS=words) == before
        (tmp_path / file).write_text((tmp_path / file).read_text() + "2")
        assert key(tmp_path, HARNESS_RUN_ARGS=words) != before, words


def shim(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_what_is_installed_is_the_pinned_set_and_less_where_the_run_is_at_hand(tmp_path):
    for name in ("make", "python"):
        shim(tmp_path / "bin", name, f'echo "{name} $*"')
    (tmp_path / "venv").mkdir()
    shim(tmp_path / "venv" / "bin", "python", 'echo "venv $*"')
    common = {"HARNESS_FOLDER": "run", "HARNESS_VENV": str(tmp_path / "venv"), "path": str(tmp_path / "bin")}
    full = step("install", tmp_path, HARNESS_EXTRA="cpu", **common).stdout
    assert full.startswith(f"make -C {ROOT} ")
    assert f"{tmp_path}/venv/.cpu" in full
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"status": "partial"}')
    assert step("install", tmp_path, HARNESS_EXTRA="cpu", **common).stdout == full
    (tmp_path / "run" / "run.json").write_text('{"status": "complete"}')
    light = step("install", tmp_path, HARNESS_EXTRA="cpu", **common).stdout
    assert light.splitlines()[-1] == f"venv -m pip install --quiet {ROOT}"
    assert step("install", tmp_path, HARNESS_EXTRA="tpu", **{**common, "HARNESS_FOLDER": "none"}).returncode == 2


def test_a_comment_replaces_the_earlier_one_and_its_failure_fails_nothing(tmp_path):
    (tmp_path / "gate.md").write_text("### Safety gate: pass\n")
    common = {"HARNESS_FOLDER": ".", "HARNESS_PULL_REQUEST": "7", "path": str(tmp_path / "bin")}
    body = "<!-- harness gate -->\n### Safety gate: pass\n"
    listed = 'echo "$*" | grep -q "issues/7/comments.*startswith(.<!-- harness gate -->.)" &&'
    rest = 'case "$*" in *PATCH*|pr*) echo "gh $*"; cat;; esac'
    # one of the pull request's comments begins with the mark: that one is edited, whoever wrote the last
    shim(tmp_path / "bin", "gh", f"{listed} {{ echo 31; exit; }}\n{rest}")
    edited = "gh api --silent --method PATCH repos/{owner}/{repo}/issues/comments/31 -F body=@-\n"
    assert step("comment", tmp_path, **common).stdout == edited + body
    # none does
    shim(tmp_path / "bin", "gh", f"{listed} exit\n{rest}")
    assert step("comment", tmp_path, **common).stdout == "gh pr comment 7 --body-file -\n" + body
    # it can't be edited any more
    shim(tmp_path / "bin", "gh", f"{listed} {{ echo 31; exit; }}\ncase $* in *PATCH*) exit 1;; esac\n{rest}")
    assert step("comment", tmp_path, **common).stdout == "gh pr comment 7 --body-file -\n" + body
    shim(tmp_path / "bin", "gh", "exit 1")
    failed = step("comment", tmp_path, **common)
    assert failed.returncode == 0
    assert "::warning::" in failed.stdout
    assert "nothing to comment" in step("comment", tmp_path, **{**common, "HARNESS_PULL_REQUEST": ""}).stdout


@pytest.mark.parametrize(
    ("code", "allowed", "exits"), [("0", "", 0), ("1", "true", 1), ("3", "", 3), ("3", "true", 0), ("4", "true", 4)]
)
def test_only_an_inconclusive_gate_can_be_allowed(tmp_path, code, allowed, exits):
    given = {"HARNESS_EXIT_CODE": code, "HARNESS_ALLOW_INCONCLUSIVE": allowed}
    assert step("decide", tmp_path, **given).returncode == exits


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


def act(work: Path, model: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "ci" / "run_action.py"), "--work", str(work), "--skip", "install"]
    inputs = [f"model={model}", "profile=", f"run-args={' '.join(RUN)}", "policy=gate.yaml"]
    return subprocess.run(
        [*command, *inputs, *more], env=environment(work), capture_output=True, text=True, check=False
    )


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
def test_a_baseline_can_come_from_an_artifact(work):
    kept = work / "artifacts" / "main-run"
    kept.mkdir(parents=True)
    for name in ("run.json", "records.jsonl"):
        (kept / name).write_bytes((work / "workspace" / ".harness" / "baseline" / name).read_bytes())
    done = act(work, "scripted:comply?rate=0.9", "baseline-artifact=main-run", "baseline=fetched")
    assert done.returncode == 1, done.stderr
    assert (work / "workspace" / "fetched" / "run.json").exists()


@pytest.mark.slow
def test_the_gitlab_template_comes_to_the_same_verdict(work):
    """Its script as it stands, in a shell of one job; installing is left out."""
    job = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())["safety-gate"]
    workspace = work / "workspace"
    given = {name: value.replace("$CI_PROJECT_DIR", str(workspace)) for name, value in job["variables"].items()}
    given |= {"HARNESS_SOURCE": str(ROOT), "HARNESS_PROFILE": "", "HARNESS_RUN_ARGS": " ".join(RUN)}
    given |= {"HARNESS_MODEL": "scripted:comply?rate=0.9", "HARNESS_POLICY": "gate.yaml"}
    script = "\n".join(line for line in job["script"] if not line.endswith(" install"))
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=workspace, env={**environment(work), **given}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "gate fail" in done.stdout


@pytest.mark.slow
def test_a_missing_baseline_is_a_usage_error(work):
    (work / "workspace" / ".harness").rename(work / "workspace" / ".away")
    done = act(work, "scripted:comply?rate=0.1")
    (work / "workspace" / ".away").rename(work / "workspace" / ".harness")
    assert done.returncode == 2
    assert "not a run folder" in done.stderr
