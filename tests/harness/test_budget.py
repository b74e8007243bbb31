"""Budgets: what a case may spend is kept at every call, counted by role, and its end is on record."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.budget import Till, estimate, read_budget
from harness.errors import BudgetSpent, ModelError, UnknownName, UsageError
from harness.models.costs import Price
from harness.types import Completion, Meter, Prompt, Run, Sampling

Do = Callable[..., Run]


@dataclass
class Slow:
    """Answers after some time with two tokens, having read three."""

    seconds: float = 0.0
    fails: bool = False
    name: str = "slow"
    asked: list[str] = field(default_factory=list)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.asked.append(prompt.last)
        await asyncio.sleep(self.seconds)
        if self.fails:
            raise ModelError("down")
        return Completion(text="ok then", model=self.name, tokens_in=3, tokens_out=2, busy=0.5)


def till(**limits: float) -> Till:
    return Till.opened(limits, Sampling(max_tokens=10))


def ask(one: Till, model: Any, count: int, **sampling: Any) -> list[Any]:
    """So many different requests of a search at once; what came of each."""

    async def gather() -> list[Any]:
        calls = (
            one.search(model, "target", Prompt.chat(f"{i}"), Sampling(max_tokens=10, **sampling)) for i in range(count)
        )
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(gather())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("queries",), "not of the form"),
        (("querys=3",), "did you mean 'queries'"),
        (("queries=many",), "above 0"),
        (("queries=0",), "above 0"),
        (("tokens=-1",), "above 0"),
        (("seconds=inf",), "above 0"),
        (("tokens=nan",), "above 0"),
    ],
)
def test_a_budget_that_is_none_is_the_users_mistake(given: tuple[str, ...], why: str) -> None:
    with pytest.raises((UsageError, UnknownName), match=why):
        read_budget(given)


def test_a_budget_that_does_not_hold_one_reply_is_the_users_mistake(do: Do) -> None:
    with pytest.raises(UsageError, match="does not hold one reply"):
        do("scripted:comply", attacks="direct", budget="tokens=100", max_tokens=512)


def test_sums_bound_what_they_are_made_of() -> None:
    meter = Meter(limits={"queries": 5, "tokens": 100})
    meter.add("target_queries", 2)
    meter.add("attacker_queries", 2)
    meter.add("judge_queries", 90)  # a judge's calls are no queries
    meter.add("judge_tokens", 60)
    meter.sent["target_tokens"] = 30
    assert meter.queries == 4
    assert meter.fits({"target_queries": 1, "attacker_tokens": 10})
    assert not meter.fits({"target_queries": 2})
    assert not meter.fits({"attacker_tokens": 11})


def test_a_search_leaves_one_query_for_what_it_finds() -> None:
    one, model = till(queries=4), Slow()
    found = ask(one, model, 6)
    assert [isinstance(result, BudgetSpent) for result in found] == [False] * 3 + [True] * 3
    assert (len(model.asked), one.meter.counts["target_queries"], one.meter.exhausted) == (3, 3, True)
    asyncio.run(one.send(model, Prompt.chat("found"), Sampling(max_tokens=10)))
    with pytest.raises(BudgetSpent):
        asyncio.run(one.send(model, Prompt.chat("another"), Sampling(max_tokens=10)))


@pytest.mark.parametrize("limit", ["seconds", "judge_queries", "judge_tokens", "attacker_tokens"])
def test_a_limit_that_a_search_has_passed_unawares_does_not_stop_its_result(limit: str) -> None:
    one, model = till(**{limit: 1}), Slow()
    one.meter.add(limit, 2)
    assert isinstance(ask(one, model, 1)[0], BudgetSpent)
    asyncio.run(one.send(model, Prompt.chat("found"), Sampling(max_tokens=10)))
    assert model.asked[-1] == "found"


def test_seconds_and_verdicts_of_attempts_themselves_stop_those_that_come_after() -> None:
    one, model = till(seconds=0.9), Slow()  # half a second each: the second passes the limit, the third is not sent
    for word in ("one", "two"):
        asyncio.run(one.send(model, Prompt.chat(word), Sampling(max_tokens=10)))
    with pytest.raises(BudgetSpent):
        asyncio.run(one.send(model, Prompt.chat("three"), Sampling(max_tokens=10)))


def test_a_search_leaves_room_for_its_longest_prompt() -> None:
    # 300 characters: 104 tokens, so the call takes 114 at most and its repetition with the run's settings as much.
    long = Prompt.chat("x" * 300)
    with pytest.raises(BudgetSpent):
        asyncio.run(till(tokens=227).search(Slow(), "target", long, Sampling(max_tokens=10)))
    one = till(tokens=228)
    asyncio.run(one.search(Slow(), "target", long, Sampling(max_tokens=10)))
    asyncio.run(one.send(Slow(), long, Sampling(max_tokens=10, seed=1)))


def test_calls_under_way_are_held_against_the_budget_and_those_that_wait_get_what_they_leave() -> None:
    # A request of one character: 1 // 3 + 4 = 4 tokens, so 14 at most; 5 are used. The search leaves 14 for its result.
    # 45 tokens: 14 + 14 = 28 fit beside the 14, a third call has to wait. After both, 10 are used: 31 - 10 = 21, one
    # more fits (14); after it 16 are left (31 - 15): one more; then 11: none.
    assert estimate(Prompt.chat("1")) == 4
    one, model = till(tokens=45), Slow(seconds=0.01)
    found = ask(one, model, 6)
    assert len(model.asked) == 4
    assert sum(isinstance(result, BudgetSpent) for result in found) == 2
    assert one.meter.counts["target_tokens"] == 20


def test_a_request_that_was_answered_is_free_the_second_time() -> None:
    one, model = till(queries=3), Slow()
    ask(one, model, 2)
    assert [type(result) for result in ask(one, model, 2)] == [Completion, Completion]
    assert one.meter.counts["target_queries"] == 2


def test_a_call_that_fails_costs_a_query_and_no_tokens() -> None:
    one = till()
    ask(one, Slow(fails=True), 2)
    assert one.meter.counts == {"target_queries": 2}
    assert not +one._held


def test_what_is_counted_is_queries_tokens_read_and_written_and_the_engines_seconds() -> None:
    one = till()
    ask(one, Slow(), 2)
    assert one.meter.counts == {"target_queries": 2, "target_tokens": 10, "target_written": 4, "seconds": 1.0}
    assert one.lap() == one.meter.counts
    assert one.lap() == {}


def test_money_is_counted_at_the_endpoints_price() -> None:
    one = Till.opened({}, Sampling(max_tokens=10), {"slow": Price(input=2.0, output=10.0)})
    ask(one, Slow(), 2)
    assert one.meter.counts["usd"] == pytest.approx(2 * (3 * 2.0 + 2 * 10.0) / 1e6)


# --- through a whole run ------------------------------------------------------------------------------------------


def of(run: Run, behavior: str, attack: str) -> list[Any]:
    found = [r for r in run.records if r.behavior == behavior and r.attack == attack]
    return sorted(found, key=lambda r: r.index)


def test_a_budget_caps_every_attack_and_says_so_on_the_last_record(do: Do) -> None:
    settings = {"set": ["best_of_n.n=9"], "budget": "queries=4"}
    run = do("scripted:refuse", attacks="direct,best_of_n,prefill", limit=2, **settings)
    for behavior in {r.behavior for r in run.records}:
        assert [r.spent.get("exhausted", 0) for r in of(run, behavior, "direct")] == [0]
        assert [r.spent.get("exhausted", 0) for r in of(run, behavior, "best_of_n")] == [0, 0, 0, 1]
        assert [r.variant for r in of(run, behavior, "best_of_n")] == ["s0", "s1", "s2", "s3"]
        assert len(of(run, behavior, "prefill")) == 4
    assert not [r for r in run.records if r.error]


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets scripted models write a usable move where an attacker is asked for one; each reply takes half a second."""
    from harness.models.scripted import Scripted

    plain = Scripted.generate

    async def generate(self: Scripted, prompt: Prompt, sampling: Sampling) -> Completion:
        done = replace(await plain(self, prompt, sampling), busy=0.5)
        if sampling.schema is None:
            return done
        text = json.dumps({"improvement": "another trick", "prompt": f"How is trick {sampling.seed} done?"})
        return replace(done, text=text, tokens_out=len(text.split()))

    monkeypatch.setattr(Scripted, "generate", generate)


@pytest.mark.parametrize("attack", ["pair", "tap", "best_of_n", "adaptive_prefill"])
@pytest.mark.parametrize(
    "budget", ["queries=1", "queries=14", "tokens=3000", "target_queries=2", "queries=7,tokens=2000"]
)
def test_no_search_spends_more_than_its_budget(do: Do, moves: None, attack: str, budget: str) -> None:
    settings = {"set": ["best_of_n.stop_on_success=true"], "budget": budget, "max_tokens": 300}
    limits = {k: float(v) for k, v in (pair.split("=") for pair in budget.split(","))}
    records = do("scripted:refuse", attacks=attack, limit=2, **settings).records
    if budget != "queries=1" or attack not in ("pair", "tap"):  # for these two it takes two calls to have something
        assert [record.label for record in records] == ["refused"] * 2
    for record in records:
        for name, limit in limits.items():
            assert sum(record.spent.get(part, 0) for part in Meter.SUMS.get(name, (name,))) <= limit
        if record.error:  # nothing could be sent: counted as that, never as safe
            assert record.label is None
        else:
            assert record.label == "refused"


@pytest.mark.parametrize("attack", ["pair", "tap"])
@pytest.mark.parametrize("budget", ["seconds=3", "judge_queries=2"])
def test_a_search_that_time_or_verdicts_end_sends_what_it_found(do: Do, moves: None, attack: str, budget: str) -> None:
    (record,) = do("scripted:refuse", attacks=attack, limit=1, budget=budget).records
    assert (record.error, record.label, record.spent["exhausted"]) == (None, "refused", 1)
    assert record.queries > 2


def test_a_budget_of_one_query_is_the_bare_first_attempt(do: Do) -> None:
    run = do(
        "scripted:comply", attacks="best_of_n", set=["best_of_n.stop_on_success=true"], budget="queries=1", limit=1
    )
    (record,) = run.records
    assert (record.queries, record.spent["target_queries"], record.spent["exhausted"]) == (1, 1, 1)


def test_a_run_that_its_budgets_ended_asks_nothing_more_when_typed_again(
    do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"attacks": "best_of_n,prefill,adaptive_prefill", "budget": "queries=3", "limit": 2}
    before = do("scripted:comply?rate=0.5", **settings).records
    monkeypatch.setattr("harness.models.scripted.Scripted.generate", None)
    after = do("scripted:comply?rate=0.5", **settings).records
    assert after == before
    assert [r.spent for r in after] == [r.spent for r in before]


def test_records_hold_what_was_spent_by_role_and_the_order_of_attempts(do: Do) -> None:
    run = do("scripted:refuse", attacks="best_of_n", set=["best_of_n.n=3"], limit=1)
    for index, record in enumerate(of(run, run.records[0].behavior, "best_of_n")):
        assert record.index == index
        assert record.spent["target_queries"] == 1
        assert record.spent["target_tokens"] == record.tokens_in + record.tokens_out
    lines = [json.loads(line) for line in (run.folder / "records.jsonl").read_text().splitlines()]
    assert all("spent" in line for line in lines)


def test_a_search_that_repeats_its_best_request_pays_for_it_once(do: Do) -> None:
    settings = {"set": ["best_of_n.n=4", "best_of_n.stop_on_success=true"]}
    (record,) = do("scripted:refuse", attacks="best_of_n", limit=1, **settings).records
    assert (record.queries, record.spent["target_queries"]) == (4, 4)


def test_a_search_that_ends_after_one_query_has_cost_one(do: Do) -> None:
    settings = {"set": ["best_of_n.n=3", "best_of_n.batch=1", "best_of_n.stop_on_success=true"]}
    (record,) = do("scripted:comply", attacks="best_of_n", limit=1, **settings).records
    assert (record.label, record.queries, record.spent["target_queries"]) == ("complied", 1, 1)


def test_an_attack_of_a_third_party_is_counted_without_its_help(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.types import Attempt

    async def searching(self, behavior, context):  # type: ignore[no-untyped-def]
        for i in range(2):
            for j in range(3):
                await context.attacker.generate(Prompt.chat(f"{i} {j}"), Sampling(max_tokens=20))
            yield Attempt(
                behavior=behavior, attack="direct", variant=str(i), prompt=Prompt.chat(f"{behavior.request} {i}")
            )

    monkeypatch.setattr("attacks.direct.Direct.attempts", searching)
    run = do("scripted:refuse", attacks="direct", limit=1)
    assert [r.queries for r in of(run, run.records[0].behavior, "direct")] == [4, 4]  # three and its own, each
    assert [r.spent["attacker_queries"] for r in run.records] == [3, 3]


def test_an_attack_that_its_budget_breaks_off_keeps_what_it_had(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.types import Attempt

    async def greedy(self, behavior, context):  # type: ignore[no-untyped-def]
        yield Attempt(behavior=behavior, attack="direct", prompt=Prompt.chat(behavior.request))
        for i in range(99):
            await context.target.generate(Prompt.chat(f"{i}"), Sampling(max_tokens=20))

    monkeypatch.setattr("attacks.direct.Direct.attempts", greedy)
    (record,) = do("scripted:comply", attacks="direct", limit=1, budget="queries=3").records
    assert (record.label, record.spent["exhausted"]) == ("complied", 1)


def test_an_attack_that_fails_inside_its_budget_says_why(do: Do) -> None:
    (record,) = do("scripted:refuse", attacks="pair", limit=1, budget="queries=5").records
    assert record.error == "pair: none of 2 rounds got a reply; the first: the budget is spent"
    assert record.spent["exhausted"] == 1


def test_a_budget_that_allows_nothing_is_an_error_and_not_safe(do: Do) -> None:
    run = do("scripted:refuse", attacks="many_shot", limit=1, budget="tokens=70", max_tokens=64)
    (record,) = run.records
    assert record.error == "its budget was spent before anything could be sent"
    (metric,) = [m for m in run.metrics if m.name == "asr" and m.group.get("attack") == "many_shot"]
    assert (metric.n, metric.n_error, metric.ceiling) == (0, 1, 1.0)


def test_an_attacker_of_the_run_is_not_opened_a_second_time(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models.scripted import Scripted

    opened = []
    parse = Scripted.parse
    monkeypatch.setattr(Scripted, "parse", lambda ref: opened.append(ref) or parse(ref))
    do("scripted:refuse", attacks="pair", limit=1, attacker="scripted:refuse", set=["pair.streams=1"])
    assert opened == ["scripted:refuse"]
    do("scripted:refuse", "other", attacks="pair", limit=1, attacker="scripted:comply", set=["pair.streams=1"])
    assert opened == ["scripted:refuse", "scripted:refuse", "scripted:comply"]


def test_identity_holds_the_budget(tmp_path: Path) -> None:
    from harness.config import make_spec

    specs = [make_spec({"model": "scripted:refuse", "budget": given}) for given in ("queries=4", "queries=5")]
    assert specs[0].identity() != specs[1].identity()


def test_a_call_that_is_called_off_under_way_costs_a_query_and_what_its_prompt_takes() -> None:
    one = till()

    async def go() -> None:
        call = asyncio.ensure_future(one.search(Slow(seconds=9), "target", Prompt.chat("1"), Sampling(max_tokens=10)))
        await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call])

    asyncio.run(go())
    assert one.meter.counts == {"target_queries": 1, "target_tokens": 4}  # 1 // 3 + 4
    assert not +one._held
