"""Real labs: a tiny checkpoint in transformers, killed at every stage; the embedded one in vLLM, minutes short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.models import embedded
from harness.store import load

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
TINY = """
base: {base}
methods: [vanilla, derta]
seeds: 2
set: {{data: {data}, refusal: x, pairs: 4, helpful: 4, batch: 2, precision: fp32, lora_r: 2, save_every: 1}}
run:
  engine: transformers
  attacks: [direct, prefill]
  set: ["prefill.depths=3"]
  limit: 2
  tasks: none
  max_tokens: 4
gate: {{pairs: [[base, derta]]}}
"""
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


def kill_when(first: subprocess.Popen[str], there: Callable[[], object]) -> None:
    """Kills a lab as soon as something is there; it must not have ended by itself."""
    while not there() and first.poll() is None:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    _, err = first.communicate()
    assert first.returncode == -signal.SIGKILL, err


def test_a_tiny_lab_killed_in_training_and_in_the_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    from tests.models.toys import checkpoint

    base, data = checkpoint(tmp_path / "tiny"), tmp_path / "data"
    data.mkdir()
    triple = {
        "request": "tell me the trick",
        "safe": "x no",
        "violating": "the ring floats because a thin thread holds",
    }
    pair = {"request": "how is the ring", "reply": "the ring is thin"}
    for name, row in (("triples", triple), ("helpful", pair)):
        lines = [json.dumps({"id": f"{name}{i}", **row}) for i in range(4)]
        (data / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "lab.yaml").write_text(TINY.format(base=base, data=data))
    folder = tmp_path / "labs" / "lab"

    kill_when(start(tmp_path), lambda: list(folder.glob("checkpoints/*/derta-s0/state.pt")))
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("checkpoints/*/vanilla-s*/manifest.json")}
    assert len(trained) == 2
    kill_when(start(tmp_path), lambda: [p for p in folder.glob("run-*/records.jsonl") if p.stat().st_size])
    last = start(tmp_path)
    out, err = last.communicate(timeout=600)
    assert last.returncode in (0, 1, 3, 4), err
    assert out.strip() == "labs/lab/report.pdf"
    assert all(path.stat().st_mtime_ns == then for path, then in trained.items())

    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "lab.yaml").write_text((tmp_path / "lab.yaml").read_text())
    start(whole).communicate(timeout=600)
    runs = [load(next(at.glob("run-*"))) for at in (folder, whole / "labs" / "lab")]
    assert [(r.key, r.reply_sha, r.label) for r in runs[0].records] == [
        (r.key, r.reply_sha, r.label) for r in runs[1].records
    ]
    # 5 models x (2 direct + 2 prefill + 2 look-alikes)
    assert len(runs[0].records) == 30
    weights = [sorted(at.glob("checkpoints/*/*/adapter_model.safetensors")) for at in (folder, whole / "labs" / "lab")]
    assert len(weights[0]) == 4
    assert [path.read_bytes() for path in weights[0]] == [path.read_bytes() for path in weights[1]]


@pytest.mark.timeout(2000)
def test_a_real_lab_that_is_killed_in_training_goes_on_to_its_report(tmp_path: Path) -> None:
    embedded.ensure()
    (tmp_path / "lab.yaml").write_text(FILE)
    folder = tmp_path / "labs" / "short"

    kill_when(start(tmp_path), lambda: list(folder.glob("checkpoints/*/vanilla-s0/state.pt")))
    assert json.loads((folder / "lab.json").read_text())["status"] == "partial"

    second = start(tmp_path)
    out, err = second.communicate(timeout=900)
    assert second.returncode in (0, 1, 3), err  # what a gate on two behaviors says is not the point
    assert out.strip() == "labs/short/report.pdf"
    told = json.loads((folder / "lab.json").read_text())
    assert told["status"] == "complete"
    one = told["methods"]["derta"]["checkpoints"]["derta-s0"]
    assert (one["steps"], sum(one["pairs_by_part"].values())) == (3, 12)  # three steps of four pairs, of 24 drawn
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
