"""R2D2: its loss against the obvious one, suffixes that move, and a curve that a kill or a second process leaves."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.train.recipe import Recipe, find
from harness.train.suffixes import FIRST, draw_slots
from harness.train.trainer import check

ROOT = Path(__file__).parents[2]


def test_each_slot_is_used_once_before_any_is_used_again() -> None:
    drawn = draw_slots(7, 3, random.Random(0))
    assert sorted(drawn[:3]) == sorted(drawn[3:6]) == [0, 1, 2]
    assert len(drawn) == 7


def test_settings_that_r2d2_can_not_work_with_are_named() -> None:
    recipe = find("smollm2-r2d2")
    assert recipe.experimental
    check(recipe)
    for wrong in ({"shard": True}, {"template": "inst"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            check(replace(recipe, **wrong))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def attackable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny random weights and a byte-level tokenizer, whose texts survive a suffix search."""
    from tests.attacks_adaptive import tiny

    folder = tmp_path_factory.mktemp("attackable")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(attackable: Path, toy: Path) -> Recipe:
    return Recipe(
        name="toy", base=str(attackable), data=str(toy), method="r2d2", refusal="x", pairs=8, helpful=8, batch=4,
        lr=2e-3, precision="fp32", save_every=2, micro_tokens=400, epochs=2.0, lora_r=4, lora_alpha=8,
        suffix_pool=3, suffix_steps=2, suffix_width=8, suffix_fresh=0.0,
    )  # fmt: skip


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_step_is_what_the_obvious_way_gives_with_the_suffixes_in_the_prompts(recipe: Recipe) -> None:
    """Mean cross-entropy over safe and helpful tokens, plus the mean of -log(1 - p) over the violating opening."""
    import torch
    import torch.nn.functional as F  # noqa: N812
    from transformers import AutoModelForCausalLM

    from harness.train.data import load as load_data
    from harness.train.loop import gradients
    from harness.train.methods import draw
    from harness.train.model import Team, load
    from harness.train.objective import Whole, step_loss
    from harness.train.rows import rows_of
    from harness.train.suffixes import Suffixes

    data = load_data(recipe.data)
    loaded = load(recipe, recipe.base, Team())
    items = draw(recipe, data, loaded.encoder)
    suffixes = Suffixes.of(recipe, data.triples, [])
    step, seconds = suffixes.attacked(loaded, [items[0], items[1], items[8]], 0)
    assert seconds > 0
    moved = [suffix for suffix in suffixes.pool if suffix != FIRST]
    assert len(moved) == 2  # two pairs in the step, a slot for each
    for item in step[:2]:
        for row in rows_of(item):
            assert any(suffix in loaded.tokenizer.decode(row.ids) for suffix in moved)

    sums = gradients(recipe, loaded, step, [None] * 3, Whole.of(step, 0, 1))
    plain = AutoModelForCausalLM.from_pretrained(recipe.base, attn_implementation="eager")
    near, away = [], []
    for row in (row for item in step for row in rows_of(item)):
        labels = torch.tensor(row.labels)
        each = F.cross_entropy(plain(input_ids=torch.tensor([row.ids])).logits[0], labels, reduction="none")
        (away if row.part == "away" else near).append(each[labels != -100])
    expected = torch.cat(near).mean() - torch.log(1 - torch.exp(-torch.cat(away))).mean()
    assert step_loss(sums, recipe) == pytest.approx(float(expected.detach()), abs=1e-5)
    assert sums.count["away"] == sum(len(each) for each in away) > 0


@pytest.mark.slow
def test_it_learns_and_goes_on_after_a_kill_to_the_same_curve_and_weights(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.train import suffixes as searching
    from harness.train.trainer import train

    whole = train(replace(recipe, epochs=4.0), tmp_path / "whole")
    curve = losses(whole.folder)
    assert sum(curve[-4:]) < sum(curve[:4])
    assert whole.manifest["pairs_by_part"] == {"helpful": 8, "mle": 8}
    assert set(whole.manifest["positions_by_part"]) == {"away", "helpful", "mle"}

    plain, calls = searching.Suffixes.attacked, []

    def killed(self: Any, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return plain(self, *given)

    monkeypatch.setattr(searching.Suffixes, "attacked", killed)
    with pytest.raises(KeyboardInterrupt):
        train(replace(recipe, epochs=4.0), tmp_path / "killed")
    monkeypatch.undo()
    again = train(replace(recipe, epochs=4.0), tmp_path / "killed")
    assert losses(again.folder) == curve
    weights = [(r.folder / "adapter_model.safetensors").read_bytes() for r in (whole, again)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_refine_the_same_suffixes_as_one(recipe: Recipe, tmp_path: Path) -> None:
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys, torch\nfrom pathlib import Path\ntorch.set_num_threads(1)\n"
        "from harness.train.recipe import Recipe, change\nfrom harness.train.trainer import train\n"
        "train(change(Recipe(name='toy'), dict(p.split('=', 1) for p in sys.argv[2:])), Path(sys.argv[1]))\n"
    )
    keys = ("base", "data", "method", "refusal", "pairs", "helpful", "batch", "lr", "precision", "micro_tokens",
            "epochs", "lora_r", "lora_alpha", "suffix_pool", "suffix_steps", "suffix_width",
            "suffix_fresh")  # fmt: skip
    settings = [f"{key}={getattr(recipe, key)}" for key in keys]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    curves = []
    for name, launch in (
        ("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]),
    ):  # fmt: skip
        command = [sys.executable, *launch, str(driver), str(tmp_path / name), *settings]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
        curves.append(losses(tmp_path / name))
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
