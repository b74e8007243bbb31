"""Merged weights say what the adapter says, and nothing half-written is left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.errors import DataError, UsageError
from harness.train.merge import check_base, merge, write
from harness.train.recipe import Recipe


def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a LoRA adapter"):
        merge(tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="holds no adapter_model"):
        merge(nameless(tmp_path, weights=False), tmp_path / "out")
    with pytest.raises(UsageError, match="does not name its base"):
        merge(nameless(tmp_path), tmp_path / "out")


def nameless(folder: Path, *, weights: bool = True) -> Path:
    """An adapter that says nothing of its base; its weights are not read."""
    (folder / "adapter_config.json").write_text('{"r": 4}')
    if weights:
        (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_nothing_is_written_over(tmp_path: Path) -> None:
    nameless(tmp_path)
    with pytest.raises(UsageError, match="is there already"):
        merge(tmp_path, tmp_path)


def test_an_adapter_of_other_weights_is_refused() -> None:
    manifest = {"base": "b", "base_sha": "1", "adapter": "a", "trained": {"base_sha": "2"}}
    with pytest.raises(DataError, match="trained on weights 2"):
        check_base(manifest)
    check_base({**manifest, "trained": {}})  # an adapter from elsewhere says nothing


def test_an_adapter_that_is_the_current_folder_is_merged_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.commands.merge import merge as command
    from harness.train import merge as merging

    adapter = tmp_path / "derta"
    adapter.mkdir()
    monkeypatch.setattr(merging, "merge", lambda _, out, base: merging.Merged(folder=out, manifest={}))
    monkeypatch.chdir(nameless(adapter))
    done = CliRunner().invoke(command, ["."], catch_exceptions=False)
    assert done.output.strip() == str(tmp_path / "derta-merged")


def test_a_base_without_a_tokenizer_is_named_before_anything_is_merged(tiny: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(DataError, match=f"tokenizer of {base} can't be loaded"):
        write(base, tmp_path, tmp_path / "out", {})


def test_a_full_disk_is_no_traceback_and_leaves_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Safetensors writes by its own means, and has an error of its own."""
    from safetensors import SafetensorError
    from transformers import PreTrainedModel

    from harness.train import merge as merging

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(merging, "with_adapters", lambda module, _: module)
    monkeypatch.setattr(merging, "folded", lambda module: module)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(UsageError, match=r"out can't be written: .*No space left") as caught:
        write(tiny, tmp_path, tmp_path / "out", {})
    assert "free some space" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_merged_weights_give_the_logits_of_base_and_adapter(tiny: Path, toy: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from harness.train.trainer import train

    recipe = Recipe(base=str(tiny), data=str(toy), pairs=8, helpful=8, batch=4, lr=2e-2, precision="fp32", lora_r=4)
    adapter = train(recipe, tmp_path / "adapter").folder
    merged = merge(adapter, tmp_path / "merged")
    ids = torch.tensor([[4, 5, 6, 7, 8]])
    with torch.no_grad():
        base = AutoModelForCausalLM.from_pretrained(tiny)
        plain = base(input_ids=ids).logits
        apart = PeftModel.from_pretrained(base, str(adapter))(input_ids=ids).logits
        whole = AutoModelForCausalLM.from_pretrained(merged.folder)(input_ids=ids).logits
    assert (whole - apart).abs().max() < 1e-5
    narrow = tmp_path / "toy" / "narrow"
    shutil.copytree(tiny, narrow)
    LlamaForCausalLM(LlamaConfig.from_pretrained(tiny, hidden_size=16)).save_pretrained(narrow)
    with pytest.raises(UsageError, match="was not trained on narrow"):
        merge(adapter, tmp_path / "wrong", str(narrow))
    assert (whole - plain).abs().max() > 1e-2
    assert AutoTokenizer.from_pretrained(merged.folder).encode("Sorry I") == [4, 5]
    told = json.loads((merged.folder / "manifest.json").read_text())
    assert told["trained"]["recipe"]["lora_r"] == 4
    assert told["base_sha"] == told["trained"]["base_sha"]
    assert {p.name for p in tmp_path.iterdir()} == {"adapter", "merged", "toy"}
