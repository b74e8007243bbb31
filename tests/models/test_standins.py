"""Each kind of checkpoint end to end, on a stand-in of its kind made from the embedded model."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from harness.config import make_spec
from harness.engine import run
from harness.models import embedded
from harness.models.adapters import shapes_of
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.types import Completion, Prompt, Run, Sampling
from tests.models.toys import adapter, checkpoint

pytestmark = pytest.mark.slow
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # the paper's


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows as a user writes them: full weights, a LoRA adapter of rank 96 on them, and the GGUF they came from."""
    import torch
    from safetensors.torch import save_file

    home = tmp_path_factory.mktemp("rows")
    base = embedded.ensure()
    draw = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes_of(base).items():
        module = name.removesuffix(".weight")
        if module.endswith(TARGETS):
            for side, size in (("A", (96, shape[1])), ("B", (shape[0], 96))):
                tensors[f"base_model.model.{module}.lora_{side}.weight"] = torch.randn(size, generator=draw) * 0.03
    (home / "lora96").mkdir()
    save_file(tensors, home / "lora96" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 96, "lora_alpha": 16, "bias": "none"}
    settings |= {"target_modules": list(TARGETS), "base_model_name_or_path": "toys/full"}
    (home / "lora96" / "adapter_config.json").write_text(json.dumps(settings))
    embedded.unpack(home)
    (home / "rows.yaml").write_text(
        f"toys/full: {{at: {base}}}\n"
        "toys/derta-like-lora: {kind: lora, base: toys/full, at: lora96, format: derta, stop: ['<|im_end|>']}\n"
        f"toys/gguf: {{kind: gguf, at: {embedded.GGUF}}}\n"
    )
    return home / "rows.yaml"


def small(rows: Path, model: str, out: Path, **more: Any) -> Run:
    settings = {"attacks": "direct,prefill,completion", "set": ["prefill.depths=5"], "limit": 1, "task_limit": 1}
    given = {"model": model, "checkpoints": str(rows), "max_tokens": 8, "tasks": "knowledge", **settings, **more}
    return run(make_spec(given), out)


@pytest.mark.parametrize(
    ("model", "kind", "label"),
    [
        ("toys/full", "vllm", "full"),
        ("toys/derta-like-lora", "vllm", "derta-like-lora"),
        ("toys/gguf", "transformers", "gguf"),
    ],
)
def test_every_kind_of_checkpoint_runs_end_to_end(
    model: str, kind: str, label: str, rows: Path, tmp_path: Path
) -> None:
    done = small(rows, model, tmp_path / "run")
    assert done.info["status"] == "complete"
    assert not [r.error for r in done.records if r.error]
    # one behavior under three attacks, one look-alike, one item of one task; the base of an adapter is not evaluated
    assert len(done.records) == 5
    assert {r.model for r in done.records} == {label}
    told = done.info["models"][label]
    assert (told["kind"], bool(told["adapter_sha"])) == (kind, "lora" in model)
    assert told["parameters"] == 134_515_008
    assert any("is a GGUF" in note for note in done.info["notes"]) == (model == "toys/gguf")
    assert (done.folder / "report.pdf").read_bytes().startswith(b"%PDF")


def test_vllm_and_transformers_say_the_same_with_the_same_adapter(tmp_path: Path) -> None:
    """Greedy, in float32, on tiny weights; in the chat form of the paper, with a prefill, and raw."""
    sizes = {"hidden_size": 128, "intermediate_size": 128}
    checkpoint(tmp_path / "base", **sizes)
    adapter(tmp_path / "lora96", base="toys/base", **sizes)
    (tmp_path / "rows.yaml").write_text(
        "toys/base: {at: base}\n"
        "toys/lora: {kind: lora, base: toys/base, at: lora96, format: derta, stop: ['<|im_end|>']}\n"
    )
    prompts = [
        Prompt.chat("How does the coin vanish?"),
        Prompt.chat("How does the coin vanish?", prefill="The coin is"),
        Prompt(text="I will explain how the coin vanishes:\n1:"),
    ]

    async def told(engine: Any) -> tuple[list[Completion], float, dict[str, Any]]:
        rows = str(tmp_path / "rows.yaml")
        options = ModelOptions(engine=engine, dtype="float32", checkpoints=rows, max_model_len=512)
        [model] = await open_models("toys/lora", options)
        try:
            assert type(model).__name__.lower() == engine
            value, _ = await model.loglikelihood(prompts[0], " thread")
            written = await asyncio.gather(*[model.generate(p, Sampling(max_tokens=12)) for p in prompts])
            return written, value, model.describe()
        finally:
            await model.close()

    (ours, mine, one), (theirs, other, two) = asyncio.run(told("transformers")), asyncio.run(told("vllm"))
    for a, b in zip(ours, theirs, strict=True):
        assert (a.text, a.finish, a.tokens_in, a.tokens_out) == (b.text, b.finish, b.tokens_in, b.tokens_out)
        assert a.token_ends == b.token_ends
    assert mine == pytest.approx(other, abs=1e-3)
    for key in ("checkpoint_sha", "adapter_sha", "parameters", "tokenizer_sha", "chat_template_sha", "dtype"):
        assert one[key] == two[key]
