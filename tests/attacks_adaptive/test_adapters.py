"""White-box attacks on an adapter see the adapted weights, not the base's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attacks.gcg import Gcg
from harness.models.options import ModelOptions
from harness.models.weights import load_weights
from tests.attacks_adaptive.fakes import BEHAVIOR, Scripted, context, run
from tests.attacks_adaptive.tiny import model, open_model, tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, Path, Any]:
    """A tiny base, an adapter of random weights, and the adapted module as peft runs it."""
    import torch
    from peft import LoraConfig, get_peft_model

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    module = model()
    module.save_pretrained(base)
    tokenizer().save_pretrained(base)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(module, config).eval()
    adapted.save_pretrained(adapter)
    return base, adapter, adapted


def test_the_weights_of_an_adapter_are_those_that_peft_runs(checkpoint: tuple[Path, Path, Any]) -> None:
    import torch

    base, adapter, adapted = checkpoint
    ids = torch.arange(3, 40)[None]
    plain, _ = load_weights(str(base), None, ModelOptions(dtype="float32"))
    merged, _ = load_weights(str(base), adapter, ModelOptions(dtype="float32"))
    with torch.no_grad():
        expected = adapted(ids).logits
        assert torch.allclose(merged(ids).logits, expected, atol=1e-4)
        assert not torch.allclose(plain(ids).logits, expected, atol=1e-2)
    assert not any(p.requires_grad for p in merged.parameters())


def test_gcg_follows_the_adapters_gradients(checkpoint: tuple[Path, Path, Any]) -> None:
    base, adapter, _ = checkpoint
    attack = Gcg(preset="nanogcg", init=" x x x x x x", width=24, topk=32, steps=4)
    found = []
    for which in (None, adapter):
        module, tok = load_weights(str(base), which, ModelOptions(dtype="float32"))
        (_, suffix) = run(attack, context(open_model(module, tok), Scripted(lambda p, s: "")), BEHAVIOR)
        found.append(suffix.prompt.last)
    assert found[0] != found[1]
