"""Money: prices, and a limit that is never passed."""

import asyncio
from pathlib import Path

import pytest

from harness.errors import DataError, ModelError, ModelTimeout, OverBudget, UsageError
from harness.models.costs import HOME, Price, Purse, _read, price_of, size
from harness.types import Completion, Prompt

PROMPT = Prompt.chat("x" * 84)  # 84 bytes and 16 of overhead: at most 100 tokens
DOLLAR = Price(input=10_000.0, output=10_000.0)  # one cent a token


def reply(tokens_in: int, tokens_out: int) -> Completion:
    return Completion(text="", model="m", tokens_in=tokens_in, tokens_out=tokens_out)


async def pay(
    purse: Purse, max_tokens: int, *, used: int = 0, fails: Exception | None = None, lost: bool = False
) -> None:
    async with purse.paying(DOLLAR, PROMPT, max_tokens) as bill:
        await asyncio.sleep(0)
        bill.lost = lost
        if fails:
            raise fails
        bill.settled.append(reply(used, 0))


def test_a_price_is_found_by_name_by_dated_name_and_behind_a_hosts_prefix() -> None:
    gpt = price_of("gpt-4o")
    assert gpt is not None
    assert gpt == price_of("gpt-4o-2024-08-06") == price_of("openai/gpt-4o")
    assert price_of("claude-opus-4-5-20251101") == price_of("claude-opus-4-5")
    assert price_of("gpt-4o") != price_of("gpt-4o-mini")
    assert price_of("unheard-of") is None
    # 2 million in at 2.50 and 1 million out at 10.00
    assert gpt.cost(2_000_000, 1_000_000) == pytest.approx(15.0)


def test_every_bundled_price_says_when_it_was_seen_and_output_is_no_cheaper() -> None:
    for name, price in _read(HOME).items():
        assert price.seen[:2] == "20", name
        assert 0 < price.input <= price.output, name


def test_ones_own_price_wins_and_a_bad_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("gpt-4o: {input: 1, output: 2}\n")
    assert price_of("gpt-4o-2024-08-06", str(path)) == Price(input=1, output=2)
    assert price_of("gpt-4o-mini", str(path)) == price_of("gpt-4o-mini")
    (tmp_path / "bad.yaml").write_text("gpt-4o: 3\n")
    with pytest.raises(DataError, match="holds no prices"):
        price_of("gpt-4o", str(tmp_path / "bad.yaml"))
    with pytest.raises(UsageError, match="No such file"):
        price_of("gpt-4o", "/nowhere.yaml")


def test_a_limit_can_not_be_kept_without_a_price() -> None:
    with pytest.raises(UsageError, match="so --max-cost can't be kept"):
        Purse(limit=1.0).price("unheard-of")
    purse = Purse()
    assert purse.price("unheard-of") is None
    assert purse.told()["unknown"] == ["unheard-of"]


def test_a_prompt_is_counted_at_a_token_a_byte() -> None:
    assert size(PROMPT) == 100
    assert size(Prompt(text="é🎩")) == 2 + 4 + 16
    assert size(Prompt.chat("a", system="b", prefill="c")) == 3 * 17


def test_what_could_pass_the_limit_is_not_sent() -> None:
    """One cent a token. The dearest outcome of a request is 100 + 100 tokens: 2.00; a limit of 3.00 lets one go."""

    async def go() -> Purse:
        purse = Purse(limit=3.0)
        await pay(purse, 100, used=150)  # 1.50 spent, 1.50 left
        with pytest.raises(OverBudget, match="over budget"):
            await pay(purse, 100, used=1)
        await pay(purse, 40, used=10)  # at most 1.40: this one may still go
        return purse

    purse = asyncio.run(go())
    assert (purse.spent, purse.refused) == (pytest.approx(1.6), 1)


def test_requests_in_flight_wait_for_each_other_instead_of_being_refused() -> None:
    """Ten at once, each at most 2.00 and really 0.20: a limit of 2.50 holds one at a time, and three go in turn."""

    async def go() -> Purse:
        purse = Purse(limit=2.5)
        done = await asyncio.gather(*[pay(purse, 100, used=20) for _ in range(10)], return_exceptions=True)
        # after two, 0.40 is spent and the third can reach 2.40; after three it is 0.60, and the fourth could reach 2.60
        assert [isinstance(x, OverBudget) for x in done] == [False] * 3 + [True] * 7
        return purse

    purse = asyncio.run(go())
    assert purse.spent == pytest.approx(0.6)


def test_the_limit_holds_whatever_the_order_and_the_failures() -> None:
    """Random requests against a random limit; what an endpoint can have billed never passes it."""
    import random

    rng = random.Random(7)

    async def go() -> None:
        for _ in range(50):
            purse = Purse(limit=rng.uniform(0.5, 20))
            jobs = []
            for _ in range(30):
                longest = rng.randrange(1, 300)
                fails = rng.choice([None, None, ModelError("no"), ModelTimeout("late")])
                jobs.append(pay(purse, longest, used=rng.randrange(1, 100 + longest), fails=fails))
            await asyncio.gather(*jobs, return_exceptions=True)
            assert purse.spent <= purse.limit
            assert purse._aside == pytest.approx(0)

    asyncio.run(go())


def test_a_failure_costs_nothing_and_a_time_out_the_most_it_can_have_cost() -> None:
    async def go() -> Purse:
        purse = Purse()
        with pytest.raises(ModelError):
            await pay(purse, 100, fails=ModelError("no"))
        assert purse.spent == 0
        with pytest.raises(ModelTimeout):
            await pay(purse, 100, fails=ModelTimeout("late"), lost=True)
        return purse

    assert asyncio.run(go()).spent == pytest.approx(2.0)


def test_an_endpoint_that_does_not_count_is_charged_the_most() -> None:
    async def go() -> Purse:
        purse = Purse()
        await pay(purse, 100, used=0)
        return purse

    assert asyncio.run(go()).spent == pytest.approx(2.0)
