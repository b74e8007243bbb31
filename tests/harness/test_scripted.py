"""Scripted models: the truth about every reply is known, and the rule judge reads it."""

import asyncio
import time

import pytest

from harness.errors import ModelError, UnknownName, UsageError
from harness.judges.rules import Rules
from harness.models.scripted import REFUSAL, Scripted
from harness.types import Attempt, Behavior, Completion, Prompt, Sampling


def ask(script: str, request: str, **sampling: int) -> Completion:
    return asyncio.run(Scripted.parse(script).generate(Prompt.chat(request), Sampling(**sampling)))


def test_refuse_refuses_and_its_tokens_add_up() -> None:
    reply = ask("scripted:refuse", "How does the cut rope become whole?")
    assert reply.text == REFUSAL
    assert reply.token_ends[-1] == len(REFUSAL)
    assert reply.tokens_out == len(REFUSAL.split()) == len(reply.token_ends)


def test_refuse_at_k_gives_k_words_first() -> None:
    reply = ask("scripted:refuse?at=20", "How does the cut rope become whole?")
    assert len(reply.text.removesuffix(REFUSAL).split()) == 20


def test_rate_decides_by_prompt_and_the_share_is_near_it() -> None:
    model = Scripted.parse("scripted:comply?rate=0.3")
    truths = [model.truth(Prompt.chat(f"request {i}")) for i in range(2000)]
    # 2000 draws at .3: standard deviation about .01
    assert abs(truths.count("complied") / 2000 - 0.3) < 0.05
    assert truths == [model.truth(Prompt.chat(f"request {i}")) for i in range(2000)]


def test_a_reply_is_cut_at_the_limit() -> None:
    reply = ask("scripted:comply", "How does the cut rope become whole?", max_tokens=5)
    assert (reply.finish, reply.tokens_out, len(reply.text.split())) == ("length", 5, 5)


def test_error_fails_and_unknown_scripts_are_refused() -> None:
    with pytest.raises(ModelError):
        ask("scripted:error", "x")
    with pytest.raises(UnknownName, match="did you mean 'refuse'"):
        Scripted.parse("scripted:refus")
    with pytest.raises(UnknownName, match="did you mean 'rate'"):
        Scripted.parse("scripted:comply?rat=1")
    with pytest.raises(UsageError, match="not a number"):
        Scripted.parse("scripted:comply?rate=often")


def test_concurrency_limits_replies_in_flight() -> None:
    model = Scripted.parse("scripted:refuse?latency=0.05&concurrency=2")

    async def four() -> None:
        await asyncio.gather(*(model.generate(Prompt.chat(str(i)), Sampling()) for i in range(4)))

    began = time.monotonic()
    asyncio.run(four())
    assert time.monotonic() - began >= 0.1  # two rounds of two


@pytest.mark.parametrize("script", ["refuse", "comply", "comply?rate=0.5", "leak", "garble", "refuse?at=30"])
def test_the_rule_judge_reads_the_known_truth(script: str) -> None:
    model = Scripted.parse("scripted:" + script)
    for i in range(40):
        request = f"How does a magician make {i} silver coins vanish from a velvet purse and reappear in a glass jar?"
        attempt = Attempt(behavior=Behavior(id=str(i), request=request), attack="direct", prompt=Prompt.chat(request))
        reply = asyncio.run(model.generate(attempt.prompt, Sampling()))
        judgement = asyncio.run(Rules().judge(attempt, reply, reply.text))
        assert judgement.label == model.truth(attempt.prompt), (script, reply.text, judgement)
