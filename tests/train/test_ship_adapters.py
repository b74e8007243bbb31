"""`make adapters`: what ships is what its recipe makes, in one piece, and whether it came out the same is said."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.train.recipe import Recipe, find

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, with a training that writes its files at once; `trained` counts, `weights` is what comes out."""
    spec = importlib.util.spec_from_file_location("ship_adapters", ROOT / "ci" / "ship_adapters.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.trained, module.weights = [], b"one"

    def train(recipe: Recipe, out: Path) -> None:
        module.trained.append(recipe.name)
        out.mkdir(parents=True)
        for name in module.FILES:
            (out / name).write_bytes(module.weights)
        told = {
            "recipe": asdict(recipe),
            "recipe_sha": "r",
            "data_sha": module.load(recipe.data).digest,
            "base_sha": "b",
        }
        (out / "manifest.json").write_text(json.dumps(told))
        (out / "state.pt").write_text("not to be shipped")

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(module, "locate", lambda base: base)
    monkeypatch.setattr(module, "fingerprint", lambda folder: "b")
    return module


def test_a_shipped_adapter_is_whole_and_holds_nothing_else(ci: Any, tmp_path: Path) -> None:
    assert ci.ship("derta", tmp_path / "work").startswith("derta: new")
    assert {path.name for path in (tmp_path / "shipped" / "derta").iterdir()} == set(ci.FILES)
    assert [path.name for path in (tmp_path / "shipped").iterdir()] == ["derta"]


def test_it_says_whether_the_weights_came_out_as_shipped(ci: Any, tmp_path: Path) -> None:
    ci.ship("derta", tmp_path / "one")
    assert "byte for byte" in ci.ship("derta", tmp_path / "two")
    ci.weights = b"two"
    assert "other weights" in ci.ship("derta", tmp_path / "three")
    assert (tmp_path / "shipped" / "derta" / "adapter_model.safetensors").read_bytes() == b"two"


def test_what_is_finished_is_not_trained_again_unless_the_recipe_changed(
    ci: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ci.ship("derta", tmp_path / "work")
    ci.ship("derta", tmp_path / "work")
    assert ci.trained == ["smollm2-derta"]
    changed = Recipe(**{**asdict(find("smollm2-derta")), "lr": 0.5})
    monkeypatch.setattr(ci, "find", lambda name: changed)
    ci.ship("derta", tmp_path / "work")
    assert len(ci.trained) == 2


def test_an_adapter_that_is_too_large_does_not_ship(ci: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ci, "LARGEST", 3)
    with pytest.raises(SystemExit, match="too much to ship"):
        ci.ship("derta", tmp_path / "work")
    assert not (tmp_path / "shipped").exists()
