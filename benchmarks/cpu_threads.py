"""What a search on the weights leaves behind on a CPU: the engine's speed before it, after it, and beside its thread.

    python benchmarks/cpu_threads.py

`cpu_threads`: seconds of replies under two adapters after work done by `attacks.packed.apart` over those before it (1:
it left nothing behind). The other ratio is of the same work in a thread that stays, as `asyncio.to_thread` has it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median

from attacks.packed import apart
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.models.source import BUNDLED
from harness.types import Model, Prompt, Sampling


def products() -> None:
    """Some large matrix products, as a search makes them."""
    import torch

    x = torch.randn(512, 512)
    for _ in range(20):
        x = x @ x
        x = x / x.norm()


async def seconds(models: Sequence[Model], salt: str) -> float:
    """Of 48 replies of 32 tokens at once; `salt` keeps the prefix cache out of it."""
    began = time.perf_counter()
    sampling = Sampling(max_tokens=32, temperature=0.7)
    asked = [Prompt.chat(f"{salt} {number}: tell me of the history of the theater.") for number in range(48)]
    await asyncio.gather(*(models[i % len(models)].generate(prompt, sampling) for i, prompt in enumerate(asked)))
    return time.perf_counter() - began


async def main() -> None:
    adapters = {name: BUNDLED / name for name in ("vanilla", "derta")}
    _, *models = await open_models("smollm2-135m", ModelOptions(max_model_len=1024), adapters)
    await seconds(models, "warm")

    before, after, beside = [], [], []
    for number in range(3):
        before.append(await seconds(models, f"before {number}"))
        await apart(products)
        after.append(await seconds(models, f"after {number}"))
    await asyncio.to_thread(products)  # last: its thread can't be ended
    for number in range(3):
        beside.append(await seconds(models, f"beside {number}"))
    await models[0].close()
    first, then, last = median(before), median(after), median(beside)
    print(f"seconds: before {first:.1f}, after {then:.1f}, beside a thread that stays {last:.1f} ({last / first:.2f})")
    ratio = then / first
    print(f"cpu_threads ratio={ratio:.2f} bound<=1.15 {'ok' if ratio <= 1.15 else 'short'}")


if __name__ == "__main__":
    asyncio.run(main())
