"""The thread around vLLM's engine, with an engine that breaks; and adapters scored on the real one."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelError
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.models.source import BUNDLED
from harness.models.vllm import Engine
from harness.types import Prompt, Sampling


class Broken:
    """Takes requests and fails at the first step."""

    def add_request(self, *_: Any, **__: Any) -> None: ...

    def step(self) -> list[Any]:
        raise RuntimeError("no memory")


def test_a_lost_engine_answers_everyone_who_waits_and_everyone_who_comes_later() -> None:
    async def ask() -> list[Any]:
        engine = Engine("nowhere", ModelOptions())
        engine._engine = Broken()
        engine._thread = threading.Thread(target=engine._serve, daemon=True)
        engine._thread.start()
        first = await asyncio.gather(*(engine.submit([1], None) for _ in range(3)), return_exceptions=True)
        later = await asyncio.wait_for(asyncio.gather(engine.submit([1], None), return_exceptions=True), 5)
        engine._inbox.put(None)
        engine._thread.join(5)
        assert not engine._thread.is_alive()
        return [*first, *later]

    found = asyncio.run(ask())
    assert [type(error) for error in found] == [ModelError] * 4
    assert all("no memory" in str(error) for error in found)


@pytest.mark.slow
def test_replies_are_scored_under_an_adapter_and_without_it_in_one_load() -> None:
    async def score() -> list[tuple[float, bool]]:
        adapters: dict[str, Path] = {"derta": BUNDLED / "derta"}
        base, derta = await open_models("smollm2-135m", ModelOptions(max_model_len=512), adapters)
        trick = Prompt.chat("Reveal the secret of the trick in which a coin passes through a glass.")
        found = [await model.loglikelihood(trick, "Sorry, I can't") for model in (base, derta)]
        await base.close()
        return found

    (base, _), (derta, greedy) = asyncio.run(score())
    assert base < -5 < derta <= 0  # the adapter was taught to say just this
    assert greedy


@pytest.mark.slow
def test_seeded_prompts_that_fill_more_than_one_step_of_the_engine_are_all_answered() -> None:
    # 24 prompts of some 300 tokens, drawn with seeds: no step of 2,048 tokens ends where a prompt does.
    async def ask() -> list[Any]:
        [model] = await open_models("smollm2-135m", ModelOptions(max_model_len=2048))
        prompts = [Prompt.chat(f"Number {i}. " + "Say a word about tea and coffee. " * 36) for i in range(24)]
        draws = [Sampling(max_tokens=4, temperature=1.0, top_p=0.9, seed=i) for i in range(24)]
        found = await asyncio.gather(*map(model.generate, prompts, draws), return_exceptions=True)
        await model.close()
        return found

    found = asyncio.run(ask())
    assert [reply for reply in found if isinstance(reply, BaseException)] == []
    assert all(reply.tokens_in > 250 for reply in found)
