"""The thread around vLLM's engine, with an engine that breaks; and adapters scored on the real one."""

import asyncio
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from harness.errors import ModelError
from harness.models import embedded, vllm
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.models.source import BUNDLED
from harness.models.vllm import MULTIPROCESSING, Engine, in_turn
from harness.types import Model, Prompt, Sampling


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


class Endless:
    """Takes requests and finishes none."""

    def add_request(self, *_: Any, **__: Any) -> None: ...

    def step(self) -> list[Any]:
        time.sleep(0.001)
        return []


def test_a_closed_engine_answers_everyone_who_waits_and_refuses_who_comes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vllm, "shut_down", lambda _: None)

    async def ask() -> list[Any]:
        engine = Engine("nowhere", ModelOptions())
        engine._engine = Endless()
        engine._thread = threading.Thread(target=engine._serve, daemon=True)
        engine._thread.start()
        first = [asyncio.ensure_future(engine.submit([1], None)) for _ in range(3)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(engine.stop)
        later = asyncio.ensure_future(engine.submit([1], None))
        return await asyncio.wait_for(asyncio.gather(*first, later, return_exceptions=True), 5)

    found = asyncio.run(ask())
    assert [type(error) for error in found] == [ModelError] * 4
    assert {str(error) for error in found} == {"the model was closed"}


@dataclass
class Alone:
    """Finishes each request at its third step; notes whether another was at work meanwhile."""

    at_work: ClassVar[set[int]] = set()
    overlaps: ClassVar[list[str]] = []
    asked: dict[str, int] = field(default_factory=dict)

    def work(self, what: str) -> None:
        if self.at_work:
            self.overlaps.append(what)
        self.at_work.add(id(self))
        time.sleep(0.002)
        self.at_work.discard(id(self))

    def add_request(self, name: str, *_: Any, **__: Any) -> None:
        self.work("add")
        self.asked[name] = 3

    def abort_request(self, names: list[str]) -> None:
        self.work("abort")
        for name in names:
            self.asked.pop(name, None)

    def step(self) -> list[Any]:
        self.work("step")
        self.asked = {name: left - 1 for name, left in self.asked.items() if left}
        return [SimpleNamespace(request_id=name, finished=not left) for name, left in self.asked.items()]


@pytest.mark.parametrize("here", [True, False])
def test_engines_in_one_process_work_one_at_a_time(here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MULTIPROCESSING, "0" if here else "1")
    monkeypatch.setattr(Alone, "overlaps", [])

    async def ask(engine: Engine) -> None:
        for _ in range(4):
            gone = asyncio.ensure_future(engine.submit([1], None))
            await asyncio.gather(*(engine.submit([1], None) for _ in range(3)))
            gone.cancel()

    async def both() -> None:
        engines = [Engine(name, ModelOptions()) for name in ("a", "b")]
        for engine in engines:
            engine._engine = Alone()
            engine._thread = threading.Thread(target=engine._serve, daemon=True)
            engine._thread.start()
        await asyncio.wait_for(asyncio.gather(*map(ask, engines)), 30)
        for engine in engines:
            assert engine._thread
            engine._inbox.put(None)
            engine._thread.join(5)

    asyncio.run(both())
    assert bool(Alone.overlaps) is not here


def test_engines_in_one_process_work_in_one_thread_first_come_first_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MULTIPROCESSING, "0")
    served: list[tuple[str, int]] = []
    begun, goes_on = threading.Event(), threading.Event()

    def work(name: str) -> None:
        begun.set()
        goes_on.wait(5)
        served.append((name, threading.get_ident()))

    threads = []
    for name in ("a", "b", "a again"):
        threads.append(threading.Thread(target=in_turn, args=(work, name), daemon=True))
        threads[-1].start()
        begun.wait(5)
        time.sleep(0.05)  # the next one comes later
    goes_on.set()
    for thread in threads:
        thread.join(5)
    assert [name for name, _ in served] == ["a", "b", "a again"]
    assert len({ident for _, ident in served}) == 1
    with pytest.raises(ZeroDivisionError):
        in_turn(lambda: 1 / 0)


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


def altered(folder: Path) -> Path:
    """The embedded checkpoint with some noise in its weights: the same shapes, other replies."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(embedded.ensure(), folder)
    weights, noise = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    for name in (name for name in weights if "down_proj" in name):
        values = weights[name].float()
        values += 0.05 * values.std() * torch.randn(values.shape, generator=noise)
        weights[name] = values.to(weights[name].dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.slow
def test_two_checkpoints_answer_at_once_as_each_does_alone_and_one_goes_on_when_the_other_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    options = ModelOptions(dtype="float32", max_model_len=512)

    async def ask(model: Model, text: str) -> list[str]:
        prompts = [Prompt.chat(text * (1 + 2 * i)) for i in range(5)]
        return [r.text for r in await asyncio.gather(*(model.generate(p, Sampling(max_tokens=20)) for p in prompts))]

    async def go() -> None:
        tea, river = "Write a line about tea. ", "Name a river in Europe, and say a word about it. "
        [first] = await open_models(embedded.NAME, options)
        alone = await ask(first, tea)
        [second] = await open_models(str(altered(tmp_path / "altered")), options)
        alone_too = await ask(second, river)
        for _ in range(2):
            assert await asyncio.gather(ask(first, tea), ask(second, river)) == [alone, alone_too]
        assert await ask(first, river) != alone_too
        await first.close()
        assert await ask(second, river) == alone_too
        await second.close()

    asyncio.run(go())
