"""Circuit breakers: weights and loss by hand, the loss against the obvious way, and a run that is cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.train.recipe import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def recipe(tiny: Path, toy: Path) -> Recipe:
    return Recipe(
        name="toy", base=str(tiny), data=str(toy), method="circuit-breaker", pairs=8, helpful=8, batch=4, lr=2e-2,
        precision="fp32", save_every=2, micro_tokens=64, epochs=3.0, lora_r=4, lora_alpha=8,
    )  # fmt: skip


def opened(recipe: Recipe) -> tuple[Any, list[Any]]:
    from harness.train.data import load as load_data
    from harness.train.methods import draw
    from harness.train.model import Team, load

    loaded = load(recipe, recipe.base, Team())
    return loaded, draw(recipe, load_data(recipe.data), loaded.encoder)


def test_the_weights_move_from_rerouting_to_retaining() -> None:
    """alpha 10: at the start 10 and 0; at step 5 of 10, a quarter of the way of t / 2T: 7.5 and 2.5."""
    from harness.train.circuit import shares

    assert shares(0, 10) == (10.0, 0.0)
    assert shares(5, 10) == (7.5, 2.5)


def test_an_untouched_adapter_has_cosine_one_and_distance_zero(recipe: Recipe) -> None:
    """So the loss is the rerouting weight alone: 10 at the start, 7.5 at step 5 of 10."""
    from harness.train.circuit import circuit_loss
    from harness.train.objective import Sums, Whole

    loaded, items = opened(recipe)
    step = [items[0], items[8]]
    for number, expected in ((0, 10.0), (5, 7.5)):
        loss = circuit_loss(recipe, loaded, step, Whole.of(step, number, 10), Sums())
        assert float(loss.detach()) == pytest.approx(expected, abs=1e-4)


def test_the_loss_is_what_the_obvious_way_gives(recipe: Recipe) -> None:
    """Row by row, all hidden states: relu(cosine) at violating positions, the distance at helpful ones, two layers."""
    import torch
    import torch.nn.functional as F  # noqa: N812
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from harness.train.circuit import circuit_loss
    from harness.train.objective import Sums, Whole

    loaded, items = opened(recipe)
    torch.manual_seed(1)
    for parameter in loaded.trainable():
        torch.nn.init.normal_(parameter, std=0.3)
    step = [items[0], items[1], items[8], items[9]]
    loss = circuit_loss(recipe, loaded, step, Whole.of(step, 5, 10), Sums())

    adapter = Path(recipe.data) / "adapter"
    loaded.model.save_pretrained(adapter)
    plain = AutoModelForCausalLM.from_pretrained(recipe.base)
    with torch.no_grad():
        old = [plain(input_ids=torch.tensor([r.ids]), output_hidden_states=True).hidden_states for r in step]
        moved = PeftModel.from_pretrained(plain, str(adapter))
        new = [moved(input_ids=torch.tensor([r.ids]), output_hidden_states=True).hidden_states for r in step]
    away, apart = [], []
    for row, before, after in zip(step, old, new, strict=True):
        places = torch.tensor([label != -100 for label in row.labels])
        # two layers: after a third of them and after two thirds, round(2/3) = round(4/3) = 1
        a, b = before[1][0][places], after[1][0][places]
        if row.part == "rto":
            away.append(F.relu(F.cosine_similarity(b, a, dim=-1)))
        else:
            apart.append((b - a).norm(dim=-1))
    expected = 7.5 * torch.cat(away).mean() + 2.5 * torch.cat(apart).mean()
    assert float(loss.detach()) == pytest.approx(float(expected), abs=1e-4)


def test_a_run_that_is_cut_off_goes_on_to_the_same_curve(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.train import loop
    from harness.train.trainer import train

    def losses(folder: Path) -> list[float]:
        return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]

    whole = losses(train(recipe, tmp_path / "whole").folder)
    plain, calls = loop.one_step, []

    def killed(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(loop, "one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "killed")
    monkeypatch.undo()
    assert losses(train(recipe, tmp_path / "killed").folder) == whole
