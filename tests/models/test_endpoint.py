"""API models: limits, waiting when told to, refused settings, and money that never passes its limit."""

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.config import make_spec
from harness.engine import run
from harness.errors import ModelError, UsageError
from harness.manifest import Manifest
from harness.models import openai as api
from harness.models.costs import Price, Purse, size
from harness.models.openai import OpenAI
from harness.models.options import ModelOptions
from harness.models.providers import Provider, provider, providers
from harness.plan import open_helper
from harness.scoring import judge_spec
from harness.types import Prompt, Run, Sampling
from tests.models.endpoint import Endpoint, error, serving

HELLO = Prompt.chat("hello")


def asking(
    endpoint: Endpoint, n: int = 1, sampling: Sampling | None = None, **settings: Any
) -> tuple[OpenAI, list[Any]]:
    """The model, and what came of `n` requests at once."""

    async def go() -> tuple[OpenAI, list[Any]]:
        model = await OpenAI.open("served", ModelOptions(base_url=endpoint.url, **settings))
        told = sampling or Sampling(max_tokens=5)
        try:
            jobs = [model.generate(Prompt.chat(f"hello {i}"), told) for i in range(n)]
            return model, await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            await model.close()

    return asyncio.run(go())


def test_when_one_request_is_told_to_wait_none_is_sent_before_and_all_succeed() -> None:
    with serving(answer=lambda body, n: error(429, retry_after=1) if n == 0 else None) as endpoint:
        _, told = asking(endpoint, 6, concurrency=1)
    assert [c.text for c in told] == ["I can't."] * 6
    assert len(endpoint.asked) == 7
    assert endpoint.at[1] - endpoint.at[0] >= 1.0


def test_a_busy_endpoint_is_tried_again_and_a_broken_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "backoff", lambda tries: 0.01)
    with serving(answer=lambda body, n: error(503) if n < 3 else None) as endpoint:
        _, [told] = asking(endpoint)
        assert told.text == "I can't."
        assert len(endpoint.asked) == 4
    with serving(answer=lambda body, n: error(404)) as endpoint:
        _, [told] = asking(endpoint)
        assert isinstance(told, ModelError)
        assert str(told) == "the endpoint answered 404"
        assert len(endpoint.asked) == 1


def test_an_endpoint_that_stays_busy_is_given_up_and_says_how_long_it_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "TRIES", 3)
    with serving(answer=lambda body, n: error(429, retry_after="0.01")) as endpoint:
        _, [told] = asking(endpoint)
    assert isinstance(told, ModelError)
    assert (str(told), told.retry_after, len(endpoint.asked)) == ("the endpoint answered 429", 0.01, 3)


def test_a_wait_of_hours_is_not_waited_for() -> None:
    with serving(answer=lambda body, n: error(429, retry_after=7200)) as endpoint:
        _, [told] = asking(endpoint)
    assert isinstance(told, ModelError)
    assert told.retry_after == 7200


@pytest.mark.parametrize(
    ("status", "code", "why"),
    [(401, None, "refuses the key"), (403, None, "refuses the key"), (429, "insufficient_quota", "no credit")],
)
def test_what_waiting_can_not_mend_stops_the_run_at_once(status: int, code: str | None, why: str) -> None:
    with serving(answer=lambda body, n: error(status, code=code)) as endpoint:
        _, [told] = asking(endpoint)
    assert isinstance(told, UsageError)
    assert why in str(told)
    assert len(endpoint.asked) == 1


def test_a_403_for_what_was_asked_is_one_failed_request() -> None:
    """At the very first request it has to say so; once one was answered, the key is known to be good."""
    why = {"reasons": ["test"], "flagged_input": "hel...", "provider_name": "p", "model_slug": "m"}
    with serving(answer=lambda body, n: error(403, metadata=why) if n == 0 else None) as endpoint:
        _, told = asking(endpoint, 3, concurrency=1)
    assert [str(t) for t in told if isinstance(t, ModelError)] == ["the endpoint answered 403"]
    assert [c.text for c in told if not isinstance(c, Exception)] == ["I can't."] * 2
    with serving(answer=lambda body, n: error(403) if n == 1 else error(401) if n == 3 else None) as endpoint:
        _, told = asking(endpoint, 4, concurrency=1)
    assert [type(t) for t in told if isinstance(t, Exception)] == [ModelError, UsageError]


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_page_that_is_no_json_is_a_failed_request_and_a_usage_error_at_opening(kind: str) -> None:
    """As a proxy's sign-in page, or an address without its /v1, under either content type."""
    page = (200, {"Content-Type": kind}, "<html>sign in</html>")
    with serving(answer=lambda body, n: page) as endpoint:
        _, [told] = asking(endpoint)
    assert isinstance(told, ModelError)
    assert str(told) == "the endpoint answered no JSON"
    with serving(listing=page) as endpoint, pytest.raises(UsageError, match="no JSON that lists its models") as caught:
        asking(endpoint)
    assert "/v1" in caught.value.hint


def test_a_setting_that_a_model_refuses_is_left_out_from_then_on_and_said() -> None:
    """As models that reason do: no max_tokens but its newer name, and no temperature but their own."""

    def picky(body: dict[str, Any], n: int) -> Any:
        if "max_tokens" in body:
            text = "Unsupported parameter: 'max_tokens' is not supported with this model."
            return error(400, text, param="max_tokens", code="unsupported_parameter")
        if "temperature" in body:
            text = "Unsupported value: 'temperature' does not support 0 with this model."
            return error(400, text, param="temperature", code="unsupported_value")
        return None

    with serving(answer=picky) as endpoint:
        model, told = asking(endpoint, 4, concurrency=1)
    assert [c.text for c in told] == ["I can't."] * 4
    assert len(endpoint.asked) == 2 + 4
    assert endpoint.asked[-1]["max_completion_tokens"] == 5
    assert model.describe()["left_out"] == ["max_tokens", "temperature"]
    assert model.notes == ("served refuses the setting temperature: replies are drawn with the endpoint's own",)


def test_a_setting_that_is_refused_of_many_requests_at_once_loses_none_of_them() -> None:
    """All eight are sent with it before the first is refused: each goes again without, and it is said once."""
    together = threading.Barrier(8)

    def picky(body: dict[str, Any], n: int) -> Any:
        if n < 8:
            together.wait(timeout=10)
        if "temperature" in body:
            return error(400, "'temperature' is not supported with this model", param="temperature")
        return None

    with serving(answer=picky) as endpoint:
        model, told = asking(endpoint, 8, concurrency=8)
    assert [getattr(c, "text", c) for c in told] == ["I can't."] * 8
    assert len(endpoint.asked) == 8 + 8
    assert len(model.notes) == 1


def test_a_request_that_is_really_wrong_is_not_sent_in_circles() -> None:
    with serving(answer=lambda body, n: error(400, "the prompt is too long")) as endpoint:
        _, [told] = asking(endpoint)
    assert str(told) == "the endpoint answered 400"
    assert len(endpoint.asked) == 1


def test_the_key_is_sent_to_the_endpoint_and_is_in_nothing_a_run_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with serving(answer=lambda body, n: error(500, "sk-very-secret") if n % 2 else None) as endpoint:
        monkeypatch.setattr(api, "TRIES", 1)
        done = spending(endpoint, tmp_path, api_key_env="MY_KEY")
    assert set(endpoint.keys) == {"Bearer sk-very-secret"}
    assert any(r.error for r in done.records)
    for path in done.folder.iterdir():
        assert b"sk-very-secret" not in path.read_bytes(), path.name


def test_a_login_in_an_address_is_in_nothing_a_run_keeps_or_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as endpoint:
        mine, yours = (endpoint.url.replace("//", f"//user:very-{n}@secret@") for n in (1, 2))
        helpers = {"judge": "rules,llm", "judge_model": "served", "judge_base_url": yours}
        helpers |= {"attacker": "served", "attacker_base_url": yours}
        monkeypatch.setattr("sys.argv", ["harness", "run", f"--judge-base-url={yours}", "--base-url", mine])
        done = spending(replace(endpoint, url=mine), tmp_path, limit=1, **helpers)
        again = spending(replace(endpoint, url=endpoint.url), tmp_path, limit=1, **helpers)
    assert done.info["spec"]["judge_base_url"] == done.info["judges"]["llm"]["model"]["base_url"] == endpoint.url
    assert done.info["command"] == f"harness run --judge-base-url={endpoint.url} --base-url {endpoint.url}"
    assert again.info["identity"] == done.info["identity"]
    for path in done.folder.iterdir():
        assert not any(word in path.read_bytes() for word in (b"very-", b"secret")), path.name
    with pytest.raises(UsageError, match="can't be reached") as caught:  # nobody serves it any more
        spending(replace(endpoint, url=mine), tmp_path, fresh=True)
    assert "secret" not in str(caught.value)
    with pytest.raises(UsageError, match="is an address") as caught:
        spending(replace(endpoint, url=mine), tmp_path, fresh=True, model=mine)
    assert "secret" not in str(caught.value)
    with pytest.raises(SystemExit):
        cli.fail(f"{mine} can't be reached", f"try {yours}?key=secret")
    assert "secret" not in capsys.readouterr().err


def test_a_named_key_goes_to_the_host_it_was_named_for_and_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target is at one server; the judge is a known host, or behind a URL of its own."""
    for name in ("MY_KEY", "OPENAI_API_KEY", "THEIR_KEY", "ELSEWHERE_API_KEY"):
        monkeypatch.setenv(name, name.lower())
    with serving() as mine, serving() as yours:
        host = Provider(name="elsewhere", base_url=yours.url, key="ELSEWHERE_API_KEY")
        monkeypatch.setitem(providers(), "elsewhere", host)

        def key(endpoint: Endpoint, role: str, model: str, **settings: str) -> str:
            names = {"judge": "judge_model", "attacker": "attacker", "reference": "reference"}
            target = {"model": "m", "base_url": mine.url, "api_key_env": "MY_KEY"}
            told = make_spec({**target, names[role]: model, **{f"{role}_{k}": v for k, v in settings.items()}})

            async def go() -> None:
                helper = await open_helper(role, told)  # type: ignore[arg-type]
                await helper.generate(HELLO, Sampling(max_tokens=5))
                await helper.close()

            asyncio.run(go())
            return endpoint.keys[-1].removeprefix("Bearer ")

        for role in ("judge", "attacker", "reference"):
            assert key(yours, role, "elsewhere/big") == "elsewhere_api_key"
            assert key(yours, role, "elsewhere/big", api_key_env="THEIR_KEY") == "their_key"
            assert key(yours, role, "served", base_url=yours.url) == "none"
            assert key(yours, role, "served", base_url=yours.url, api_key_env="THEIR_KEY") == "their_key"
            assert key(mine, role, "served", base_url=mine.url) == "my_key"
    assert "Bearer my_key" not in yours.keys


def test_the_judge_of_a_run_that_is_read_again_gets_the_key_of_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when labels are scored by the run's own judge: by default the target itself, at the target's host."""
    monkeypatch.setenv("MY_KEY", "my_key")
    with serving() as mine, serving() as yours:
        for judge, key in (({}, "my_key"), ({"judge_model": "served", "judge_base_url": yours.url}, "none")):
            told = {"model": "served", "base_url": mine.url, "api_key_env": "MY_KEY", **judge}
            model = asyncio.run(open_helper("judge", judge_spec(told)))
            assert isinstance(model, OpenAI)
            assert model._client.api_key == key


def spending(endpoint: Endpoint, tmp_path: Path, fresh: bool = False, **settings: Any) -> Run:
    """A run of eight behaviors, asked directly."""
    rows = [{"id": f"t{i}", "request": f"How is trick {i} done?"} for i in range(8)]
    (tmp_path / "tricks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"model": "served", "base_url": endpoint.url, "attacks": "direct", "tasks": "none", "overrefusal": "none"}
    given |= {"behaviors": str(tmp_path / "tricks.jsonl"), "max_tokens": 20, **settings}
    return run(make_spec(given), tmp_path / "run", fresh=fresh)


def priced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A price file, and loopback treated as any other host: one dollar a token."""
    monkeypatch.setattr(api, "urlsplit", lambda url: type("Url", (), {"hostname": "api.example"}))
    (tmp_path / "prices.yaml").write_text("served: {input: 1000000, output: 1000000}\n")
    return str(tmp_path / "prices.yaml")


def test_a_run_stops_before_its_money_is_gone_stays_partial_and_goes_on_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply costs 10 + 5 dollars. A request is "How is trick 0 done?" (20 bytes, 16 of overhead) and 20 tokens of
    reply: at most 56. With 100 dollars a fourth is sent when 45 are spent (101 > 100: no), so three are: 45.
    """
    prices = priced(monkeypatch, tmp_path)
    with serving() as endpoint:
        done = spending(endpoint, tmp_path, prices=prices, max_cost=100)
        assert len(endpoint.asked) == 3
        assert done.info["status"] == "partial"
        errors = [r.error for r in done.records if r.error]
        assert errors == ["over budget: it could pass --max-cost 100"] * 5
        assert done.info["budget"]["cost_usd"] == 45
        assert done.info["cost"]["refused"] == 5
        assert any("5 requests were not sent" in note for note in done.info["notes"])

        # the same command again spends what little is left, and no more: nothing fits
        again = spending(endpoint, tmp_path, prices=prices, max_cost=100)
        assert (len(endpoint.asked), again.info["budget"]["cost_usd"]) == (3, 45)

        more = spending(endpoint, tmp_path, prices=prices, max_cost=1000)
        assert len(endpoint.asked) == 8
        assert more.info["status"] == "complete"
        assert more.info["budget"]["cost_usd"] == 8 * 15
        assert not [r for r in more.records if r.error]


@pytest.mark.parametrize(
    ("choices", "usage", "cost", "why"),
    [
        ([{"index": 0, "message": {"role": "assistant", "content": None}}], (10, 5), 15, "without text"),
        ([{"index": 0, "message": {"role": "assistant", "content": None}}], None, 28, "without text"),
        ([], (10, 5), 15, "without a choice"),
        (None, None, 0, "without a choice"),
    ],
)
def test_a_reply_of_no_use_is_paid_for_all_the_same(
    choices: Any, usage: Any, cost: float, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One dollar a token. Where it says no usage, a reply costs its most: "hello 0" (7 bytes, 16 of overhead) and 5
    tokens, 28; without choices and usage there was no reply.
    """
    prices = priced(monkeypatch, tmp_path)
    body: dict[str, Any] = {} if choices is None else {"choices": choices}
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    purse = Purse(prices=prices)
    with serving(answer=lambda _, n: (200, {}, body)) as endpoint:
        _, [told] = asking(endpoint, purse=purse)
    assert isinstance(told, ModelError)
    assert why in str(told)
    assert purse.spent == cost


def test_a_run_that_was_killed_does_not_spend_its_money_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three replies of 15 dollars fit in 100, as above. A kill leaves them, and run.json as it was at the start."""
    prices = priced(monkeypatch, tmp_path)
    with serving() as endpoint:
        with monkeypatch.context() as killed:
            for name in ("spent", "learned", "note"):
                killed.setattr(Manifest, name, lambda *_: None)
            spending(endpoint, tmp_path, prices=prices, max_cost=100)
        told = json.loads((tmp_path / "run" / "run.json").read_text())
        assert (len(endpoint.asked), told["budget"], told["status"]) == (3, {}, "partial")

        again = spending(endpoint, tmp_path, prices=prices, max_cost=100)
        assert (len(endpoint.asked), again.info["budget"]["cost_usd"]) == (3, 45)
        more = spending(endpoint, tmp_path, prices=prices, max_cost=1000)
        assert (len(endpoint.asked), more.info["budget"]["cost_usd"]) == (8, 8 * 15)


def test_the_command_of_a_run_that_ran_out_of_money_exits_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from harness.cli import cli

    prices = priced(monkeypatch, tmp_path)
    with serving() as endpoint:
        command = ["run", "--model", "served", "--base-url", endpoint.url, "--attacks", "direct", "--tasks", "none"]
        command += ["--overrefusal", "none", "--limit", "4", "--max-cost", "1", "--prices", prices, "--quiet"]
        done = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "out")])
        assert (done.exit_code, endpoint.asked) == (4, [])


def test_what_a_run_cost_is_in_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as endpoint:
        done = spending(endpoint, tmp_path, prices=priced(monkeypatch, tmp_path))
    assert done.info["cost"]["prices"]["served"] == {"input": 1000000.0, "output": 1000000.0, "seen": ""}
    assert "120.00 US dollars" in (done.folder / "report.html").read_text()
    assert "120.00 US dollars" in (done.folder / "summary.md").read_text()


def test_an_unknown_price_is_said_and_a_server_on_this_machine_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as endpoint:
        done = spending(endpoint, tmp_path, max_cost=0.01)
        assert done.info["status"] == "complete"
        assert "cost" not in done.info
        monkeypatch.setattr(api, "urlsplit", lambda url: type("Url", (), {"hostname": "api.example"}))
        with pytest.raises(UsageError, match="price of served is unknown"):
            spending(endpoint, tmp_path, max_cost=0.01, fresh=True)
        done = spending(endpoint, tmp_path, fresh=True)
        assert done.info["cost"]["unknown"] == ["served"]
        assert any("price of served is unknown" in note for note in done.info["notes"])


def test_target_and_judge_share_one_purse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prices = priced(monkeypatch, tmp_path)
    with serving() as endpoint:
        settings = {"judge": "rules,llm", "judge_model": "served", "judge_base_url": endpoint.url}
        done = spending(endpoint, tmp_path, prices=prices, **settings)
    assert done.info["budget"]["cost_usd"] == len(endpoint.asked) * 15
    assert len(endpoint.asked) > 8


def test_limits_of_an_endpoint_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec({"model": "m", "requests_per_minute": "600", "tokens_per_minute": 9000})
    options = spec.target_options()
    with serving() as endpoint:
        model, _ = asking(
            endpoint,
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
        )
    assert (model._pace.requests, model._pace.tokens) == (600, 9000)
    assert spec.identity() == make_spec({"model": "m"}).identity()


def test_hosts_are_known_by_prefix_and_their_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provider("meta-llama/Meta-Llama-3-8B") is None
    assert provider("openai/") is None
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(UsageError, match="no API key in ANTHROPIC_API_KEY"):
        asyncio.run(OpenAI.open("anthropic/claude-opus-4-5", ModelOptions()))
    for host in providers().values():
        assert host.key.endswith("_API_KEY")
        assert not host.base_url or host.base_url.startswith("https://")


def test_a_host_that_ignores_settings_has_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as endpoint:
        host = Provider(name="elsewhere", base_url=endpoint.url, key="ELSEWHERE_API_KEY", ignores=("seed",))
        monkeypatch.setattr(api, "provider", lambda reference: host)
        monkeypatch.setenv("ELSEWHERE_API_KEY", "k")

        async def go() -> OpenAI:
            model = await OpenAI.open("elsewhere/big/one", ModelOptions(purse=Purse()))
            await model.generate(HELLO, Sampling(max_tokens=5))
            await model.close()
            return model

        model = asyncio.run(go())
    assert (model.name, endpoint.asked[0]["model"], endpoint.keys) == ("big/one", "big/one", ["Bearer k"])
    assert "elsewhere takes these settings without heeding them: seed" in model.notes


def test_only_a_request_that_was_sent_is_billed_when_it_is_called_off() -> None:
    """One a minute: the first is answered, and what waits for its turn costs nothing when nobody wants it any more."""

    async def go(endpoint: Endpoint) -> Purse:
        purse = Purse()
        options = ModelOptions(base_url=endpoint.url, purse=purse, requests_per_minute=1)
        model = await OpenAI.open("served", options)
        model.price = Price(input=10_000.0, output=10_000.0)
        try:
            asked = [model.generate(Prompt.chat(f"hello {i}"), Sampling(max_tokens=5)) for i in range(3)]
            jobs = [asyncio.create_task(each) for each in asked]
            await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            spent = purse.spent
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            assert purse.spent == spent > 0
        finally:
            await model.close()
        return purse

    with serving() as endpoint:
        asyncio.run(go(endpoint))
    assert len(endpoint.asked) == 1


def test_a_request_called_off_under_way_is_billed_at_its_dearest() -> None:
    begun = threading.Event()

    def hangs(body: Any, n: int) -> None:
        begun.set()
        threading.Event().wait(1.0)

    async def go(endpoint: Endpoint) -> float:
        purse = Purse()
        model = await OpenAI.open("served", ModelOptions(base_url=endpoint.url, purse=purse))
        model.price = Price(input=10_000.0, output=10_000.0)
        try:
            job = asyncio.create_task(model.generate(HELLO, Sampling(max_tokens=5)))
            await asyncio.to_thread(begun.wait)
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            return purse.spent
        finally:
            await model.close()

    with serving(answer=hangs) as endpoint:
        spent = asyncio.run(go(endpoint))
    assert spent == pytest.approx(Price(input=10_000.0, output=10_000.0).cost(size(HELLO), 5))
