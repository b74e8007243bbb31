"""The white-box example end to end, on a tiny checkpoint with two adapters: its gradients, its numbers, its report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config import make_spec, read_yaml
from harness.engine import run
from tests.models.toys import adapter, checkpoint

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def test_the_example_attacks_every_adapter_and_its_numbers_are_read_back(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "tiny")
    folders = [adapter(tmp_path / name, rank=rank) for name, rank in (("one", 4), ("two", 16))]
    given = read_yaml(ROOT / "examples" / "white-box.yaml") | {
        "model": str(base), "adapter": [str(f) for f in folders], "engine": "transformers", "limit": 3, "max_tokens": 8,
    }  # fmt: skip
    done = run(make_spec(given), tmp_path / "run")
    assert not [r.error for r in done.records if r.error]
    # three behaviors, two adapters; direct, two of GCG, two of AutoDAN
    assert len(done.records) == 3 * 2 * 5
    searched = [r for r in done.records if r.variant in ("suffix", "bred")]
    assert all(r.spent["target_tokens"] > 100 and r.spent["seconds"] > 0 for r in searched)
    lines = map(json.loads, (tmp_path / "run" / "memo.jsonl").read_text().splitlines())
    curves = {line["key"].rsplit("/", 1)[0] for line in lines if line["key"].startswith("gcg/")}
    assert len(curves) == 2  # one suffix for all behaviors, on each adapter
    assert "ASR within a budget of tokens" in (tmp_path / "run" / "summary.md").read_text()
    script = [sys.executable, str(ROOT / "benchmarks" / "adaptive_asr.py"), str(tmp_path / "run"), "two"]
    told = subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "gcg_loss ratio=" in told.stdout, told.stderr
