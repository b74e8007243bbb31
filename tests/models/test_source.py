"""From a name to files, kind and engine; and every mistake said in words, before anything is loaded."""

import asyncio
import json
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.config import make_spec
from harness.engine import default_folder
from harness.errors import DataError, UnknownName, UsageError
from harness.manifest import Manifest
from harness.models import hub, source
from harness.models.adapters import check_fit, for_vllm, object_in, read_adapter, rewrites
from harness.models.checkpoints import checkpoints
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.models.source import find, find_adapter, kind_of, label_of, locate, plan_opening
from harness.models.vllm import lora_settings
from harness.models.weights import fingerprint
from harness.plan import Plan
from harness.plan import adapters as planned
from tests.attacks_adaptive.tiny import model, tokenizer
from tests.models.toys import adapter, checkpoint, llama3_like


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, an adapter of rank 96 on it, and rows that name both."""
    at = tmp_path_factory.mktemp("home")
    checkpoint(at / "tiny")
    adapter(at / "lora", base="toys/tiny")
    (at / "rows.yaml").write_text(
        "toys/tiny: {at: tiny, gpus: 2, note: stand-in}\n"
        "toys/tiny-lora: {kind: lora, at: lora, base: toys/tiny, format: derta, stop: ['<|im_end|>'], gpus: 4}\n"
    )
    return at


def options(home: Path, **more: Any) -> ModelOptions:
    return ModelOptions(checkpoints=str(home / "rows.yaml"), **more)


def quantised(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    told = {"quant_method": "bitsandbytes", **settings}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": told}))
    return folder


@pytest.mark.parametrize("id", [id for id, row in checkpoints().items() if row.kind == "lora"])
def test_a_lora_row_opens_its_base_with_the_adapter_on_it(
    id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub would be asked for, in which order; nothing is downloaded."""
    asked = []

    def fetched(repo: str, *, file: str = "") -> Path:
        asked.append(repo)
        at = tmp_path / repo.replace("/", "--")
        at.mkdir()
        is_adapter = checkpoints()[repo].kind == "lora"
        (at / ("adapter_config.json" if is_adapter else "config.json")).write_text("{}")
        return at

    monkeypatch.setattr(source, "from_hub", fetched)
    found = find(id, ModelOptions())
    row = checkpoints()[id]
    assert asked == [id, row.base]
    assert found.label == id.partition("/")[2]
    assert (found.path.name, found.adapter and found.adapter.name) == (
        row.base.replace("/", "--"),
        id.replace("/", "--"),
    )
    settled = found.settled(ModelOptions())
    assert (settled.chat, settled.stop, settled.tensor_parallel) == (row.chat, row.stop, row.gpus)
    assert found.settled(ModelOptions(tensor_parallel=8)).tensor_parallel == 8


@pytest.mark.parametrize("id", [id for id, row in checkpoints().items() if row.kind != "lora"])
def test_every_other_row_opens_what_lies_at_its_id(id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = checkpoints()[id]
    bits = {"bnb-4bit": {"load_in_4bit": True}, "bnb-8bit": {"load_in_8bit": True}}.get(row.kind)
    told = {"quantization_config": {"quant_method": "bitsandbytes", **bits}} if bits else {}
    (tmp_path / "config.json").write_text(json.dumps(told))
    monkeypatch.setattr(source, "from_hub", lambda repo, file="": tmp_path)
    found = find(id, ModelOptions())
    assert (found.kind, found.adapter, found.label) == (row.kind, None, id.partition("/")[2])


def test_a_row_whose_files_are_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(source, "from_hub", lambda repo, file="": tmp_path)
    with pytest.raises(DataError, match=r"known as bnb-4bit, but what lies at .* is full"):
        find("RichardErkhov/Youliang_-_llama3-8b-derta-4bits", ModelOptions())


def test_ones_own_lora_row_and_a_bare_adapter_folder_open_their_base(home: Path) -> None:
    by_row = find("toys/tiny-lora", options(home))
    assert (by_row.label, by_row.path, by_row.adapter) == ("tiny-lora", home / "tiny", home / "lora")
    bare = find(str(home / "lora"), options(home))  # its config names toys/tiny
    assert (bare.label, bare.path, bare.adapter) == ("lora", home / "tiny", home / "lora")
    assert find("toys/tiny", options(home)).adapter is None


def test_rank_96_needs_room_for_128_and_one_too_large_is_said(home: Path) -> None:
    one = read_adapter(home / "lora")
    assert (one.rank, one.max_lora_rank) == (96, 128)
    pairs = [(1, 1), (2, 8), (16, 16), (17, 32), (256, 256), (257, 320), (512, 512)]
    for rank, allowed in pairs:
        assert type(one)(folder=one.folder, settings={"r": rank}).max_lora_rank == allowed
    assert type(one)(folder=one.folder, settings={"r": 8, "rank_pattern": {"q_proj": 64}}).max_lora_rank == 64
    with pytest.raises(UsageError, match="vLLM takes 512"):
        _ = type(one)(folder=one.folder, settings={"r": 513}).max_lora_rank


def test_an_adapter_on_a_base_of_other_shapes_is_refused_before_anything_is_loaded(home: Path, tmp_path: Path) -> None:
    wide = checkpoint(tmp_path / "wide", hidden_size=64)
    with pytest.raises(UsageError, match=r"was not trained on wide: .* is 32 wide, the base's 64"):
        asyncio.run(open_models(str(wide), options(home), {"lora": home / "lora"}))
    short = checkpoint(tmp_path / "short", num_hidden_layers=1)
    with pytest.raises(UsageError, match=r"layers.1.* is missing in the base"):
        asyncio.run(open_models(str(short), options(home), {"lora": home / "lora"}))


def test_an_adapter_with_another_tokenizer_is_refused_and_one_with_more_tokens_is_said(
    home: Path, tmp_path: Path
) -> None:
    other = adapter(tmp_path / "other", base="toys/tiny")
    llama3_like().save_pretrained(other)
    found = find("toys/tiny", options(home))
    with pytest.raises(UsageError, match="another tokenizer than tiny"):
        plan_opening(found, {"other": other}, options(home))
    grown = adapter(tmp_path / "grown", base="toys/tiny")
    tok = tokenizer()
    tok.add_special_tokens({"pad_token": "[PAD]"})
    tok.save_pretrained(grown)
    way = plan_opening(found, {"grown": grown}, options(home))
    assert way.notes == ("grown adds 1 tokens to its base's ([PAD]); prompts are built with the base's",)


def test_an_adapter_that_names_another_base_but_fits_is_said(home: Path, tmp_path: Path) -> None:
    stray = adapter(tmp_path / "stray", base="someone/else")
    [note] = plan_opening(find("toys/tiny", options(home)), {"stray": stray}, options(home)).notes
    assert note == "stray names someone/else as its base; its shapes fit toys/tiny, which it is on"


def test_embeddings_that_peft_saved_with_an_adapter_are_left_out_for_vllm_only_when_they_are_the_bases(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    own = load_file(home / "tiny" / "model.safetensors")
    rows = own["model.embed_tokens.weight"]
    for name, first in (("same", rows), ("retrained", rows + 1)):
        folder = adapter(tmp_path / name, base="toys/tiny")
        tensors = load_file(folder / "adapter_model.safetensors")
        more = first.new_zeros(1, rows.shape[1])  # the row of a padding token
        tensors["base_model.model.model.embed_tokens.weight"] = __import__("torch").cat([first, more])
        save_file(tensors, folder / "adapter_model.safetensors")
    at, note = for_vllm(read_adapter(tmp_path / "same"), home / "tiny")
    assert at is not None
    assert at != tmp_path / "same"
    assert at.name == "same"
    assert "left out" in note
    assert set(load_file(at / "adapter_model.safetensors")) == {
        k for k in load_file(tmp_path / "same" / "adapter_model.safetensors") if "embed_tokens" not in k
    }
    assert for_vllm(read_adapter(tmp_path / "same"), home / "tiny")[0] == at  # made once
    at, note = for_vllm(read_adapter(tmp_path / "retrained"), home / "tiny")
    assert at is None
    assert "retrains embed_tokens" in note
    assert for_vllm(read_adapter(home / "lora"), home / "tiny") == (home / "lora", "")


def test_what_vllm_can_not_take_goes_to_transformers_and_it_is_said(home: Path, tmp_path: Path) -> None:
    four, eight = quantised(tmp_path / "four", load_in_4bit=True), quantised(tmp_path / "eight", load_in_8bit=True)
    assert (kind_of(four), kind_of(eight), kind_of(home / "tiny")) == ("bnb-4bit", "bnb-8bit", "full")
    way = plan_opening(find(str(four), options(home)), {}, options(home))
    assert way.engine == "transformers"
    assert "pip install vllm-bnb-plugin" in way.notes[0]
    with pytest.raises(UsageError, match="vLLM can't open this"):
        plan_opening(find(str(four), options(home)), {}, options(home, engine="vllm"))
    (tmp_path / "one.gguf").write_bytes(b"GGUF")
    way = plan_opening(find(str(tmp_path / "one.gguf"), options(home)), {}, options(home))
    assert (way.engine, "is a GGUF" in way.notes[0]) == ("transformers", True)
    assert plan_opening(find("toys/tiny", options(home)), {}, options(home)).engine == "vllm"
    dora = adapter(tmp_path / "dora", base="toys/tiny")
    settings = object_in(dora / "adapter_config.json")
    (dora / "adapter_config.json").write_text(json.dumps({**settings, "use_dora": True}))
    way = plan_opening(find("toys/tiny", options(home)), {"dora": dora}, options(home))
    assert (way.engine, "no adapter with use_dora" in way.notes[0]) == ("transformers", True)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora'"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices"),
        ({"use_qalora": True}, "use_qalora"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"init_lora_weights": "gaussian", "bias": "none"}, ""),
        ({"init_lora_weights": False}, ""),
    ],
)
def test_what_vllm_would_refuse_at_the_first_request_is_known_before(
    home: Path, tmp_path: Path, settings: dict[str, Any], why: str
) -> None:
    at = told(adapter(tmp_path / "odd", base="toys/tiny"), **settings)
    folder, note = for_vllm(read_adapter(at), home / "tiny")
    assert (folder is None, f"no adapter with {why}:" in note) == (bool(why), bool(why))


def told(folder: Path, **settings: Any) -> Path:
    """The adapter, with more said in its config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**object_in(path), **settings}))
    return folder


def moved(folder: Path) -> Path:
    """The adapter with embeddings that are not the base's."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "adapter_model.safetensors")
    rows = model().get_input_embeddings().weight
    save_file({**tensors, "base_model.model.model.embed_tokens.weight": rows + 1}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("begun with init_lora_weights='pissa'", {"init_lora_weights": "pissa"}),
        ("other embed_tokens", {}),
    ],
)
def test_an_adapter_that_would_change_the_base_is_evaluated_alone(
    home: Path, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    at = adapter(tmp_path / "odd", base="toys/tiny", lora=settings)
    at = moved(at) if "embed" in kind else at
    for engine in ("auto", "transformers"):
        one = options(home, engine=engine)
        for others in ({}, {"lora": home / "lora"}):
            with pytest.raises(UsageError, match=kind) as caught:
                plan_opening(find("toys/tiny", one), {"odd": at, **others}, one)
            assert f"--model {at}" in caught.value.hint
        with pytest.raises(UsageError, match=kind):
            plan_opening(find(str(at), one), {"odd": at, "lora": home / "lora"}, one)
        assert plan_opening(find(str(at), one), {"odd": at}, one).engine == "transformers"


def test_peft_writes_into_the_base_what_is_said_to_rewrite_it_and_nothing_else(home: Path, tmp_path: Path) -> None:
    import torch

    from harness.models.weights import with_adapters

    ids = torch.arange(3, 20)[None]
    qwen = {"family": "qwen2"}  # has biases
    kinds: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "pissa": ({"init_lora_weights": "pissa"}, {}),
        "olora": ({"init_lora_weights": "olora"}, {}),
        "gaussian": ({"init_lora_weights": "gaussian"}, {}),
        "layers": ({"layer_replication": [[0, 2], [1, 2]]}, {}),
        "modules": ({"modules_to_save": ["lm_head"]}, {}),
        "head": ({"target_modules": ["q_proj", "lm_head"]}, {}),
        "tied": ({"target_modules": ["q_proj", "lm_head"]}, {"tie_word_embeddings": True}),
        "embeddings": ({}, {}),
        "biases": ({"bias": "all"}, qwen),
    }
    from safetensors.torch import load_file, save_file

    for name, (settings, sizes) in kinds.items():
        base = checkpoint(tmp_path / f"{name}-base", **sizes)
        at = adapter(tmp_path / name, rank=4, lora=settings, **sizes)
        at = moved(at) if name == "embeddings" else at
        file = at / "adapter_model.safetensors"
        shifted = {k: v + 1 if k.endswith(".bias") or name == "modules" else v for k, v in load_file(file).items()}
        save_file(shifted, file)
        module = model(**sizes)
        with torch.no_grad():
            alone = module(ids).logits
            placed = with_adapters(module, {"a": at})
            assert not torch.allclose(placed(ids).logits, alone, atol=1e-3), name
            with placed.disable_adapter():
                changed = not torch.allclose(placed(ids).logits, alone, atol=1e-4)
        assert bool(rewrites(read_adapter(at), base)) == changed == (name in REWRITING), name


REWRITING = {"pissa", "olora", "layers", "embeddings", "biases"}


def test_the_layers_of_an_adapter_are_those_of_its_tensors_and_lm_head_is_not_for_vllm_on_a_cpu(
    home: Path, tmp_path: Path
) -> None:
    pattern = read_adapter(adapter(tmp_path / "pattern", lora={"target_modules": r".*\.(q_proj|embed_tokens)"}))
    assert pattern.layers == ("embed_tokens", "q_proj")
    assert lora_settings([pattern], on_cpu=True)["lora_target_modules"] == ["embed_tokens", "q_proj"]
    head = read_adapter(adapter(tmp_path / "head", lora={"target_modules": r".*(q_proj|lm_head)"}))
    assert "lm_head" in head.layers
    assert for_vllm(head, home / "tiny", on_cpu=False)[0] is not None
    folder, note = for_vllm(head, home / "tiny", on_cpu=True)
    assert (folder, "lm_head on a CPU" in note) == (None, True)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_end_of_a_tied_base_fits_and_is_merged_into_that_end_alone(
    tmp_path: Path, target: str
) -> None:
    import torch
    from safetensors.torch import load_file

    from harness.models.weights import load_weights, with_adapters
    from harness.train.merge import merge

    base = checkpoint(tmp_path / "base", tie_word_embeddings=True)
    at = adapter(tmp_path / "a", lora={"target_modules": ["q_proj", target]}, tie_word_embeddings=True)
    assert check_fit(read_adapter(at), base) == ()
    assert not rewrites(read_adapter(at), base)
    old = Path(shutil.copytree(base, tmp_path / "old"))
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    assert not rewrites(read_adapter(at), old), "the rows of an older file are compared as well"
    ids = torch.arange(3, 20)[None]
    expected = with_adapters(model(tie_word_embeddings=True), {"a": at})(ids).logits
    merged, _ = load_weights(str(base), at, ModelOptions(dtype="float32"))
    assert torch.allclose(merged(ids).logits, expected, atol=1e-3)
    merge(at, tmp_path / "merged", str(base))
    written, _ = load_weights(str(tmp_path / "merged"), None, ModelOptions(dtype="float32"))
    assert torch.allclose(written(ids).logits, expected, atol=1e-3)


def test_a_head_that_a_base_lacks_and_does_not_tie_is_refused(tmp_path: Path) -> None:
    base = checkpoint(tmp_path / "base", tie_word_embeddings=True)
    (base / "config.json").write_text(json.dumps({**object_in(base / "config.json"), "tie_word_embeddings": False}))
    at = adapter(tmp_path / "a", lora={"target_modules": ["lm_head"]}, tie_word_embeddings=True)
    with pytest.raises(UsageError, match="lm_head is missing in the base"):
        check_fit(read_adapter(at), base)


def test_what_lies_in_hidden_folders_is_no_part_of_a_checkpoint(home: Path, tmp_path: Path) -> None:
    at = shutil.copytree(home / "tiny", tmp_path / ".hidden" / "tiny")
    assert fingerprint(at) == fingerprint(home / "tiny")
    (at / ".cache" / "download").mkdir(parents=True)
    (at / ".cache" / "download" / "config.json.metadata").write_text("1790000000.5")
    assert fingerprint(at) == fingerprint(home / "tiny")
    (at / "sub").mkdir()
    (at / "sub" / "more.json").write_text("{}")
    assert fingerprint(at) != fingerprint(home / "tiny")


def test_bitsandbytes_that_is_missing_is_said_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = checkpoint(tmp_path / "q")
    config = json.loads((at / "config.json").read_text())
    bits = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (at / "config.json").write_text(json.dumps({**config, "quantization_config": bits}))
    import transformers.quantizers.quantizer_bnb_4bit as quantizer

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError(
            "Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes`"
        )

    monkeypatch.setattr(quantizer.Bnb4BitHfQuantizer, "validate_environment", missing)
    with pytest.raises(UsageError, match="requires bitsandbytes") as told:
        asyncio.run(open_models(str(at), ModelOptions()))
    assert told.value.hint == "pip install bitsandbytes"


@pytest.mark.parametrize(
    ("name", "files", "why"),
    [
        ("empty", [], "not a checkpoint"),
        ("two", ["a.gguf", "b.gguf"], "holds 2 GGUF files"),
        ("split", ["m-00001-of-00002.gguf"], "one part of a split GGUF"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_said(tmp_path: Path, name: str, files: list[str], why: str) -> None:
    (tmp_path / name).mkdir()
    for file in files:
        (tmp_path / name / file).write_bytes(b"GGUF")
    with pytest.raises(DataError, match=why):
        locate(str(tmp_path / name))


def test_the_one_gguf_of_a_folder_is_it_and_another_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert locate(str(tmp_path)) == tmp_path / "m.gguf"
    (tmp_path / "m.txt").write_text("")
    with pytest.raises(DataError, match="is no checkpoint"):
        locate(str(tmp_path / "m.txt"))


def test_adapters_are_found_by_folder_row_and_name_and_others_get_a_suggestion(home: Path) -> None:
    assert find_adapter(str(home / "lora"), options(home)) == ("lora", home / "lora")
    assert find_adapter("toys/tiny-lora", options(home)) == ("tiny-lora", home / "lora")
    with pytest.raises(UsageError, match="toys/tiny is no adapter: it is full"):
        find_adapter("toys/tiny", options(home))
    with pytest.raises(UnknownName, match="unknown adapter '/nowhere'"):
        find_adapter("/nowhere", options(home))
    spec = make_spec({"model": "m", "checkpoints": str(home / "rows.yaml"), "adapter": [str(home / "lora")] * 2})
    with pytest.raises(UsageError, match="same folder name"):
        planned(spec)


def test_more_gpus_than_there_are_is_said_and_a_cpu_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from harness.models import vllm

    assert vllm.gpus(4) == 1  # no accelerator here
    monkeypatch.setattr(vllm, "gpu_present", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (vllm.gpus(0), vllm.gpus(2)) == (1, 2)
    with pytest.raises(UsageError, match="needs 4 GPUs of 80 GB, there are 2"):
        vllm.gpus(4)


class Response:
    """What the hub's errors carry."""

    def __init__(self, status: int) -> None:
        self.status_code = status
        self.headers: dict[str, str] = {}
        self.request = None


@pytest.mark.parametrize(
    ("kind", "status", "token", "why", "hint"),
    [
        ("GatedRepoError", 403, None, "is gated", "export HF_TOKEN"),
        ("GatedRepoError", 403, "hf_x", "is gated", "ask for access"),
        ("RepositoryNotFoundError", 404, None, "knows no model", "private\\? export HF_TOKEN"),
        ("RepositoryNotFoundError", 404, "hf_x", "knows no model", "check the spelling"),
        ("RevisionNotFoundError", 404, None, "no revision 'v9'", "leave it out"),
        ("HfHubHTTPError", 401, "hf_x", "refuses the token", "valid one"),
        ("HfHubHTTPError", 503, None, "answers 503", "later"),
        ("LocalEntryNotFoundError", 0, None, "can't be reached", "a folder on this machine, or .*and its adapters"),
        ("OfflineModeIsEnabled", 0, None, "can't be reached", "without the hub"),
    ],
)
def test_what_the_hub_answers_is_said_with_what_to_do(
    kind: str, status: int, token: str | None, why: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: Any, **__: Any) -> None:
        made = getattr(errors, kind)
        raise made("no", response=Response(status)) if status else made("no")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    with pytest.raises(DataError, match=why) as told:
        hub.from_hub("owner/name@v9")
    assert re.search(hint, told.value.hint)


def test_a_gated_base_is_said_as_the_adapters_base(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gated(repo: str, *, file: str = "") -> Path:
        if "Meta" in repo:
            raise DataError(f"{repo} is gated: its licence has to be accepted first", hint="export HF_TOKEN=...")
        return home / "lora"

    monkeypatch.setattr(source, "from_hub", gated)
    with pytest.raises(UsageError, match=r"is an adapter on meta-llama/Meta-Llama-3-70B: .* is gated") as told:
        find("Youliang/llama3-70b-lora-derta", ModelOptions())
    assert "export HF_TOKEN" in told.value.hint


@pytest.mark.parametrize(
    ("reference", "label"),
    [
        ("https://user:secret@example.org/ckpt.tar.gz", "ckpt.tar.gz"),
        ("https://example.org/a/ckpt.gguf?X-Amz-Signature=secret#secret", "ckpt.gguf"),
        ("https://user:secret@example.org/?key=secret", "example.org"),
        ("/data/me@host/llama", "llama"),
        ("/data/me@host/llama@v2", "llama"),
        ("owner/name@v2", "name"),
        ("owner/name@feature/x", "name"),
        ("owner/name@v2:q4.gguf", "name"),
        ("owner/name:q4.gguf", "name:q4.gguf"),
        ("smollm2-135m", "smollm2-135m"),
    ],
)
def test_a_label_is_the_last_part_of_a_name_and_holds_no_secret_of_an_address(reference: str, label: str) -> None:
    assert label_of(reference) == label


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://h:8/v1, ok", "see https://h:8/v1, ok"),
        ("http://u:p@q@h/p http://h/p@2", "http://h/p http://h/p@2"),
        ("https://h/x?y=a@b#c", "https://h/x"),
        ("https://h?y=a@b https://u:p?a@h/x", "https:// https://"),  # login or query: it can't be told
    ],
)
def test_of_an_address_neither_login_nor_query_is_shown(text: str, shown: str) -> None:
    assert hub.bare(text) == shown


def test_a_folder_whose_path_looks_like_a_revision_is_called_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "me@host" / "llama").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert label_of("data/me@host/llama") == "llama"


def test_run_json_and_the_folders_name_hold_no_secret_of_the_models_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://user:secret@example.org/ckpt.tar.gz?X-Amz-Signature=secret"
    spec = make_spec({"model": url, "attacks": "direct", "tasks": "none"})
    plan = Plan(attacks=(), refuse=(), comply={}, tasks={}, seeds=(0,), notes=(f"{url} can't do raw",))
    monkeypatch.setattr("sys.argv", ["harness", "run", "--model", url, f"--model={url}"])
    with Manifest.opened(tmp_path, spec, plan, [], []) as manifest:
        manifest.note("done")
    kept = (tmp_path / "run.json").read_text()
    assert "secret" not in kept
    assert json.loads(kept)["spec"]["model"] == "https://example.org/ckpt.tar.gz"
    assert default_folder(spec).name.startswith("ckpt.tar.gz-")


def test_a_hub_pages_address_is_the_hub_id() -> None:
    from huggingface_hub import constants

    at = constants.ENDPOINT
    assert hub.hub_id(f"{at}/owner/name") == "owner/name"
    assert hub.hub_id(f"{at}/owner/name/tree/main") == "owner/name"
    assert hub.hub_id(f"{at}/owner/name/tree/v2") == "owner/name@v2"
    assert hub.hub_id(f"{at}/owner/name/resolve/main/q4.gguf") == "owner/name:q4.gguf"
    assert hub.hub_id(f"{at}/datasets/owner/name") == ""
    assert hub.hub_id("https://example.org/owner/name") == ""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server over a folder."""
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_checkpoint_is_fetched_from_a_url_once_and_whole(
    home: Path, tmp_path: Path, site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = site
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    with tarfile.open(folder / "tiny.tar.gz", "w:gz") as packed:
        packed.add(home / "tiny", arcname="tiny")
    at = locate(f"{url}/tiny.tar.gz")
    assert (at / "config.json").read_bytes() == (home / "tiny" / "config.json").read_bytes()
    (folder / "tiny.tar.gz").unlink()
    assert locate(f"{url}/tiny.tar.gz") == at
    (folder / "m.gguf").write_bytes(b"GGUF" * 1000)
    assert locate(f"{url}/m.gguf").read_bytes() == b"GGUF" * 1000
    with pytest.raises(DataError, match="can't be fetched"):
        locate(f"{url}/missing.gguf")
    with pytest.raises(DataError, match="is no checkpoint that can be fetched"):
        locate(f"{url}/page.html")


def test_a_broken_archive_is_thrown_away_so_that_the_next_try_can_work(
    home: Path, tmp_path: Path, site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = site
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    packed = folder / "cut.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(home / "tiny", arcname="tiny")
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="can't be unpacked"):
        locate(f"{url}/cut.tar.gz")
    packed.write_bytes(whole)
    assert (locate(f"{url}/cut.tar.gz") / "config.json").is_file()


@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 97)])
def test_an_archive_that_is_encrypted_or_packed_in_an_unknown_way_is_said_and_thrown_away(
    offset: int, value: int, tmp_path: Path
) -> None:
    """Flags and method stand 8 and 10 bytes into a file's place in the directory, 2 bytes less where the file does."""
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    raw = bytearray(path.read_bytes())
    raw[offset - 2] = raw[raw.index(b"PK\1\2") + offset] = value
    path.write_bytes(raw)
    with pytest.raises(DataError, match="can't be unpacked"):
        hub.unpack(path, tmp_path / "unpacked")
    assert not path.exists()


def test_an_address_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"my model\.gguf can't be fetched: URL can't contain"):
        locate("http://127.0.0.1:9/my model.gguf")


def test_an_archive_that_writes_outside_its_folder_is_refused(
    tmp_path: Path, site: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = site
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "evil.txt").write_text("x")
    with tarfile.open(folder / "evil.tar", "w") as packed:
        packed.add(tmp_path / "evil.txt", arcname="../../../evil-was-here")
    with pytest.raises(DataError, match="can't be unpacked"):
        locate(f"{url}/evil.tar")
    assert not list(tmp_path.rglob("evil-was-here"))
