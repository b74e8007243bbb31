"""Runs the steps of action.yml on this machine, with the environment variables GitHub would give them.

    python ci/run_action.py --work DIR [--skip install] model=... policy=... [INPUT=VALUE ...]

Steps with `run` are executed as they stand. Of the steps with `uses`, the cache, upload and download are played with
folders under DIR; setup-python and upload-sarif are named and left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(slots=True)
class Job:
    """One job's state: where it works, what was given, what steps said so far."""

    work: Path
    inputs: dict[str, str]
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: int = 0

    @property
    def workspace(self) -> Path:
        """Where the steps run."""
        return self.work / "workspace"

    def value(self, name: str) -> str:
        """One name of an expression: inputs.x, steps.x.outputs.y or github.x."""
        kind, _, rest = name.partition(".")
        if kind == "inputs":
            return self.inputs[rest]
        if kind == "steps":
            step, _, output = rest.partition(".outputs.")
            return self.outputs.get(step, {}).get(output, "")
        given = {"github.action_path": str(ROOT), "github.run_id": "1", "github.token": "none"}
        return {**given, "github.event.pull_request.number": "1"}[name]

    def fill(self, text: str) -> str:
        """Text with its expressions replaced."""
        return EXPRESSION.sub(lambda found: self.value(found[1]), text)

    def wanted(self, condition: str | None) -> bool:
        """Whether a step runs: always(), a comparison with == or !=, and by default after no failure."""
        if condition is None:
            return not self.failed
        found = EXPRESSION.fullmatch(condition)
        test = found[1] if found else condition
        if test == "always()":
            return True
        name, sign, literal = re.fullmatch(r"(\S+) (==|!=) '(.*)'", test).groups()  # type: ignore[union-attr]
        return not self.failed and (self.value(name) == literal) == (sign == "==")


def run_step(job: Job, step: dict[str, object]) -> None:
    """A `run` step: its own environment, a fresh output file, the step summary shared by all."""
    said = job.work / "output"
    said.write_text("")
    given = {str(k): job.fill(str(v)) for k, v in dict(step.get("env") or {}).items()}  # type: ignore[call-overload]
    environment = {
        **os.environ,
        **given,
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_OUTPUT": str(said),
        "GITHUB_STEP_SUMMARY": str(job.work / "summary.md"),
        "GITHUB_WORKSPACE": str(job.workspace),
        "RUNNER_TEMP": str(job.work),
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", str(step["run"])]
    job.failed = job.failed or subprocess.run(command, cwd=job.workspace, env=environment, check=False).returncode
    lines = [line.partition("=") for line in said.read_text().splitlines()]
    job.outputs[str(step.get("id"))] = {name: value for name, _, value in lines}


def use_step(job: Job, step: dict[str, object]) -> None:
    """A `uses` step, as far as it can be played with folders."""
    action = str(step["uses"]).partition("@")[0]
    given = {str(k): job.fill(str(v)) for k, v in dict(step.get("with") or {}).items()}  # type: ignore[call-overload]
    paths = given.get("path", "").split()
    if action == "actions/cache/restore":
        kept = job.work / "cache" / given["key"]
        job.outputs[str(step.get("id"))] = {"cache-hit": str(kept.exists()).lower()}
        if kept.exists():
            shutil.copytree(kept, job.workspace, dirs_exist_ok=True)
    elif action == "actions/cache/save":
        keep(job, paths, job.work / "cache" / given["key"])
    elif action == "actions/upload-artifact":
        keep(job, paths, job.work / "artifacts" / given["name"], flat=True)
    elif action == "actions/download-artifact":
        shutil.copytree(job.work / "artifacts" / given["name"], job.workspace / given["path"], dirs_exist_ok=True)
    else:
        print("  left out on this machine", flush=True)


def keep(job: Job, paths: list[str], target: Path, *, flat: bool = False) -> None:
    """Copies those of the named files that exist; `flat`: less their common folder, as an upload does."""
    shutil.rmtree(target, ignore_errors=True)
    for name in paths:
        source = job.workspace / name
        if source.exists():
            copy = target / (source.name if flat else name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def play(job: Job, skip: set[str]) -> int:
    """Every step in order; the exit code of the first that failed."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    defaults = {name: str(told.get("default", "")) for name, told in action["inputs"].items()}
    unknown = job.inputs.keys() - defaults.keys()
    if unknown:
        sys.exit(f"action.yml has no input {', '.join(sorted(unknown))}; it has {', '.join(defaults)}")
    job.inputs = {name: job.inputs.get(name, job.fill(default)) for name, default in defaults.items()}
    job.workspace.mkdir(parents=True, exist_ok=True)
    for step in action["runs"]["steps"]:
        name = str(step.get("name") or step["uses"])
        if name.lower() in skip or not job.wanted(step.get("if")):
            print(f"- {name}", flush=True)
            continue
        print(f"* {name}", flush=True)
        (run_step if "run" in step else use_step)(job, step)
    return job.failed


def main() -> int:
    """Reads the command line and plays the job."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the workspace, cache and artifacts")
    parser.add_argument("--skip", action="append", default=[], help="a step's name, such as install")
    parser.add_argument("inputs", nargs="*", metavar="INPUT=VALUE")
    told = parser.parse_args()
    inputs = dict(item.split("=", 1) for item in told.inputs)
    return play(Job(work=told.work.resolve(), inputs=inputs), {name.lower() for name in told.skip})


if __name__ == "__main__":
    sys.exit(main())
