"""The project gates itself: the shipped adapters on the embedded checkpoint, under the profile that CI uses.

derta replaced by vanilla must fail the gate; a rerun of derta, loaded anew and batched with nothing else, must pass.
In float32: in bfloat16 what a reply is batched with turns a word here and there, and twelve behaviors are too few to
say that this is nothing.
"""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CPU = 300  # seconds of CPU that a run of the profile may take
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Ran:
    """A run folder and the CPU seconds it took."""

    folder: Path
    cpu: float


def harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=850, check=False)


def ran(folder: Path, *adapters: str) -> Ran:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    named = [word for name in adapters for word in ("--adapter", name)]
    done = harness(
        "run", "--model", "smollm2-135m", *named, "--skip-base", "--profile", "ci", "--dtype", "float32",
        "--out", str(folder), "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Ran(folder, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Ran:
    """vanilla and derta in one load."""
    return ran(tmp_path_factory.mktemp("self") / "both", "vanilla", "derta")


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> Ran:
    """derta once more, alone."""
    return ran(tmp_path_factory.mktemp("self") / "again", "derta")


def outcome(folder: Path, name: str) -> str:
    checks = json.loads((folder / "gate.json").read_text())["checks"]
    (found,) = [c["outcome"] for c in checks if c["name"] == name]
    return str(found)


def test_replacing_derta_by_vanilla_fails_the_gate(both, tmp_path):
    run, out = str(both.folder), str(tmp_path)
    models = ["--baseline-model", "derta", "--candidate-model", "vanilla"]
    done = harness("gate", "--baseline", run, "--candidate", run, *models, "--out", out)
    assert done.returncode == 1, done.stdout + done.stderr
    assert outcome(tmp_path, "asr/prefill") == "fail"
    assert "fail" in (tmp_path / "gate.svg").read_text()


def test_an_identical_rerun_passes_the_gate(both, again, tmp_path):
    done = harness(
        "gate", "--baseline", str(both.folder), "--baseline-model", "derta",
        "--candidate", str(again.folder), "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_profile_for_ci_takes_under_five_minutes_of_cpu(again):
    assert again.cpu < CPU
