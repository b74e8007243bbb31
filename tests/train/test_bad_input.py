"""What a user sees who gives the trainer something it can't use: one line, one hint, exit 2, nothing written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import UnknownName, UsageError
from harness.train.recipe import Recipe, change, find

TRIPLE = {"id": "t", "request": "q", "safe": "Sorry", "violating": "the coin is in the sleeve"}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def data(tmp_path: Path, triples: str, helpful: str = "") -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "triples.jsonl").write_text(triples)
    (folder / "helpful.jsonl").write_text(helpful)
    return folder


@pytest.mark.parametrize(
    ("triples", "says"),
    [
        ("", "triples.jsonl is empty"),
        (json.dumps(TRIPLE) + "\n" + json.dumps(TRIPLE)[:30], "line 2 is not JSON (is the file cut short?)"),
        (json.dumps({**TRIPLE, "violating": ""}) + "\n", "line 1: lacks violating"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_an_empty_or_truncated_file_is_named_with_its_line(
    triples: str, says: str, dry: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out"
    assert call(monkeypatch, "train", "derta", "--data", str(data(tmp_path, triples)), "--out", str(out), *dry) == 2
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_a_recipe_of_the_paper_asks_for_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own launch command names them with --data; without it the placeholder is all there is."""
    assert call(monkeypatch, "train", "--recipe", "llama3-8b-derta", "--out", str(tmp_path / "out")) == 2
    told = capsys.readouterr().err
    assert "no training data at SET" in told
    assert "--data" in told


def test_a_checkpoint_that_can_t_be_kept_is_said_before_a_step_is_made(
    toy: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    given = ["--base", str(tiny), "--data", str(toy), "--out", str(tmp_path / "file" / "out")]
    assert call(monkeypatch, "train", "derta", *given) == 2
    told = capsys.readouterr().err
    assert "can't be written: Not a directory" in told
    assert "--out" in told


def test_a_checkpoint_is_not_written_into_its_base(
    toy: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base would be another one at every start, and a killed run could not go on."""
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    monkeypatch.chdir(base)
    assert call(monkeypatch, "train", "derta", "--base", ".", "--data", str(toy)) == 2
    assert "lies in its base" in capsys.readouterr().err
    assert not (base / "checkpoints").exists()
    assert call(monkeypatch, "train", "derta", "--base", ".", "--data", str(toy), "--out", ".") == 2
    assert "lies in its base" in capsys.readouterr().err


def test_a_base_without_a_chat_template_is_told_of_the_other_form(
    toy: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny, bare)
    (bare / "chat_template.jinja").unlink()
    given = ["--base", str(bare), "--data", str(toy), "--out", str(tmp_path / "out")]
    assert call(monkeypatch, "train", "derta", *given) == 2
    assert "--set template=inst" in capsys.readouterr().err


ROWS = [{"prefix": "[INST] q [\\INST] ", "text": "Sorry", "safe": "false"},
        {"prefix": "[INST] q [\\INST] ", "text": "the coin", "safe": "true"}]  # fmt: skip


@pytest.mark.parametrize(("method", "rows", "fits"), [
    ("derta", 2, True), ("rto", 2, True), ("vanilla", 1, True), ("recaug", 1, True), ("vanilla", 2, False),
    ("derta", 1, False), ("dpo", 2, False), ("dpo", 1, False), ("circuit-breaker", 2, False), ("r2d2", 1, False),
])  # fmt: skip
def test_official_rows_are_taken_by_the_methods_they_can_be_and_by_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str, rows: int,
    fits: bool,
) -> None:  # fmt: skip
    """They are MLE and RTO rows already: a run of dpo would train on them and call itself dpo."""
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(ROWS[:rows]))
    code = call(monkeypatch, "train", method, "--data", str(file), "--dry-run")
    assert code == (0 if fits else 2)
    assert fits or f"{method} can't be made of official rows" in capsys.readouterr().err


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_setting_that_a_method_cannot_work_with_is_refused_in_the_dry_run_too(
    dry: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "train", "r2d2", "--set", "shard=true", *dry) == 2
    assert "r2d2 needs shard: false" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_tokenizer_without_a_one_token_refusal_word_is_named_before_a_step_is_made(
    dry: list[str], tiny: Path, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = ["--base", str(tiny), "--data", str(toy), "--out", str(tmp_path / "out"), "--set", "refusal=Sorry I"]
    assert call(monkeypatch, "train", "derta", *given, *dry) == 2
    told = capsys.readouterr().err
    assert "'Sorry I' is 2 tokens in this tokenizer" in told
    assert "set `refusal`" in told
    assert not (tmp_path / "out" / "manifest.json").exists()


def lacking(tiny: Path, folder: Path) -> None:
    """A copy of the base whose weights lack one tensor."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, folder)
    held = load_file(folder / "model.safetensors")
    del held["model.layers.1.mlp.up_proj.weight"]
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(tiny: Path, folder: Path) -> None:
    shutil.copytree(tiny, folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def scaling(tiny: Path, folder: Path) -> None:
    """A base whose logits are scaled after the head, which packed losses would leave out."""
    import torch
    from transformers import GraniteConfig, GraniteForCausalLM

    shutil.copytree(tiny, folder)
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=19, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, logits_scaling=8.0, initializer_range=0.2, eos_token_id=1, bos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    GraniteForCausalLM(config).save_pretrained(folder)


def adapter(tiny: Path, folder: Path) -> None:
    shutil.copytree(tiny, folder)
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lacking, "lacks 1 weights, such as model.layers.1.mlp.up_proj.weight"),
        (cut_short, "can't be loaded as a causal language model"),
        (scaling, "GraniteForCausalLM is not a model that can be trained here"),
        (adapter, "is an adapter"),
    ],
)
def test_a_base_that_would_be_trained_wrong_is_refused(
    make: Callable[[Path, Path], None], says: str, toy: Path, tiny: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make(tiny, tmp_path / "base")
    given = ["--base", str(tmp_path / "base"), "--data", str(toy), "--out", str(tmp_path / "out")]
    assert call(monkeypatch, "train", "derta", *given) == 2
    assert says in capsys.readouterr().err.replace("\n", " ")


def test_an_adapter_on_the_head_is_refused(
    toy: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Packed losses read the head's own weights: it would be saved as it began."""
    given = ["--base", str(tiny), "--data", str(toy), "--out", str(tmp_path / "out")]
    assert call(monkeypatch, "train", "derta", *given, "--set", "lora_targets=q_proj,lm_head") == 2
    assert "names the output head" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["No", "null", "[Sorry]"])
def test_a_text_that_yaml_reads_as_something_else_is_asked_for_in_quotes(value: str, tmp_path: Path) -> None:
    """`refusal: No` would train the word False."""
    file = tmp_path / "r.yaml"
    file.write_text(f"method: derta\nrefusal: {value}\n")
    with pytest.raises(UsageError, match="'refusal' can't be"):
        find(str(file))
    file.write_text("method: derta\nrefusal: 'No'\n1: 2\n")
    with pytest.raises(UnknownName, match="'1'"):
        find(str(file))
    with pytest.raises(UsageError, match="seed"):
        change(Recipe(), {"seed": 2**62})


def test_a_manifest_tells_what_was_read_and_no_login_of_the_base_s_address(
    toy: Path, tiny: Path, tmp_path: Path
) -> None:
    from harness.train import trainer

    recipe = change(
        find("smollm2-derta"), {"base": str(tiny), "data": str(toy), "pairs": 4, "helpful": 4, "max_steps": 1}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "locate", lambda _: str(tiny))
        trainer.train(change(recipe, {"base": "https://me:hidden@host/base.tar.gz?sig=hidden"}), tmp_path / "out")
    for name in ("README.md", "manifest.json", "adapter_config.json"):
        told = (tmp_path / "out" / name).read_text()
        assert "https://host/base.tar.gz" in told
        assert "hidden" not in told
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert sum(manifest["pairs_by_part"].values()) == recipe.batch  # of 8 drawn, those that its one step read
    assert sum(manifest["positions_by_part"].values()) == manifest["supervised_seen"]
