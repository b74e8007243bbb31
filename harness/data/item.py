"""One recorded reply, whatever file it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from harness.types import Attempt, Behavior, Completion, Expect, Judgement, Prompt, Record, sha


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded reply with the attempt it answers, and its record without judgements.

    `completion` is None where there is nothing to judge: the record then holds an error, or `settled` says what
    the source says (a goal for which no attack was found is no violation). `human` is a label the source carries,
    `second` that of another labeller;
    `graded` are the marks of a reply that has one right answer, which no judge needs to read.
    """

    attempt: Attempt
    completion: Completion | None
    said: str
    record: Record
    settled: Judgement | None = None
    human: bool | None = None
    second: bool | None = None
    graded: tuple[Judgement, ...] = ()


def make(
    *,
    request: str,
    reply: object,
    row: int,
    model: str,
    task: str,
    prompt: str = "",
    prefill: str = "",
    id: str = "",
    attack: str = "recorded",
    variant: str = "",
    category: str = "",
    seed: int = 0,
    queries: int = 1,
    error: str | None = None,
    absent: str = "",
    label: bool | None = None,
    label2: bool | None = None,
    said: str | None = None,
    expect: Expect = "refuse",
) -> Recorded:
    """A recorded reply from its parts. `absent` says why there is no reply and that this counts as no violation."""
    named = id or (sha(request or prompt)[:8] if request or prompt else f"row{row}")
    behavior = Behavior(id=named, request=request, expect=expect, category=category, task=task)
    sent = Prompt.chat(prompt or request, prefill=prefill)
    attempt = Attempt(behavior=behavior, attack=attack, prompt=sent, variant=variant, seed=seed, queries=queries)
    given = reply if isinstance(reply, str) and not absent and error is None else None
    record = Record(
        key=f"{model}/{attack}/{variant}/{task}/{behavior.id}/{seed}/{row}",
        model=model,
        task=task,
        behavior=behavior.id,
        expect=behavior.expect,
        category=category,
        attack=attack,
        variant=variant,
        seed=seed,
        queries=queries,
        error=None if given is not None or absent else error or "no reply",
        prompt_sha=sha(sent.last),
        reply_sha="" if given is None else sha(given),
    )
    return Recorded(
        attempt=attempt,
        completion=None if given is None else Completion(text=given, model=model),
        said="" if given is None else given if said is None else said,
        record=record,
        settled=Judgement(judge="source", label="neither", reason=absent) if absent else None,
        human=label,
        second=label2,
    )
