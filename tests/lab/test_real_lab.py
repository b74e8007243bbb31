"""A real lab, minutes short: the embedded checkpoint, real trainings of a few steps, vLLM, a kill on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.models import embedded
from harness.store import load

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
FILE = """
name: short
methods: [vanilla, derta]
seeds: 1
set: {pairs: 16, helpful: 8, max_steps: 3, save_every: 1}
run:
  attacks: [direct, prefill]
  set: ["prefill.depths=5"]
  limit: 2
  max_tokens: 12
  tasks: [arithmetic]
  task_limit: 2
gate: {pairs: [[vanilla, derta]]}
"""


def start(tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "lab", "lab.yaml", "--quiet"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_real_lab_that_is_killed_in_training_goes_on_to_its_report(tmp_path: Path) -> None:
    embedded.ensure()
    (tmp_path / "lab.yaml").write_text(FILE)
    folder = tmp_path / "labs" / "short"

    first = start(tmp_path)
    while not list(folder.glob("checkpoints/*/vanilla-s0/state.pt")) and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    _, err = first.communicate()
    assert first.returncode == -signal.SIGKILL, err
    assert json.loads((folder / "lab.json").read_text())["status"] == "partial"

    second = start(tmp_path)
    out, err = second.communicate(timeout=900)
    assert second.returncode in (0, 1, 3), err  # what a gate on two behaviors says is not the point
    assert out.strip() == "labs/short/report.pdf"
    told = json.loads((folder / "lab.json").read_text())
    assert told["status"] == "complete"
    one = told["methods"]["derta"]["checkpoints"]["derta-s0"]
    assert (one["steps"], one["pairs"]) == (3, 16)
    assert told["gates"][0]["outcome"] in ("pass", "fail", "inconclusive")

    # 3 models x (2 direct + 2 prefill + 2 look-alikes + 2 items)
    [run] = folder.glob("run-*")
    records = load(run).records
    assert {r.model for r in records} == {"smollm2-135m", "vanilla-s0", "derta-s0"}
    assert len(records) == 24
    assert not [r for r in records if r.error]
    for name in ("summary.md", "report.html"):  # the run's own: base and adapters side by side
        page = (run / name).read_text()
        assert "vanilla-s0" in page
        assert "derta-s0" in page
    assert told["run"]["models"]["derta-s0"]["adapter_sha"] == one["adapter_sha"]

    third = start(tmp_path)
    third.communicate(timeout=900)
    assert load(run).info["budget"]["requests"] == told["run"]["budget"]["requests"]
    [log] = folder.glob("checkpoints/*/derta-s0/log.jsonl")
    assert len(log.read_text().splitlines()) == 3
