"""The spine: plan -> attempts -> completions -> judgements -> records -> metrics -> report.

Every case is a coroutine; a pool of them keeps the model's queue full, so that attacks, behaviors and seeds
are all in flight at once and a slow conversation holds up no other. A failure becomes data in its record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import progress, registry
from harness.config import RunSpec
from harness.errors import HarnessError, ModelError, UsageError
from harness.labels import CARRIED, LABELS, people
from harness.manifest import Manifest
from harness.models.remember import Remembered
from harness.plan import Case, Plan, make_judge, make_plan, open_helper, open_targets
from harness.store import Store, load, request_key, write_json
from harness.trust import measures
from harness.types import Attempt, Completion, Context, Judge, Judgement, Model, Prompt, Record, Run, sha

WINDOW = 512  # cases open at once: enough to keep any batch full, few enough to stay small
REPORTS = ("pdf", "html", "markdown")


def run(spec: RunSpec, out: str | Path | None = None, *, fresh: bool = False) -> Run:
    """Does a run, or goes on with one that was cut off, and returns it with its metrics and reports written.

    Raises UsageError or DataError before anything is spent when something can't work.
    """
    try:
        return asyncio.run(run_async(spec, out, fresh=fresh))
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


async def run_async(spec: RunSpec, out: str | Path | None = None, *, fresh: bool = False) -> Run:
    """`run`, for callers that have an event loop."""
    folder = Path(out) if out else default_folder(spec)
    check_folder(folder, spec, fresh=fresh)
    async with AsyncExitStack() as stack:
        targets = await open_targets(spec)
        stack.push_async_callback(close_all, targets)
        plan = make_plan(spec, targets)
        attacker = await open_helper(spec.attacker, spec.attacker_base_url, spec, targets[0])
        judging = await open_helper(spec.judge_model, spec.judge_base_url, spec, targets[0])
        stack.push_async_callback(close_all, [m for m in (attacker, judging) if m not in targets])
        store = stack.enter_context(Store(folder))
        work = Work(spec, plan, store, targets, attacker, judging)
        with Manifest.opened(folder, spec, plan, targets, work.judges) as manifest:
            await work.attack()
            manifest.spent(work.usage(), work.seconds)
            await work.help()
            manifest.spent(work.usage(), work.seconds)
            write_metrics(folder, store.records.values())
            manifest.complete()
    return write_reports(load(folder))


def default_folder(spec: RunSpec) -> Path:
    """Where a run goes when nobody says: named after the model and what was asked of it, so that it is found again."""
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in Path(spec.model).name or spec.model)
    return Path("runs") / f"{name}-{spec.identity()}"


def check_folder(folder: Path, spec: RunSpec, *, fresh: bool) -> None:
    """Raises UsageError when the folder holds a run of other settings; empties it with `fresh`."""
    if fresh:
        kept = ("run.json", "records.jsonl", "transcripts.jsonl", "memo.jsonl", "metrics.json", LABELS, CARRIED)
        for name in kept:
            (folder / name).unlink(missing_ok=True)
    if not (folder / "run.json").exists():
        return
    before = load(folder).info
    if before.get("identity") != spec.identity():
        now = asdict(spec)
        was = before.get("spec", {})
        differs = [k for k in now if k in was and list_or_same(now[k]) != was[k]]
        hint = "name another folder with --out, or start over with --fresh"
        raise UsageError(f"{folder} holds a run with other settings ({', '.join(differs) or 'version'})", hint=hint)


def list_or_same(value: Any) -> Any:
    """As JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


async def close_all(models: Sequence[Model]) -> None:
    """Closes models; those that share an engine each ask for it."""
    for model in models:
        await model.close()


def write_reports(run: Run) -> Run:
    """Writes every report of a run that is read back from its folder."""
    for name in REPORTS:
        registry.load("report", name)(run, run.folder)
    return run


@dataclass(slots=True)
class Work:
    """One run in progress."""

    spec: RunSpec
    plan: Plan
    store: Store
    targets: Sequence[Model]
    attacker: Model
    judging: Model
    models: list[Remembered] = field(init=False)
    judges: list[Judge] = field(init=False)
    helper: Remembered = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Wraps every model so that nothing is asked twice, and makes the judges."""
        self.models = [Remembered(m, self.store) for m in self.targets]
        self.helper = self._wrap(self.attacker)
        self.judges = [make_judge(name, self.spec, self._wrap(self.judging)) for name in self.spec.judge]

    def _wrap(self, model: Model) -> Remembered:
        return next((m for m in self.models if m.model is model), None) or Remembered(model, self.store)

    async def attack(self) -> None:
        """Runs every case: a pool of workers over one list, so that starting 100,000 costs what starting 100 does."""
        began = time.monotonic()
        cases = self.plan.cases(len(self.models))
        total = len(self.plan) * len(self.models)
        with progress.Bar(total, "attacks") as bar:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WINDOW, total)):
                    group.create_task(self._worker(cases, bar))
        self.seconds["attacks"] = time.monotonic() - began

    async def _worker(self, cases: Iterator[Case], bar: progress.Bar) -> None:
        for case in cases:
            await self._case(case, bar)
            bar.done()

    async def _case(self, case: Case, bar: progress.Bar) -> None:
        """Every attempt of one case. What an attack raises is recorded, not raised: the others go on."""
        model = self.models[case.model]
        context = Context(
            target=model,
            attacker=self.helper,
            judge=self.judges[0],
            memo=self.store,
            sampling=self.spec.sampling(case.seed),
            seed=case.seed,
        )
        broken = failure(case, model.name)
        try:
            async with asyncio.TaskGroup() as group:
                async for attempt in case.attack.attempts(case.behavior, context):
                    group.create_task(self._attempt(attempt, case, model, context, bar))
        except Exception as err:  # the per-sample edge: an attack that breaks is data
            cause = first_cause(err)
            if isinstance(cause, UsageError):
                raise cause from None
            self.store.put_record(replace(broken, error=reason(cause)))
        else:
            self.store.drop_record(broken.key)  # it broke on an earlier start

    async def _attempt(
        self, attempt: Attempt, case: Case, model: Remembered, context: Context, bar: progress.Bar
    ) -> None:
        """Completes and judges one attempt, unless the folder already holds its verdict."""
        key = record_key(model.name, attempt)
        known = self.store.records.get(key)
        if known is not None and known.error is None and known.label != "unscored":
            return
        record = blank(key, model.name, attempt)
        try:
            completion = await model.generate(attempt.prompt, context.sampling)
        except ModelError as err:
            self.store.put_record(replace(record, error=reason(err)))
            return
        bar.tokens(completion.tokens_out)
        said = case.attack.read(attempt, completion.text)
        judgements = tuple([await verdict(judge, attempt, completion, said) for judge in self.judges])
        self.store.put_record(
            replace(
                record,
                judgements=judgements,
                finish=completion.finish,
                tokens_in=completion.tokens_in,
                tokens_out=completion.tokens_out,
                seconds=round(completion.seconds, 3),
                prompt_sha=request_key(model.name, attempt.prompt, context.sampling),
                reply_sha=sha(completion.text),
            )
        )

    async def help(self) -> None:
        """Helpfulness of every model, through lm-eval on the engine that is loaded."""
        if not self.plan.tasks:
            return
        from harness.helpfulness import measure

        began = time.monotonic()
        for model in self.models:
            for record in await measure(model, self.plan.tasks, self.spec):
                known = self.store.records.get(record.key)
                if known is None or known.judgements != record.judgements:
                    self.store.put_record(record)
        self.seconds["helpfulness"] = time.monotonic() - began

    def usage(self) -> dict[str, int]:
        """What this start has really sent."""
        every = {id(m.usage): m.usage for m in [*self.models, self.helper]}.values()
        return {
            "requests": sum(u.requests for u in every),
            "tokens_in": sum(u.tokens_in for u in every),
            "tokens_out": sum(u.tokens_out for u in every),
        }


async def verdict(judge: Judge, attempt: Attempt, completion: Completion, said: str) -> Judgement:
    """A judge's verdict; one that breaks leaves the reply unscored."""
    try:
        return await judge.judge(attempt, completion, said)
    except UsageError:
        raise
    except Exception as err:  # the per-sample edge: a judge that breaks is data
        return Judgement(judge=judge.name, label="unscored", reason=f"judge_failed:{type(err).__name__}")


def record_key(model: str, attempt: Attempt) -> str:
    """Identifies an attempt within a run."""
    behavior = attempt.behavior
    parts = (model, attempt.attack, attempt.variant, behavior.task, behavior.id, str(attempt.seed))
    return "/".join(parts)


def blank(key: str, model: str, attempt: Attempt) -> Record:
    """The record of an attempt before anything came of it."""
    behavior = attempt.behavior
    return Record(
        key=key,
        model=model,
        task=behavior.task,
        behavior=behavior.id,
        expect=behavior.expect,
        category=behavior.category,
        attack=attempt.attack,
        variant=attempt.variant,
        seed=attempt.seed,
        depth=attempt.depth,
        queries=attempt.queries,
    )


def failure(case: Case, model: str) -> Record:
    """The record of a case whose attack broke; its variant keeps it apart from attempts that did come."""
    attempt = Attempt(
        behavior=case.behavior,
        attack=case.attack.name,
        variant="broken",
        seed=case.seed,
        prompt=Prompt.chat(case.behavior.request),
    )
    return blank(record_key(model, attempt), model, attempt)


def first_cause(err: BaseException) -> BaseException:
    """What a task group wraps; the user's mistake first, when there is one among several."""
    if not isinstance(err, BaseExceptionGroup):
        return err
    causes = [first_cause(inner) for inner in err.exceptions]
    return next((cause for cause in causes if isinstance(cause, HarnessError)), causes[0])


def reason(err: BaseException) -> str:
    """What went wrong, short and printable. Our own errors say it in words; others only by their type's name."""
    text = str(err) if isinstance(err, HarnessError) else type(err).__name__
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def rewrite(folder: Path) -> Run:
    """Metrics and reports of a run folder made anew from its records. Raises DataError when it is none."""
    write_metrics(folder, load(folder).records)
    return write_reports(load(folder))


def write_metrics(folder: Path, records: Iterable[Record]) -> None:
    """metrics.json, from the records and from what people said about them."""
    write_json(folder / "metrics.json", [asdict(m) for m in measures(records, people(folder))])
