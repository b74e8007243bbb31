"""bitsandbytes checkpoints, opened for real. Runs where bitsandbytes is installed, which nothing else here needs."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from harness.config import make_spec
from harness.engine import run
from harness.models import embedded
from harness.models.hf import Transformers
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.models.weights import parameters
from harness.types import Prompt, Sampling
from tests.models.toys import adapter, checkpoint, model

pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")
SIZES = {"hidden_size": 128, "intermediate_size": 128}


def quantised(folder: Path, bits: int, plain: Path | None = None) -> Path:
    """A model (the tiny one, where none is named) in 4 or 8 bit, saved as a user's checkpoint is."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    plain = plain or checkpoint(folder / "plain", **SIZES)
    how: dict[str, Any] = {"load_in_4bit": True} if bits == 4 else {"load_in_8bit": True}
    made = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=BitsAndBytesConfig(**how), device_map="cpu", dtype=torch.float32
    )
    made.save_pretrained(folder / f"tiny-{bits}bits")
    AutoTokenizer.from_pretrained(plain).save_pretrained(folder / f"tiny-{bits}bits")
    return folder / f"tiny-{bits}bits"


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_checkpoint_runs_in_transformers_and_says_so(bits: int, tmp_path: Path) -> None:
    at = quantised(tmp_path, bits)
    prompts = [Prompt.chat("how is the trick done " * n) for n in (1, 3, 2)]

    async def go() -> None:
        [one] = await open_models(str(at), ModelOptions())
        assert isinstance(one, Transformers)
        assert "vllm-bnb-plugin" in one.notes[0]
        kinds = {type(part).__name__ for part in one.worker.module.modules()}
        assert ("Linear4bit" if bits == 4 else "Linear8bitLt") in kinds
        assert one.describe()["parameters"] == parameters(at) == model(**SIZES).num_parameters()
        alone = [await one.generate(p, Sampling(max_tokens=6)) for p in prompts]
        together = await asyncio.gather(*[one.generate(p, Sampling(max_tokens=6)) for p in prompts])
        assert [c.text for c in together] == [c.text for c in alone]
        assert all(c.tokens_out for c in alone)
        value, _ = await one.loglikelihood(prompts[0], " thread")
        assert value < 0
        await one.close()

    asyncio.run(go())


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_the_embedded_model_quantised_runs_end_to_end_through_a_row(bits: int, tmp_path: Path) -> None:
    at = quantised(tmp_path, bits, embedded.ensure())
    (tmp_path / "rows.yaml").write_text(f"toys/q: {{kind: bnb-{bits}bit, at: {at.name}}}\n")
    given = {"model": "toys/q", "checkpoints": str(tmp_path / "rows.yaml"), "attacks": "direct,prefill,completion"}
    given |= {"limit": 1, "max_tokens": 8, "tasks": "knowledge", "task_limit": 1}
    done = run(make_spec({**given, "set": ["prefill.depths=5"]}), tmp_path / "run")
    assert (done.info["status"], len(done.records)) == ("complete", 5)
    assert not [r.error for r in done.records if r.error]
    told = done.info["models"]["q"]
    assert (told["kind"], told["parameters"]) == ("transformers", 134_515_008)
    assert any("vllm-bnb-plugin" in note for note in done.info["notes"])


def test_an_adapter_goes_on_a_quantised_base(tmp_path: Path) -> None:
    at, lora = quantised(tmp_path, 4), adapter(tmp_path / "lora", **SIZES)

    async def go() -> None:
        base, tuned = await open_models(str(at), ModelOptions(), {"lora": lora})
        prompt = Prompt(text="the ring floats")
        told = await asyncio.gather(*[m.generate(prompt, Sampling(max_tokens=8)) for m in (base, tuned, base)])
        assert told[0].text == told[2].text != told[1].text
        await base.close()

    asyncio.run(go())
