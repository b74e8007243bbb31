"""Win rates: every reply of a model against a reference reply to the same request, compared by a language model.

References come from a file of another model's recorded replies, from a second model, or with the task itself. Each
comparison becomes a record like any other, marked 1, 0.5 or 0; `metrics` makes the length-controlled rate of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import progress, registry
from harness.config import RunSpec
from harness.data.item import Recorded
from harness.data.recorded import read
from harness.errors import DataError, ModelError, UsageError
from harness.judges.pairwise import Pairwise
from harness.judges.score import told
from harness.types import Behavior, Completion, Judgement, Model, Prompt, Record, sha


def is_pairwise(name: str) -> bool:
    """Whether a task is measured by comparing replies; unknown names are left to whoever knows them."""
    return name in registry.table("task") and registry.load("task", name).kind == "pairwise"


def prepare(names: Sequence[str], spec: RunSpec) -> dict[str, tuple[Behavior, ...]]:
    """The requests of each task, with their reference replies where those are at hand.

    Raises UsageError when a request has no reference and no second model is named, DataError for a broken file.
    """
    known = references(Path(spec.reference).expanduser()) if from_file(spec.reference) else {}
    found = {}
    for name in names:
        items = registry.behaviors(name)
        if spec.task_limit:
            items = items[: spec.task_limit]
        if known:
            items = tuple(replace(item, reference=known.get(folded(item.request), "")) for item in items)
        if not spec.reference or known:
            lacking = sum(not item.reference for item in items)
            if lacking:
                hint = "--reference: a file with another model's replies, or a model"
                if name == "derta-alpaca":
                    hint += "; or AlpacaEval's own: harness data pull alpaca-eval"
                where = f"{spec.reference} has none" if known else "none is bundled"
                raise UsageError(f"{lacking} of {len(items)} requests of {name} have no reply to compare with: {where}",
                                 hint=hint)  # fmt: skip
        found[name] = items
    return found


def from_file(reference: str) -> bool:
    """Whether a reference is a file on this machine, not a model."""
    return bool(reference) and Path(reference).expanduser().is_file()


def references(path: Path) -> dict[str, str]:
    """Recorded replies by the request they answer, folded. Raises DataError for a file that holds none."""
    return dict(_replies(path))


def _replies(path: Path) -> list[tuple[str, str]]:
    return [(folded(item.attempt.behavior.request), item.said) for item in read(path, "rows") if item.completion]


def folded(request: str) -> str:
    """A request without what recorded files change about white space."""
    return " ".join(request.split())


async def measure(
    model: Model, task: str, items: Sequence[Behavior], spec: RunSpec, judge: Pairwise, reference: Model | None
) -> list[Record]:
    """One record an item: the model's reply against the reference. A request that failed makes its item an error."""

    async def one(item: Behavior) -> Record:
        record = blank(model.name, task, item, spec.seed)
        sampling = spec.sampling(spec.seed)
        asked = Prompt.chat(item.request)
        try:
            other = None
            if reference is None:
                reply = await model.generate(asked, sampling)
            else:
                reply, other = await asyncio.gather(
                    model.generate(asked, sampling), reference.generate(asked, sampling)
                )
        except ModelError as err:
            return replace(record, error=str(err)[:200])
        judged = await compared(judge, item.request, reply.text, other.text if other else item.reference)
        bar.tokens(reply.tokens_out)
        bar.done()
        return answered(record, reply, judged)

    with progress.Bar(len(items), f"{model.name}: {task}", unit="comparison") as bar:
        return list(await asyncio.gather(*map(one, items)))


async def compared(judge: Pairwise, request: str, reply: str, reference: str) -> Judgement:
    """How a reply compares; a judge that breaks leaves it unscored."""
    return await told(judge.name, judge.compare, request, reply, reference, longer=len(reply) - len(reference))


def blank(model: str, task: str, item: Behavior, seed: int) -> Record:
    """The record of a comparison before anything came of it."""
    return Record(
        key=f"{model}/{task}/{item.id}",
        model=model,
        task=task,
        behavior=item.id,
        expect="comply",
        category=item.category or task,
        attack="",
        seed=seed,
        prompt_sha=sha(item.request),
    )


def answered(record: Record, reply: Completion, judged: Judgement) -> Record:
    """The record with what was replied and how it compared."""
    return replace(
        record,
        judgements=(judged,),
        finish=reply.finish,
        tokens_in=reply.tokens_in,
        tokens_out=reply.tokens_out,
        seconds=round(reply.seconds, 3),
        reply_sha=sha(reply.text),
    )


async def recorded(path: Path, reference: Path, judge: Pairwise) -> tuple[list[Record], dict[str, int]]:
    """Two files of recorded replies compared, request by request, without asking either model; and what was left out.

    `n_no_reference` rows find no reply to their request, and `n_repeated` references gave way to a later one to the
    same request. Raises DataError when the files share no request. A missing reply is an error of its comparison.
    """
    replies, rows = _replies(reference), list(read(path, "rows"))
    known = dict(replies)
    items = [item for item in rows if folded(item.attempt.behavior.request) in known]
    left = {"n_no_reference": len(rows) - len(items), "n_repeated": len(replies) - len(known)}
    if not items:
        hint = "both need the same requests, in a column such as instruction or question"
        raise DataError(f"{path} and {reference} share no request", hint=hint)
    with progress.Bar(len(items), "comparisons", unit="comparison") as bar:

        async def one(item: Recorded) -> Record:
            behavior = item.attempt.behavior
            record = blank(item.record.model, path.stem, behavior, 0)
            record = replace(record, key=item.record.key, error=item.record.error)
            if item.completion is None:
                return record
            judged = await compared(judge, behavior.request, item.said, known[folded(behavior.request)])
            bar.done()
            return answered(record, item.completion, judged)

        return list(await asyncio.gather(*map(one, items))), left


def plain_counts(records: Sequence[Record]) -> Mapping[str, int]:
    """How many comparisons came to each outcome, by its code."""
    reasons = [r.judgements[0].reason if r.judgements else "error" for r in records]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
