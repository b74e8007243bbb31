"""The spine: plan -> attempts -> completions -> judgements -> records -> metrics -> report.

Every case is a coroutine; a pool of them keeps the model's queue full, so that attacks, behaviors and seeds
are all in flight at once and a slow conversation holds up no other. A failure becomes data in its record.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import progress, registry
from harness.budget import Till, merged, read_budget
from harness.config import RunSpec
from harness.errors import BudgetSpent, HarnessError, ModelError, UsageError
from harness.judges.pairwise import Pairwise
from harness.judges.score import told
from harness.labels import CARRIED, LABELS, people
from harness.manifest import Manifest
from harness.models.costs import Price, Purse
from harness.models.hub import bare
from harness.models.remember import Remembered
from harness.plan import (
    Case,
    Plan,
    check_attacker,
    check_labels,
    check_names,
    make_judge,
    make_plan,
    open_helper,
    open_reference,
    open_targets,
    share,
)
from harness.store import Store, build, load, locked, read_as, read_prompt, request_key, write_json
from harness.trust import measures
from harness.types import (
    BROKEN,
    Attempt,
    Completion,
    Context,
    Judge,
    Meter,
    Model,
    Prompt,
    Record,
    Run,
    Sampling,
    sha,
)

WINDOW = 512  # cases open at once: enough to keep any batch full, few enough to stay small
ROOM = 8 * WINDOW  # attempts open at once, of all cases together
REPORTS = ("pdf", "html", "markdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """A run in pieces that may end before the last: for a gate that looks early.

    `pieces` holds the (task, behavior) pairs of each piece. `ready` is shown run.json before the first request and may
    raise UsageError; `enough` is shown the run so far after each piece, and its yes ends the run, which stays partial.
    """

    pieces: Sequence[Collection[tuple[str, str]]]
    ready: Callable[[Mapping[str, Any]], None]
    enough: Callable[[Run], bool]


def run(spec: RunSpec, out: str | Path | None = None, *, fresh: bool = False, stages: Stages | None = None) -> Run:
    """Does a run, or goes on with one that was cut off, and returns it with its metrics and reports written.

    Raises UsageError or DataError before anything is spent when something can't work.
    """
    try:
        return asyncio.run(run_async(spec, out, fresh=fresh, stages=stages))
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


async def run_async(
    spec: RunSpec, out: str | Path | None = None, *, fresh: bool = False, stages: Stages | None = None
) -> Run:
    """`run`, for callers that have an event loop."""
    folder = Path(out) if out else default_folder(spec)
    async with AsyncExitStack() as stack:
        stack.enter_context(locked(folder))
        if not fresh:
            check_folder(folder, spec, stages)
        purse = Purse(limit=spec.max_cost, prices=spec.prices, spent=0.0 if fresh else earlier_cost(folder))
        check_names(spec)
        opened = await open_targets(spec, purse)
        stack.push_async_callback(close_all, opened)
        targets = opened[1:] if spec.skip_base else opened
        plan = make_plan(spec, targets)
        found: dict[tuple[str, str, str], Model] = {}
        attacker = await open_helper("attacker", spec, opened, purse, found)
        judging = await open_helper("judge", spec, opened, purse, found)
        reference = await open_reference(spec, plan, opened, purse, found)
        helpers = list(found.values())
        stack.push_async_callback(close_all, helpers)
        check_attacker(plan, attacker, targets)
        check_labels([*opened, *helpers])
        store = Store(folder, held=True)
        work = Work(spec, plan, store, targets, attacker, judging, reference, purse)
        if fresh:  # everything that can be checked beforehand has been
            forget(folder)
        stack.enter_context(store)
        prices = {m.name: price for m in [*opened, *helpers] if (price := getattr(m, "price", None))}
        purse.spent = purse.before = max(purse.before, kept_cost(folder, prices))
        judges: list[Judge | Pairwise] = [*work.judges, *([work.comparer] if plan.pairs else [])]
        with Manifest.opened(folder, spec, plan, targets, judges) as manifest:
            if purse.known:
                manifest.before["cost_usd"] = purse.before
            try:
                whole = await work.through(stages, manifest)
            finally:  # money that is gone is written down, whatever ends the run
                manifest.spent(work.usage(), work.seconds)
                manifest.learned(purse.told(), work.notes())
            write_metrics(folder, store.records.values())
            failing = mostly_failed(store.records.values())
            for note in failing:
                manifest.note(note)
            if whole and not purse.refused and not failing:
                manifest.complete()
    return write_reports(load(folder))


def default_folder(spec: RunSpec) -> Path:
    """Where a run goes when nobody says: named after the model and what was asked of it, so that it is found again."""
    model = bare(spec.model)
    name = "".join(c if c.isalnum() or c in "-._" else "-" for c in Path(model).name or model)
    return Path("runs") / f"{name}-{spec.identity()}"


def forget(folder: Path) -> None:
    """Removes what a run folder holds of its run."""
    for name in ("run.json", "records.jsonl", "transcripts.jsonl", "memo.jsonl", "metrics.json", LABELS, CARRIED):
        (folder / name).unlink(missing_ok=True)


def check_folder(folder: Path, spec: RunSpec, stages: Stages | None) -> None:
    """Raises UsageError when the folder holds a run of other settings."""
    if not (folder / "run.json").exists():
        return
    before = load(folder, metrics=False).info
    if before.get("identity") != spec.identity():
        now = asdict(spec.shown())
        was = before.get("spec", {})
        differs = [k for k in now if k in was and list_or_same(now[k]) != was[k]]
        hint = "name another folder with --out, or start over with --fresh"
        if stages is not None:
            hint = "name another folder with --candidate"  # the gate's
        raise UsageError(f"{folder} holds a run with other settings ({', '.join(differs) or 'version'})", hint=hint)


def earlier_cost(folder: Path) -> float:
    """What earlier starts of this run have spent: a limit holds for all of them together."""
    if not (folder / "run.json").exists():
        return 0.0
    return float(load(folder, metrics=False).info.get("budget", {}).get("cost_usd", 0.0))


def kept_cost(folder: Path, prices: Mapping[str, Price]) -> float:
    """What the replies in the folder of a run that was killed have cost: the kill left them, but not their sum."""
    if not prices or not (folder / "run.json").exists() or "cost" in load(folder, metrics=False).info:
        return 0.0  # a start that ends by itself writes its cost down

    def cost(line: Mapping[str, Any]) -> float:
        done = build(Completion, line["completion"])
        price = prices.get(done.model)
        longest = build(Sampling, line["sampling"]).max_tokens
        return price.of(done, read_prompt(line["prompt"]), longest) if price else 0.0

    return sum(read_as(folder / "transcripts.jsonl", cost))


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


@dataclass(frozen=True, slots=True)
class Open:
    """A case at work: what its attack may use, where it pays, and the keys of the attempts that came of it."""

    case: Case
    model: Remembered
    context: Context
    till: Till
    bar: progress.Bar
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Work:
    """One run in progress."""

    spec: RunSpec
    plan: Plan
    store: Store
    targets: Sequence[Model]
    attacker: Model
    judging: Model
    reference: Model | None = None  # whose replies pairwise tasks compare with, where no file holds them
    purse: Purse = field(default_factory=Purse)
    models: list[Remembered] = field(init=False)
    judges: list[Judge] = field(init=False)
    comparer: Pairwise = field(init=False)  # of pairwise tasks
    helper: Remembered = field(init=False)
    others: list[Remembered] = field(default_factory=list)  # attacker, judge and reference, each once
    limits: dict[str, float] = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ROOM))  # for another attempt
    earlier: dict[Hashable, list[str]] = field(default_factory=dict)  # by case, the records of earlier starts

    def __post_init__(self) -> None:
        """Wraps every model so that nothing is asked twice, and makes the judges."""
        self.limits = read_budget(self.spec.budget)
        self.models = [Remembered(m, self.store) for m in self.targets]
        self.helper = self._wrap(self.attacker)
        self.judges = [make_judge(name, self.spec, self._wrap(self.judging)) for name in self.spec.judge]
        self.comparer = Pairwise(model=self._wrap(self.judging), seed=self.spec.seed)

    def _wrap(self, model: Model) -> Remembered:
        known = next((m for m in [*self.models, *self.others] if m.model is model), None)
        if known is None:
            self.others.append(known := Remembered(model, self.store))
        return known

    async def through(self, stages: Stages | None, manifest: Manifest) -> bool:
        """Everything there is to do, or piece by piece while `stages` wants more; whether all was done."""
        for record in self.store.records.values():
            self.earlier.setdefault(case_of(record), []).append(record.key)
        if stages is None:
            await self._piece(None, manifest)
            return True
        stages.ready(manifest.info)
        for number, piece in enumerate(stages.pieces, 1):
            await self._piece(piece, manifest)
            manifest.reached(number / len(stages.pieces))
            so_far = Run(
                folder=self.store.folder, info=manifest.info, records=tuple(self.store.records.values()), metrics=()
            )
            if number < len(stages.pieces) and stages.enough(so_far):
                manifest.note(f"ended after piece {number} of {len(stages.pieces)}: the answer was clear")
                return False
        return True

    async def _piece(self, only: Collection[tuple[str, str]] | None, manifest: Manifest) -> None:
        await self.attack(only)
        manifest.spent(self.usage(), self.seconds)
        await self.help(only)
        manifest.spent(self.usage(), self.seconds)

    async def attack(self, only: Collection[tuple[str, str]] | None = None) -> None:
        """Runs every case: a pool of workers over one list, so that starting 100,000 costs what starting 100 does.

        `only`: (task, behavior) pairs to leave it at.
        """
        began = time.monotonic()
        plan = self.plan if only is None else self.plan.only(only)
        cases = plan.cases(len(self.models))
        total = len(plan) * len(self.models)
        with progress.Bar(total, "attacks") as bar:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WINDOW, total)):
                    group.create_task(self._worker(cases, bar))
        self.seconds["attacks"] = self.seconds.get("attacks", 0.0) + time.monotonic() - began

    async def _worker(self, cases: Iterator[Case], bar: progress.Bar) -> None:
        for case in cases:
            await self._case(case, bar)
            bar.done()

    async def _case(self, case: Case, bar: progress.Bar) -> None:
        """Every attempt of one case. What an attack raises is recorded, not raised: the others go on."""
        model = self.models[case.model]
        broken = failure(case, model.name)
        self.store.put_behavior(case.behavior)
        if self.store.get(f"spent/{broken.key}"):
            return  # ended by its budget on an earlier start; which calls got the last of it was a matter of time
        sampling = self.spec.sampling(case.seed)
        till = Till.opened(self.limits, sampling, self.purse.known)
        given = Context(
            target=model,
            attacker=self.helper,
            judge=self.judges[0],
            memo=self.store,
            sampling=sampling,
            seed=case.seed,
        )
        at_work = Open(case, model, till.context(given), till, bar)
        try:
            async with asyncio.TaskGroup() as group:
                await self._attempts(at_work, group)
        except Exception as err:  # the per-sample edge: an attack that breaks is data
            cause = first_cause(err)
            if isinstance(cause, UsageError):
                raise cause from None
            self.store.put_record(replace(broken, error=reason(cause), spent=merged(till.meter.counts)))
        else:  # what an earlier start ended on, a failure or another variant, is not what this case comes to
            old = [broken.key] if till.meter.exhausted else self.earlier.get(case_of(broken), [])
            for key in old:
                if key not in at_work.keys:
                    self.store.drop_record(key)
        if till.meter.exhausted:
            self._exhausted(broken, till)

    async def _attempts(self, open_: Open, group: asyncio.TaskGroup) -> None:
        """Starts each attempt as it comes; a budget that runs out inside the attack ends it, and what came stands."""
        index, case = 0, open_.case
        try:
            async for attempt in case.attack.attempts(case.behavior, open_.context):
                lap = open_.till.lap()
                search = lap if attempt.spent is None else dict(attempt.spent)
                if attempt.spent is None and attempt.queries == 1:
                    own = not open_.till.asked(open_.model, attempt.prompt, open_.context.sampling)
                    searched = int(sum(lap.get(k, 0) for k in Meter.SUMS["queries"]))
                    attempt = replace(attempt, queries=max(1, own + searched))
                name = open_.model.name
                record = replace(blank(record_key(name, attempt), name, attempt), index=index, spent=search)
                open_.keys.add(record.key)
                await self.room.acquire()
                task = group.create_task(self._attempt(attempt, record, open_))
                task.add_done_callback(lambda _: self.room.release())
                index += 1
        except BudgetSpent:
            open_.till.meter.exhausted = True

    def _exhausted(self, broken: Record, till: Till) -> None:
        """Puts on record that the budget ended a case: on its last attempt, or as an error where there was none."""
        error = "its budget was spent before anything could be sent"
        nothing = replace(broken, error=error, spent=merged(till.meter.counts))
        record = self.store.records.get(till.last[1] if till.last else broken.key, nothing)
        if "exhausted" not in record.spent:
            self.store.put_record(replace(record, spent={**record.spent, "exhausted": 1}))
        if till.last and not till.failed:
            self.store.put(f"spent/{broken.key}", "done")

    async def _attempt(self, attempt: Attempt, record: Record, open_: Open) -> None:
        """Completes and judges one attempt, unless the folder already holds every verdict; those it holds stand."""
        model, till, sampling = open_.model, open_.till, open_.context.sampling
        known = self.store.records.get(record.key)
        given = [] if known is None else [j for j in known.judgements if j.label != "unscored"]
        if known is not None and known.error is None and len(given) == len(known.judgements):
            till.sent_before(record.index, known)
            return
        try:
            completion, cost = await till.send(model, attempt.prompt, sampling)
        except BudgetSpent:
            return  # not sent, so there is nothing to record of it; `_exhausted` says that the budget ended the case
        except ModelError as err:
            till.settled(record.index, record.key, failed=True)
            self.store.put_record(replace(record, error=reason(err)))
            return
        open_.bar.tokens(completion.tokens_out)
        said = open_.case.attack.read(attempt, completion.text)
        stands = {j.judge: j for j in given if known is not None and known.reply_sha == sha(completion.text)}
        judgements = tuple(
            [
                stands.get(judge.name) or await told(judge.name, judge.judge, attempt, completion, said)
                for judge in self.judges
            ]
        )
        till.paid(checked := till.verdict(attempt, completion, judgements[0]))
        till.settled(record.index, record.key, failed=any(j.label == "unscored" for j in judgements))
        self.store.put_record(
            replace(
                record,
                judgements=judgements,
                spent=merged(record.spent, cost, checked),
                finish=completion.finish,
                tokens_in=completion.tokens_in,
                tokens_out=completion.tokens_out,
                seconds=round(completion.seconds, 3),
                prompt_sha=request_key(model.name, attempt.prompt, sampling),
                reply_sha=sha(completion.text),
            )
        )

    async def help(self, only: Collection[tuple[str, str]] | None = None) -> None:
        """Helpfulness of every model: lm-eval's tasks, then comparisons, on the engine; `only` as for attacks."""
        began = time.monotonic()
        if self.plan.tasks:
            from harness.helpfulness import measure

            for model in self.models:
                self._keep(await measure(model, self.plan.tasks, self.spec, only))
        if self.plan.pairs:
            from harness import winrate

            other = None if self.reference is None else self._wrap(self.reference)
            for task, items in self.plan.pairs.items():
                mine = [item for item in share(items, self.plan.part) if only is None or (task, item.id) in only]
                for model in self.models:
                    self._keep(await winrate.measure(model, task, mine, self.spec, self.comparer, other))
        self.seconds["helpfulness"] = self.seconds.get("helpfulness", 0.0) + time.monotonic() - began

    def _keep(self, records: Sequence[Record]) -> None:
        """Keeps the records that say something new."""
        for record in records:
            known = self.store.records.get(record.key)
            if known is None or known.judgements != record.judgements:
                self.store.put_record(record)

    def notes(self) -> list[str]:
        """What the models have to say for the report, some of it only learned on the way."""
        every = [*self.targets, self.attacker, self.judging, self.reference]
        return list(dict.fromkeys(note for model in every for note in getattr(model, "notes", ())))

    def usage(self) -> dict[str, float]:
        """What this start has really sent, and what it cost at endpoints whose prices are known."""
        every = {id(m.usage): m.usage for m in [*self.models, *self.others]}.values()
        return {
            "requests": sum(u.requests for u in every),
            "tokens_in": sum(u.tokens_in for u in every),
            "tokens_out": sum(u.tokens_out for u in every),
            **({"cost_usd": self.purse.spent - self.purse.before} if self.purse.known else {}),
        }


def record_key(model: str, attempt: Attempt) -> str:
    """Identifies an attempt within a run."""
    behavior = attempt.behavior
    parts = (model, attempt.attack, attempt.variant, behavior.task, behavior.id, str(attempt.seed))
    return "/".join(parts)


def case_of(record: Record) -> Hashable:
    """What the attempts of one case share."""
    return record.model, record.attack, record.task, record.behavior, record.seed


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
        behavior_sha=sha(behavior),
    )


def failure(case: Case, model: str) -> Record:
    """The record of a case whose attack broke; its variant keeps it apart from attempts that did come."""
    attempt = Attempt(
        behavior=case.behavior,
        attack=case.attack.name,
        variant=BROKEN,
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


def mostly_failed(records: Iterable[Record]) -> list[str]:
    """A note for each model most of whose attempts failed, as when its engine stops: such a run isn't complete.

    A judge whose model failed has failed the attempt as well.
    """
    by_model: dict[str, list[Record]] = {}
    for record in records:
        by_model.setdefault(record.model, []).append(record)
    found = []
    for name, own in by_model.items():
        failed = [why for r in own if (why := broke(r)) and not r.spent.get("exhausted")]
        if 2 * len(failed) > len(own):
            common, _ = Counter(failed).most_common(1)[0]
            found.append(
                f"{name}: {len(failed):,} of {len(own):,} attempts failed ({common}). The same command retries."
            )
    return found


def broke(record: Record) -> str | None:
    """Why an attempt failed: its request, or the judge that counts; None where it did not."""
    if record.label == "unscored" and record.judgements[0].reason.partition(":")[0] in ("error", "judge_failed"):
        return f"the judge {record.judgements[0].judge} failed"
    return record.error


def rewrite(folder: Path) -> Run:
    """Metrics and reports of a run folder made anew from its records. Raises DataError when it is none."""
    write_metrics(folder, load(folder, metrics=False).records)
    return write_reports(load(folder))


def write_metrics(folder: Path, records: Iterable[Record]) -> None:
    """metrics.json, from the records and from what people said about them."""
    write_json(folder / "metrics.json", [asdict(m) for m in measures(records, people(folder))])
