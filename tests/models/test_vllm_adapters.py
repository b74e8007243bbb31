"""The base beside its adapters in one vLLM engine on a CPU: none of them may answer for another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.models.adapters import read_adapter
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.models.source import BUNDLED
from harness.models.vllm import lora_settings
from harness.types import Prompt, Sampling

ADAPTERS = {name: BUNDLED / name for name in ("vanilla", "derta")}
ASKED = Prompt.chat("Explain how a white dove is produced from a silk scarf.")


@pytest.mark.parametrize(("on_cpu", "places"), [(True, 3), (False, 2)])
def test_on_a_cpu_the_last_place_of_an_adapter_stays_empty(on_cpu: bool, places: int) -> None:
    found = lora_settings([read_adapter(folder) for folder in ADAPTERS.values()], on_cpu=on_cpu)
    assert found["max_loras"] == places


async def together(adapters: dict[str, Path]) -> dict[str, str]:
    models = await open_models("smollm2-135m", ModelOptions(dtype="float32"), adapters)
    try:
        told = await asyncio.gather(*(m.generate(ASKED, Sampling(max_tokens=24)) for m in models))
    finally:
        for model in models:
            await model.close()
    return {model.name: reply.text for model, reply in zip(models, told, strict=True)}


@pytest.mark.slow
def test_the_base_answers_beside_its_adapters_as_it_does_alone() -> None:
    alone = asyncio.run(together({}))
    beside = asyncio.run(together(ADAPTERS))
    assert beside["smollm2-135m"] == alone["smollm2-135m"]
    assert beside["smollm2-135m"] not in (beside["vanilla"], beside["derta"])
