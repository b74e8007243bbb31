"""Batched decoding on tiny weights: what a row gets must not depend on its neighbours."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ModelError
from harness.models.decoding import Decoder, Row
from harness.models.hf import Transformers, Worker
from harness.models.options import ModelOptions
from harness.types import Prompt, Sampling
from tests.attacks_adaptive.tiny import model, tokenizer
from tests.models.toys import adapter, checkpoint

FAMILIES = ["llama", "qwen2", "mistral", "gemma2"]
PROMPTS = [[5], [7, 8, 9, 10, 11, 12], [40, 41, 42], list(range(60, 90))]


def decoder(family: str = "llama", ends: Sequence[int] = (), **more: Any) -> Decoder:
    tok = tokenizer()
    return Decoder(module=model(family, **more), decode=lambda ids: str(tok.decode(ids)), ends=frozenset(ends))


def rows(**settings: Any) -> list[Row]:
    return [Row(ids, Sampling(**settings), 12) for ids in PROMPTS]


def by_hand(module: Any, ids: Sequence[int], n: int) -> list[int]:
    """Greedy search one token at a time, the whole text read anew for each: no cache, no padding, no batch."""
    import torch

    out = list(ids)
    with torch.no_grad():
        for _ in range(n):
            out.append(int(module(torch.tensor([out])).logits[0, -1].argmax()))
    return out[len(ids) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_writes_what_greedy_search_by_hand_does(family: str) -> None:
    engine, batch = decoder(family), rows()
    engine.write(batch)
    assert [row.out for row in batch] == [by_hand(engine.module, ids, 12) for ids in PROMPTS]
    assert not any(row.stopped for row in batch)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_a_window_shorter_than_the_prompt_changes_nothing_about_that(family: str) -> None:
    engine, batch = decoder(family, sliding_window=8), rows()
    engine.write(batch)
    assert [row.out for row in batch] == [by_hand(engine.module, ids, 12) for ids in PROMPTS]


def test_rows_end_at_their_own_limit_and_their_own_end() -> None:
    engine = decoder()
    told = [by_hand(engine.module, ids, 12) for ids in PROMPTS]
    # each row's limit is another one, so that rows leave the batch one by one; row 1 ends at its fourth token
    end = told[1][3]
    engine = Decoder(module=engine.module, decode=engine.decode, ends=frozenset([end]))
    batch = [Row(ids, Sampling(), limit) for ids, limit in zip(PROMPTS, (1, 12, 5, 12), strict=True)]
    engine.write(batch)
    for row, whole, limit in zip(batch, told, (1, 12, 5, 12), strict=True):
        expected = whole[:limit]
        if end in expected:
            expected = expected[: expected.index(end) + 1]
        assert row.out == expected
        assert row.stopped == (row.out[-1] == end)


def test_a_row_that_nobody_waits_for_leaves_the_others_alone() -> None:
    engine, batch = decoder(), rows()
    batch[1].gone = lambda: True
    engine.write(batch)
    assert batch[1].out == []
    assert batch[3].out == by_hand(engine.module, PROMPTS[3], 12)


def test_a_drawn_reply_depends_on_its_seed_and_not_on_its_neighbours() -> None:
    engine = decoder()
    alone = [Row(ids, Sampling(temperature=1.0, top_p=0.9, seed=i), 12) for i, ids in enumerate(PROMPTS)]
    for row in alone:
        engine.write([row])
    together = [Row(ids, Sampling(temperature=1.0, top_p=0.9, seed=i), 12) for i, ids in enumerate(PROMPTS)]
    engine.write(together)
    assert [row.out for row in together] == [row.out for row in alone]
    other = Row(PROMPTS[0], Sampling(temperature=1.0, top_p=0.9, seed=99), 12)
    engine.write([other])
    assert other.out != alone[0].out


def test_a_tiny_nucleus_is_greedy() -> None:
    engine = decoder()
    row = Row(PROMPTS[1], Sampling(temperature=1.0, top_p=1e-9, seed=5), 12)
    engine.write([row])
    assert row.out == by_hand(engine.module, PROMPTS[1], 12)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_in_a_batch_are_those_of_a_single_pass(family: str) -> None:
    import torch

    engine = decoder(family)
    batch = [Row(ids, tail=min(2, len(ids) - 1) or 1) for ids in PROMPTS[1:]]
    for row, (total, greedy) in zip(batch, engine.score(batch), strict=True):
        with torch.no_grad():
            told = torch.log_softmax(engine.module(torch.tensor([list(row.ids)])).logits[0].float(), -1)
        at = range(len(row.ids) - row.tail, len(row.ids))
        assert total == pytest.approx(sum(float(told[i - 1, row.ids[i]]) for i in at), abs=1e-4)
        assert greedy == all(int(told[i - 1].argmax()) == row.ids[i] for i in at)


def test_alternatives_hold_the_chosen_token_and_sum_to_no_more_than_one() -> None:
    import math

    engine, row = decoder(), Row(PROMPTS[1], Sampling(logprobs=3), 6)
    engine.write([row])
    assert len(row.logprobs) == len(row.out) == 6
    for token, told in zip(row.out, row.logprobs, strict=True):
        assert max(told, key=lambda text: told[text]) == engine.decode([token])
        assert sum(math.exp(p) for p in told.values()) <= 1 + 1e-6


def opened(tmp_path: Path, **adapters: Path) -> list[Transformers]:
    at = checkpoint(tmp_path / "tiny")
    return Transformers.open("tiny", at, ModelOptions(dtype="float32"), adapters)


def test_requests_that_come_together_share_batches_and_answers_are_those_of_one_alone(tmp_path: Path) -> None:
    [one] = opened(tmp_path)
    prompts = [Prompt.chat("tell me how the trick is done " * n) for n in range(1, 9)]

    async def go() -> None:
        alone = [await one.generate(p, Sampling(max_tokens=8)) for p in prompts]
        before = len(one.worker.sizes)
        together = await asyncio.gather(*[one.generate(p, Sampling(max_tokens=8)) for p in prompts])
        assert [c.text for c in together] == [c.text for c in alone]
        assert [c.token_ends for c in together] == [c.token_ends for c in alone]
        assert all(c.token_ends[-1] == len(c.text) for c in together)
        assert not any(c.text.endswith("\ufffd") for c in together)
        assert len(one.worker.sizes) - before < len(prompts)
        await one.close()

    asyncio.run(go())


def test_a_stop_word_ends_a_reply_and_is_no_part_of_it(tmp_path: Path) -> None:
    [one] = opened(tmp_path)

    async def go() -> None:
        whole = await one.generate(Prompt.chat("ring"), Sampling(max_tokens=12))
        word = whole.text[3:5]
        cut = await one.generate(Prompt.chat("ring"), Sampling(max_tokens=12, stop=(word,)))
        assert cut.text == whole.text[: whole.text.index(word)]
        assert cut.finish == "stop"
        assert cut.tokens_out < whole.tokens_out
        await one.close()

    asyncio.run(go())


def test_what_does_not_fit_is_an_error_of_that_request_only(tmp_path: Path) -> None:
    at = checkpoint(tmp_path / "tiny")
    [one] = Transformers.open("tiny", at, ModelOptions(dtype="float32", max_model_len=40), {})

    async def go() -> None:
        long, short = Prompt(text="trick " * 200), Prompt(text="ring")
        answers = await asyncio.gather(
            one.generate(long, Sampling()), one.generate(short, Sampling(max_tokens=500)), return_exceptions=True
        )
        assert isinstance(answers[0], ModelError)
        assert not isinstance(answers[1], BaseException)
        assert answers[1].finish == "length"
        assert answers[1].tokens_in + answers[1].tokens_out == 40
        await one.close()

    asyncio.run(go())


def test_a_batch_that_runs_out_of_memory_is_split_and_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    [one] = opened(tmp_path)
    real = Worker._answers

    def scarce(worker: Worker, rows: Sequence[Row], adapter: str) -> Any:
        if len(rows) > 2:
            rows[0].out.append(3)  # a batch dies in the middle of its work
            raise torch.OutOfMemoryError("too much")
        return real(worker, rows, adapter)

    async def go() -> None:
        prompts = [Prompt(text=f"ring {i}") for i in range(7)]
        alone = [await one.generate(p, Sampling(max_tokens=5)) for p in prompts]
        monkeypatch.setattr(Worker, "_answers", scarce)
        together = await asyncio.gather(*[one.generate(p, Sampling(max_tokens=5)) for p in prompts])
        assert [c.text for c in together] == [c.text for c in alone]
        assert one.worker.batch <= 2
        await one.close()

    asyncio.run(go())


def test_what_a_batch_held_is_let_go_of_before_its_halves_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    import torch

    [one] = opened(tmp_path)
    real, held = Worker._answers, []

    def scarce(worker: Worker, rows: Sequence[Row], adapter: str) -> Any:
        cache = torch.zeros(8)
        assert not [ref for ref in held if ref() is not None]
        if len(rows) > 1:
            held.append(weakref.ref(cache))
            raise torch.OutOfMemoryError("too much")
        return real(worker, rows, adapter)

    async def go() -> None:
        monkeypatch.setattr(Worker, "_answers", scarce)
        told = await asyncio.gather(*[one.generate(Prompt(text=f"ring {i}"), Sampling(max_tokens=2)) for i in range(5)])
        assert (len(told), bool(held)) == (5, True)
        await one.close()

    asyncio.run(go())


def test_a_closed_model_answers_everyone_who_waits_and_refuses_who_comes_later(tmp_path: Path) -> None:
    [one] = opened(tmp_path)

    async def go() -> list[Any]:
        prompts = [Prompt(text=f"ring {i}") for i in range(80)]
        first = [asyncio.ensure_future(one.generate(p, Sampling(max_tokens=20))) for p in prompts]
        await asyncio.sleep(0.01)
        await one.close()
        told = await asyncio.wait_for(asyncio.gather(*first, return_exceptions=True), 30)
        row = Row([1, 2], Sampling(), 3)
        asked = one.worker.submit(row, ""), one.generate(prompts[0], Sampling()), one.loglikelihood(prompts[0], " a")
        later = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
        assert [type(error) for error in later] == [ModelError] * 3
        return told

    failed = [found for found in asyncio.run(go()) if isinstance(found, BaseException)]
    assert {str(error) for error in failed} <= {"the model was closed"}


def test_the_engines_time_is_shared_out_among_those_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    [one] = opened(tmp_path)
    real, spans = Worker._answers, []

    def timed(worker: Worker, rows: Sequence[Row], adapter: str) -> Any:
        began = time.perf_counter()
        found = real(worker, rows, adapter)
        time.sleep(0.2)
        spans.append(time.perf_counter() - began)
        return found

    async def go() -> float:
        monkeypatch.setattr(Worker, "_answers", timed)
        told = await asyncio.gather(*[one.generate(Prompt(text=f"r {i}"), Sampling(max_tokens=5)) for i in range(5)])
        await one.close()
        assert all(c.busy > 0 for c in told)
        return sum(c.busy for c in told)

    assert asyncio.run(go()) == pytest.approx(sum(spans), rel=0.1)


def test_what_breaks_in_the_thread_is_heard_and_the_thread_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [one] = opened(tmp_path)

    def broken(*_: Any) -> Any:
        raise KeyError("bug")

    async def go() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Worker, "_answers", broken)
            with pytest.raises(ModelError, match="transformers failed: KeyError"):
                await one.generate(Prompt(text="ring"), Sampling(max_tokens=2))
        assert (await one.generate(Prompt(text="ring"), Sampling(max_tokens=2))).tokens_out == 2
        await one.close()

    asyncio.run(go())


def test_base_and_adapters_answer_side_by_side_as_peft_alone_does(tmp_path: Path) -> None:
    """Two adapters of rank 96 and 8 beside their base; each answers as the base with that adapter merged into it."""
    import torch

    first, second = adapter(tmp_path / "first.v1"), adapter(tmp_path / "second", rank=8)
    base, one, two = opened(tmp_path, **{"first.v1": first, "second": second})
    assert [m.name for m in (base, one, two)] == ["tiny", "first.v1", "second"]
    prompt = Prompt(text="the ring floats")

    async def go() -> None:
        models = (base, one, two)
        told = await asyncio.gather(*[m.generate(prompt, Sampling(max_tokens=8)) for m in (*models, *models)])
        for m, a, b in zip(models, told[:3], told[3:], strict=True):
            assert a.text == b.text
            module, tok = m.weights()
            assert not any(p.requires_grad for p in module.parameters())
            with torch.no_grad():
                ids = tok.encode(prompt.text)
                assert a.text == tok.decode(by_hand(module, ids, 8), skip_special_tokens=True).rstrip("\ufffd")
        assert len({c.text for c in told}) == 3
        assert {m.describe()["adapter_sha"] for m in models} >= {""}
        await base.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("cpu", "fast"),
    [
        ("vendor_id : GenuineIntel\nflags : avx2", False),
        ("vendor_id : GenuineIntel\nflags : avx2 avx512_bf16", False),
        ("vendor_id : GenuineIntel\nflags : avx2 avx512_bf16 amx_bf16 amx_tile", True),
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512_bf16", True),
        ("vendor_id : AuthenticAMD\nflags : avx2", False),
    ],
)
def test_bf16_is_taken_where_the_cpu_multiplies_it_faster(
    cpu: str, fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.models import weights

    (tmp_path / "cpuinfo").write_text(cpu)
    monkeypatch.setattr(weights, "CPUINFO", tmp_path / "cpuinfo")
    assert weights.bf16_in_hardware() is fast
    monkeypatch.setattr(weights, "CPUINFO", tmp_path / "nothing")
    assert not weights.bf16_in_hardware()


@pytest.mark.slow
def test_gradients_are_taken_in_the_precision_that_the_cpu_is_fast_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from harness.models import weights

    at = checkpoint(tmp_path / "tiny")
    config = json.loads((at / "config.json").read_text())
    (at / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    for here, wanted in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(weights, "bf16_in_hardware", lambda here=here: here)
        module, _ = weights.load_weights(str(at), None, ModelOptions())
        assert module.dtype == wanted
    module, _ = weights.load_weights(str(at), None, ModelOptions(dtype="bfloat16"))
    assert module.dtype == torch.bfloat16
