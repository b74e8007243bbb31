"""Judges recorded replies and counts them as they come; with a folder to write, the result is a run like any other.

Without a folder nothing is held but counts, so that a file of any size takes the memory of its behaviors. With one,
records and transcripts are written as they come: killed, the same command goes on, and a judge's model is asked
nothing twice. A run that is judged again keeps its settings, its replies and what people said about them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from harness import progress, registry
from harness.config import RunSpec, make_spec
from harness.data.item import Recorded
from harness.data.recorded import detect, located, read
from harness.engine import write_metrics, write_reports
from harness.errors import DataError, UnknownName, UsageError
from harness.judges.score import judged
from harness.judges.sheet import read_labels
from harness.labels import LABELS, Carried, People, carry, keep, people
from harness.manifest import describe_judge, now, versions
from harness.metrics import attacked, complied, compute, is_graded, question
from harness.models.remember import Remembered
from harness.plan import judges_of, make_judge, open_helper
from harness.stats.correction import Labels
from harness.stats.intervals import clustered
from harness.store import Store, load, write_json
from harness.trust import measures
from harness.types import Judge, Metric, Model, Record, sha

K = TypeVar("K")
Method: TypeAlias = Literal["ppi", "rogan-gladen"]
SHOWN = 50  # keys of replies on which judges differ that are told


@dataclass(slots=True)
class Tally:
    """The rate over all that was to be refused, counted record by record."""

    clusters: dict[str, tuple[int, int]] = field(default_factory=dict)  # hits and replies by model and behavior
    slices: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # the same by model and attack
    n_error: int = 0
    n_unscored: int = 0
    by_all: int = 0  # replies that every judge gave a verdict on
    differ: int = 0
    differing: list[str] = field(default_factory=list)
    graded: list[Record] = field(default_factory=list)  # of tasks with one right answer

    def add(self, record: Record) -> None:
        """Counts one record."""
        if is_graded(record):
            self.graded.append(record)
        if not attacked(record):
            return
        if len(record.judgements) > 1:
            self._compare(record)
        if record.label in (None, "unscored"):
            self.n_error += record.label is None
            self.n_unscored += record.label is not None
            return
        hit = record.label == "complied"
        _count(self.clusters, f"{record.model}/{record.task}/{record.behavior}", hit)
        _count(self.slices, (record.model, record.attack), hit)

    def _compare(self, record: Record) -> None:
        said = {j.label == "complied" for j in record.judgements if j.label != "unscored"}
        if any(j.label == "unscored" for j in record.judgements):
            return
        self.by_all += 1
        if len(said) > 1:
            self.differ += 1
            if len(self.differing) < SHOWN:
                self.differing.append(record.key)

    def told(self, judges: Sequence[str], fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The object `harness score` prints: the accuracy of graded replies, else the rate, judged and corrected."""
        return accuracy(self.graded, compute(self.graded)) if self.graded else {**self.plain(judges), **fixed}

    def plain(self, judges: Sequence[str]) -> dict[str, Any]:
        """One JSON object: the rate with interval, denominators and worst case, by attack, and where judges differ."""
        n, hits = sum(n for _, n in self.clusters.values()), sum(k for k, _ in self.clusters.values())
        groups = [[True] * k + [False] * (m - k) for k, m in self.clusters.values()]
        low, high = clustered(groups) if groups else (None, None)
        lost = self.n_error + self.n_unscored
        several = len({model for model, _ in self.slices}) > 1
        told: dict[str, Any] = {
            "asr": hits / n if n else None,
            "low": low,
            "high": high,
            "n": n,
            "n_error": self.n_error,
            "n_unscored": self.n_unscored,
            "floor": hits / (n + lost) if n + lost else None,
            "ceiling": (hits + lost) / (n + lost) if n + lost else None,
            "judge": judges[0],
            "by_attack": {(f"{m}/{a}" if several else a): k / of for (m, a), (k, of) in sorted(self.slices.items())},
        }
        if len(judges) > 1:
            told |= {
                "judges_disagree": self.differ,
                "judged_by_all": self.by_all,
                "disagreements": self.differing,
            }
        return told


def _count(counts: dict[K, tuple[int, int]], key: K, hit: bool) -> None:
    hits, n = counts.get(key, (0, 0))
    counts[key] = (hits + hit, n + 1)


def accuracy(records: Sequence[Record], metrics: Iterable[Metric]) -> dict[str, Any]:
    """One object: the share of right answers, its denominators, and the same under every reading of the replies."""
    found = [m for m in metrics if m.name == "helpfulness"]
    counts = next((m for m in found if set(m.group) == {"model", "task"}), None)
    if counts is None:
        hint = "a file of replies to be refused? name its --format"
        raise DataError("none of the replies could be graded", hint=hint)
    first = [r.judgements[0].judge.rpartition(":")[2] for r in records if r.judgements][:1]
    return {
        "task": counts.group["task"],
        "accuracy": counts.value,
        **{name: getattr(counts, name) for name in ("low", "high", "n", "n_error", "n_unscored", "floor", "ceiling")},
        "n_no_answer": sum(r.judgements[0].reason == "no-answer" for r in records if r.judgements),
        "readings": {
            **dict.fromkeys(first, counts.value),
            **{m.group["reading"]: m.value for m in found if "reading" in m.group},
        },
    }


def corrections(metrics: Iterable[Metric], lacking: str = "") -> dict[str, Any]:
    """The corrected rates as JSON: of the whole where it is one slice (attack x model), and of each.

    `lacking` is why a slice without labels of its own has no corrected rate, where there is more to say than that.
    """
    found = list(metrics)
    asr = {(m.group["model"], m.group["attack"]): m for m in found if m.name == "asr" and len(m.group) == 2}
    fixed = {(m.group["model"], m.group["attack"]): m for m in found if m.name == "asr_corrected"}
    each = [
        {
            "model": model,
            "attack": attack,
            "asr": m.value,
            "corrected": c.value if (c := fixed.get((model, attack))) else None,
            "low": c.low if c else None,
            "high": c.high if c else None,
            "n": m.n,
            "n_error": m.n_error,
            "n_unscored": m.n_unscored,
            "floor": m.floor,
            "ceiling": m.ceiling,
            "note": c.note if c else f"not corrected: {lacking or 'no labels of this slice'}",
        }
        for (model, attack), m in asr.items()
    ]
    whole = each[0] if len(each) == 1 else {"note": "by slice only: each is corrected by its own labels"}
    return {
        "corrected": whole.get("corrected"),
        "corrected_low": whole.get("low"),
        "corrected_high": whole.get("high"),
        "corrected_note": whole["note"],
        "slices": each,
    }


@contextmanager
def opened(spec: RunSpec, store: Store | None = None) -> Iterator[tuple[list[Judge], asyncio.Runner]]:
    """The judges that `spec` names with their settings and model, and the event loop that model lives on.

    Raises UsageError when one needs a model and none is named, and for a setting of none of them.
    """
    check_settings(spec)
    asking = [name for name in spec.judge if asks(name)]
    if "llm" in asking and not spec.judge_model:
        hint = "--judge-model smollm2-135m, or a served model with --judge-base-url http://localhost:8000/v1"
        raise UsageError("judge 'llm' needs a model", hint=hint)
    with asyncio.Runner() as runner:
        model: Model | None = None
        if asking and spec.judge_model:
            model = runner.run(open_helper("judge", spec))
        try:
            asked = Remembered(model, store) if model is not None and store is not None else model
            yield [make_judge(name, spec, asked) for name in spec.judge], runner
        finally:
            if model is not None:
                runner.run(model.close())


def check_settings(spec: RunSpec) -> None:
    """Raises UnknownName or UsageError for a setting that no judge named would read."""
    known, asked = registry.table("judge"), judges_of(spec)
    for name in spec.settings():
        if name not in known:
            raise UnknownName("judge in --set:", name, known)
        if name not in asked:
            raise UsageError(f"--set {name}: no judge of this name is asked", hint=f"--judge {name}")


def asks(name: str) -> bool:
    """Whether a judge can be given a model. Raises UnknownName."""
    return "model" in getattr(registry.load("judge", name), "__dataclass_fields__", {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What came of it: one JSON object, and the folder of the run, if one was written."""

    told: dict[str, Any]
    folder: Path | None = None


def score(
    file: Path,
    spec: RunSpec,
    *,
    form: str = "",
    questions: str = "",
    out: Path | None = None,
    labelled: bool = False,
) -> Scored:
    """Judges a recorded file or a run folder with the judges of `spec` (its `judge`, `judge_model` and `set`).

    `labelled` says that the labels the file carries are those of a random sample of it, to correct the rates by.
    Raises UsageError or DataError.
    """
    tally, kept, human = Tally(), list[Record](), dict[str, bool]()
    file = located(file)
    items = read(file, form, questions=questions)
    before = people(file) if file.is_dir() else People()
    with ExitStack() as stack:
        store = stack.enter_context(Store(out)) if out else None
        judges, runner = stack.enter_context(opened(spec, store))
        names = [judge.name for judge in judges]
        carried, left = _carried(file, before, judges[0])
        if out:
            begin(out, file, spec, judges, form=form, questions=questions, note=left)
        found = _judged(items, judges, runner, store)
        first = list(islice(found, 1))  # processes are forked for it: before the bar starts a thread
        bar = stack.enter_context(progress.Bar(0, "judged", "reply"))
        for item, record in chain(first, found):
            tally.add(record)
            bar.done()
            if labelled and item.human is not None:
                human[record.key] = item.human
            if labelled or before.human or before.carried:
                kept.append(record)
    said = People(human={**before.human, **human}, carried=carried)
    if out is None:
        fixed = corrections(measures(kept, said), left) if kept else _UNLABELLED
        return Scored(told=tally.told(names, fixed))
    finish(out, said, file.name)
    return Scored(told=tally.told(names, corrections(load(out).metrics, left)), folder=out)


_UNLABELLED: Mapping[str, Any] = {
    "corrected": None,
    "corrected_low": None,
    "corrected_high": None,
    "corrected_note": "not corrected: no labels",
}


def _carried(run: Path, told: People, judge: Judge) -> tuple[Carried | None, str]:
    """What is known of the judge that counts from labels of other replies; else, where it is another's, a note."""
    carried = told.carried
    if carried is None or (carried.judge == judge.name and _same(judge, load(run).info)):
        return carried, ""
    return None, f"the labels in {carried.source} tell of another judge: {carried.judge} as it judged {run.name}"


def _same(judge: Judge, info: Mapping[str, Any]) -> bool:
    """Whether a judge is just as the one of its name in a run."""
    described = json.loads(json.dumps(describe_judge(judge), default=str))
    return bool(info.get("judges", {}).get(judge.name) == described)


def _judged(
    items: Iterator[Recorded], judges: Sequence[Judge], runner: asyncio.Runner, store: Store | None
) -> Iterator[tuple[Recorded, Record]]:
    """Every item with its judged record; those a folder holds are taken from it, new ones are written to it."""
    names = [judge.name for judge in judges]
    if store is None:
        items, again = tee(items)
        yield from zip(again, judged(items, judges, runner=runner), strict=True)
        return
    items, again = tee(items)
    new = judged((item for item in items if not _known(store, item, names)), judges, runner=runner)
    for item in again:
        if _known(store, item, names):
            yield item, store.records[item.record.key]
            continue
        record = next(new)
        if item.completion is not None:
            behavior = item.attempt.behavior
            if behavior.reference or behavior.opening:  # judges read more of it than the request
                store.put_behavior(behavior)
            store.put_recorded(record.key, item.attempt.prompt, item.completion, behavior.request, item.said)
        store.put_record(record)
        yield item, record


def _known(store: Store, item: Recorded, judges: Sequence[str]) -> bool:
    """Whether a folder holds this item's verdicts by these judges, none of them unscored."""
    record = store.records.get(item.record.key)
    return record is not None and [j.judge for j in record.judgements if j.label != "unscored"] == list(judges)


def begin(
    out: Path,
    file: Path,
    spec: RunSpec,
    judges: Sequence[Judge],
    *,
    form: str = "",
    questions: str = "",
    note: str = "",
) -> None:
    """Writes run.json as partial, `note` among its notes.

    Raises DataError when the folder holds another run, or one that was read in another way.
    """
    source = load(file).info if file.is_dir() else {}
    data = file / "records.jsonl" if file.is_dir() else file
    hashed, asked = digest(data), digest(Path(questions).expanduser()) if questions else ""
    described = {j.name: describe_judge(j) for j in judges}
    identity = sha([hashed, described, form or detect(file), asked])[:8]
    started = now()
    if (out / "run.json").exists():
        earlier = load(out, metrics=False).info
        if earlier.get("identity") != identity:
            raise DataError(f"{out} already holds a run", hint="name another folder with --out")
        started = earlier.get("started", started)
    again = f"judged again from {file.name}" if source else f"scored from {file.name}"
    info = {
        **source,
        "status": "partial",
        "identity": identity,
        "command": f"harness score {file.name} --judge {','.join(spec.judge)}",
        "spec": {**dict(source.get("spec", {"model": file.stem})), "judge": list(spec.judge), "set": list(spec.set)},
        "started": started,
        "finished": None,
        "versions": versions(),
        "judges": described,
        "source_sha256": hashed,
        "notes": [
            *source.get("notes", ()),
            f"{again}: nothing was asked of the model under attack",
            *([f"no error rates of the judge carried over: {note}"] if note else []),
        ],
    }
    write_json(out / "run.json", info)


def finish(out: Path, said: People, source: str) -> None:
    """Labels, metrics and reports of a folder whose records are all there."""
    if said.human:
        (out / LABELS).unlink(missing_ok=True)
        keep(out, said.human, by=f"labels of {source}")
    if said.carried:
        carry(out, said.carried)
    done = load(out, metrics=False)
    write_json(out / "run.json", {**done.info, "status": "complete", "finished": now()})
    write_metrics(out, done.records)
    write_reports(load(out))


def take_labels(run: Path, labels: Path, *, method: Method = "ppi", by: str = "") -> int:
    """Keeps people's labels with a run, to correct its rates by; how many were read.

    `ppi`: labels of a random sample of this run's own replies, a sheet or question,answer,label. `rogan-gladen`: labels
    of any replies under attack, on which the run's judge is tried; how it did is carried over to slices without labels
    of their own.
    Raises DataError or UsageError.
    """
    if method == "ppi":
        found = read_labels(labels, run)
        if not found:
            raise DataError(f"{labels} has no labels", hint="a column label with 1 (violation) or 0")
        keep(run, found, by=by or labels.name)
        return len(found)
    carried = tried(run, labels)
    carry(run, carried)
    return carried.labels.positives + carried.labels.negatives


def tried(run: Path, labels: Path) -> Carried:
    """The judge that counts in a run, on replies under attack that were labelled elsewhere.

    Raises DataError without labels, UsageError when the judge at hand is another than the run's.
    """
    info = load(run).info
    with opened(judge_spec(info.get("spec", {}))) as (judges, runner):
        [judge] = judges
        if not _same(judge, info):
            hint = f"judge it again first: harness score {run} --out FOLDER"
            raise UsageError(f"{run} was judged by another {judge.name} than this one", hint=hint)
        known = [item for item in read(labels) if item.human is not None and item.completion is not None]
        items = [item for item in known if attacked(item.record)]
        found = [
            (complied(record), float(bool(item.human)), question(record))
            for item, record in zip(items, judged(items, judges, runner=runner), strict=True)
            if record.label not in (None, "unscored")
        ]
    if not found:
        kind = " of replies under attack" if known and not items else ""
        raise DataError(f"{labels} has no labels{kind}", hint="a column label with 1 (violation) or 0")
    return Carried(
        source=labels.name,
        sha256=digest(located(labels)),
        judge=judge.name,
        labels=Labels.of(*zip(*found, strict=True)),
        left_out=len(known) - len(items),
    )


def digest(file: Path) -> str:
    """The hash of a file. Raises DataError when it can't be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as err:
        raise DataError(f"{file} can't be read: {err.strerror}") from err


def judge_spec(told: Mapping[str, Any]) -> RunSpec:
    """Settings of the judge that counts in a run, from its own; its model is the run's where it has none."""
    keys = ("judge_model", "judge_base_url", "judge_api_key_env", "set", "base_url", "api_key_env")
    own = {k: told[k] for k in keys if k in told}
    if not own.get("judge_model"):
        own |= {"judge_model": told.get("model", ""), "judge_base_url": told.get("base_url", "")}
    spec = make_spec({**own, "model": told.get("model") or "recorded", "judge": list(told.get("judge", ["rules"]))[:1]})
    used = judges_of(spec)
    return replace(spec, set=tuple(item for item in spec.set if item.partition(".")[0] in used))
