"""Adapters in vLLM on a CPU: our LoRA products against vLLM's own, in one engine, in turns.

    python benchmarks/adapter_serving.py

`adapter_serving`: CPU seconds of prompts and replies under an adapter, ours over vLLM's own (less is better).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from harness.models import cpu_lora
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.models.source import BUNDLED
from harness.types import Model, Prompt, Sampling


async def spent(model: Model, salt: str) -> float:
    """CPU seconds of 16 requests of about 300 tokens and 16 new ones; `salt` keeps the prefix cache out of it."""
    began = time.process_time()
    text = "Tell me about the history of the theater. " * 30
    asked = [Prompt.chat(f"{salt} {number} {text}") for number in range(16)]
    await asyncio.gather(*(model.generate(prompt, Sampling(max_tokens=16)) for prompt in asked))
    return time.process_time() - began


async def main() -> None:
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    places: list[tuple[Any, str]] = [(module, name) for module in (lora_ops, punica_cpu) for name in cpu_lora.OWN]
    places.append((punica_cpu.PunicaWrapperCPU, "add_lora_linear"))
    theirs = [getattr(*place) for place in places]
    _, model = await open_models("smollm2-135m", ModelOptions(max_model_len=2048), {"derta": BUNDLED / "derta"})
    ours = [getattr(*place) for place in places]
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(3):
        for name, functions in (("ours", ours), ("theirs", theirs)):
            for (holder, function), value in zip(places, functions, strict=True):
                setattr(holder, function, value)
            seconds[name].append(await spent(model, f"{name} {turn}"))
    await model.close()
    best = {name: min(values) for name, values in seconds.items()}
    print(f"CPU seconds: ours {best['ours']:.1f}, vLLM's own {best['theirs']:.1f}")
    ratio = best["ours"] / best["theirs"]
    print(f"adapter_serving ratio={ratio:.3f} bound<=0.30 {'ok' if ratio <= 0.3 else 'short'}")


if __name__ == "__main__":
    asyncio.run(main())
