"""Limits of an endpoint, on a clock that the tests move."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from harness.models.pace import Pace, backoff, told_to_wait


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def times(pace: Pace, clock: Clock, *tokens: int) -> list[float]:
    """When each request was sent, in seconds from the start."""

    async def send() -> list[float]:
        return [(await pace.turn(n))[0] - 1000.0 for n in tokens]

    return asyncio.run(send())


def test_no_minute_holds_more_requests_than_allowed() -> None:
    clock = Clock()
    # two at once, then the third when the first is a minute old, and so on
    assert times(Pace(requests=2, clock=clock, sleep=clock.sleep), clock, 1, 1, 1, 1, 1) == [0, 0, 60, 60, 120]


def test_no_minute_holds_more_tokens_than_allowed() -> None:
    clock = Clock()
    # 60 + 40 fill the first minute; 50 has to wait for the 60 to pass, which leaves room for the last 10 as well
    assert times(Pace(tokens=100, clock=clock, sleep=clock.sleep), clock, 60, 40, 50, 10) == [0, 0, 60, 60]


def test_a_request_larger_than_the_limit_goes_alone_instead_of_never() -> None:
    clock = Clock()
    assert times(Pace(tokens=100, clock=clock, sleep=clock.sleep), clock, 10, 500, 10) == [0, 60, 120]


def test_what_a_request_really_took_frees_the_rest() -> None:
    clock = Clock()
    pace = Pace(tokens=100, clock=clock, sleep=clock.sleep)

    async def send() -> float:
        entry = await pace.turn(90)
        pace.settle(entry, 20)
        return (await pace.turn(80))[0] - 1000.0

    assert asyncio.run(send()) == 0


def test_when_one_is_told_to_wait_all_wait() -> None:
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    pace.hold(7)
    pace.hold(3)  # a shorter word does not shorten the longer one
    assert times(pace, clock, 1, 1) == [7, 7]


def test_no_limit_never_waits() -> None:
    clock = Clock()
    assert times(Pace(clock=clock, sleep=clock.sleep), clock, *[10**9] * 50) == [0] * 50


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-4"}, 0),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert told_to_wait(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)
    told = told_to_wait({"retry-after": format_datetime(at, usegmt=True)})
    assert told is not None
    assert 85 < told <= 90


def test_waiting_grows_and_is_bounded() -> None:
    # 0.5 s doubled n times, at most 60, within a quarter either way
    assert 0.375 <= backoff(0) <= 0.625
    assert 45 <= backoff(20) <= 75
