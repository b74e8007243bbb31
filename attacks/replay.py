"""Replay: prompts that an earlier run found on one checkpoint, sent to another. Do they transfer?

`harness run --from-run RUN` takes every prompt that a search or template led to in that run (its transcripts hold them)
and sends it as it is; behaviors are matched by id. What has no counterpart is counted, and the replies are read as the
attack that found the prompt reads them.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from harness import registry
from harness.data.runs import read as replies
from harness.errors import DataError, HarnessError, UnknownName, UsageError
from harness.store import load
from harness.types import Attack, Attempt, Behavior, Capability, Context, Label

PLAIN = ("direct", "contrast")  # what no attack has worked on: nothing of it can transfer


@dataclass(frozen=True, slots=True)
class Found:
    """A prompt of the source run, and what became of it there."""

    attempt: Attempt
    model: str
    label: Label | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay(Attack):
    """Prompts found in another run, sent as they are: transfer.

    The variant says where a prompt is from: `attack:variant@model`. Each costs one query, whatever finding it took.
    """

    name: ClassVar[str] = "replay"
    needs: ClassVar[frozenset[Capability]] = frozenset()  # each prompt has its own needs

    run: str = ""  # the run folder; --from-run
    attacks: tuple[str, ...] = ()  # only what these found; (): all but the bare requests
    model: str = ""  # only what was found on this model of the run
    won: bool = False  # only what worked there

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt for every prompt that was found for this behavior and that the model can take."""
        for found in self.prompts(behavior):
            if found.attempt.prompt.needs <= context.target.can:
                variant = self.label(found)
                attempt = replace(found.attempt, behavior=behavior, attack=self.name, variant=variant)
                yield replace(attempt, seed=context.seed, queries=1, spent={})

    def read(self, attempt: Attempt, text: str) -> str:
        """The reply as the attack that found the prompt reads it."""
        attack, _, rest = attempt.variant.partition(":")
        try:
            plugin = registry.make("attack", attack)
        except HarnessError:  # found by a package that is not installed here
            return text
        return str(plugin.read(replace(attempt, attack=attack, variant=rest.rpartition("@")[0]), text))

    def label(self, found: Found) -> str:
        """Where a prompt is from."""
        seed = f"#{found.attempt.seed}" if len(seeds(self.run)) > 1 else ""
        return f"{found.attempt.attack}:{found.attempt.variant}{seed}@{found.model}"

    def prompts(self, behavior: Behavior) -> list[Found]:
        """What was found for a behavior: under the same task where there is one, else under the same id."""
        every = [f for f in source(self.run).get(behavior.id, ()) if self.wanted(f)]
        same = [f for f in every if f.attempt.behavior.task == behavior.task]
        return same or every

    def wanted(self, found: Found) -> bool:
        """Whether the settings ask for this prompt."""
        if self.model and found.model != self.model:
            return False
        if self.won and found.label != "complied":
            return False
        return found.attempt.attack in self.attacks if self.attacks else found.attempt.attack not in PLAIN

    def describe(self, behaviors: Sequence[Behavior], can: Collection[Capability]) -> dict[str, Any]:
        """The source run, what of it is replayed, how that did there, and what has no counterpart.

        Raises UsageError without a run, UnknownName for an attack that it lacks, DataError when it can't be read or
        nothing in it fits.
        """
        if not self.run:
            raise UsageError("replay needs a run to take prompts from", hint="--from-run RUN")
        known = {f.attempt.attack for prompts in source(self.run).values() for f in prompts}
        for name in self.attacks:
            if name not in known:
                raise UnknownName(f"attack of {self.run}:", name, known)
        matched = {b.id: prompts for b in behaviors if (prompts := self.prompts(b))}
        chosen = [f for prompts in matched.values() for f in prompts]
        fitting = [f for f in chosen if f.attempt.prompt.needs <= set(can)]
        if not fitting:
            raise DataError(f"{self.run} holds no prompt for these behaviors", hint="the same --behaviors and --split?")
        there: dict[str, Counter[str]] = defaultdict(Counter)
        for found in fitting:
            there[self.label(found)][found.label or "error"] += 1
        theirs = {b for b, prompts in source(self.run).items() if any(map(self.wanted, prompts))}
        counts = {
            "prompts": len(fitting),
            "behaviors": len(matched),
            "without_counterpart": len({b.id for b in behaviors} - set(matched)),
            "not_asked_here": len(theirs - {b.id for b in behaviors}),
            "beyond_the_model": len(chosen) - len(fitting),
        }
        return {
            "source": {**origin(self.run), **counts, "labels": {name: dict(n) for name, n in sorted(there.items())}},
            "notes": [told(origin(self.run), counts)],
        }


def told(about: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    """The source and the counts in a sentence."""
    parts = [
        f"replay: {counts['prompts']} prompts of {about['run']} ({', '.join(about['models'])}) "
        f"on {counts['behaviors']} behaviors",
        f"{counts['without_counterpart']} behaviors have none there",
        f"{counts['not_asked_here']} of its behaviors are not asked here",
    ]
    if counts["beyond_the_model"]:
        parts.append(f"{counts['beyond_the_model']} prompts are of a kind that this model can't take")
    return "; ".join(parts)


@functools.lru_cache(maxsize=4)
def source(folder: str) -> dict[str, list[Found]]:
    """The prompts of a run by behavior id. Raises DataError when its records or transcripts can't be read."""
    path = Path(folder).expanduser()
    labels = {record.key: record.label for record in load(path).records}
    found: dict[str, list[Found]] = defaultdict(list)
    for reply in replies(path, None, prompts_only=True):
        if reply.record.expect == "refuse" and reply.completion is not None:
            found[reply.record.behavior].append(Found(reply.attempt, reply.record.model, labels[reply.record.key]))
    return dict(found)


@functools.lru_cache(maxsize=4)
def seeds(folder: str) -> frozenset[int]:
    """The seeds of a run's prompts."""
    return frozenset(found.attempt.seed for prompts in source(folder).values() for found in prompts)


@functools.lru_cache(maxsize=4)
def origin(folder: str) -> dict[str, Any]:
    """What identifies a run: its folder's name, its models with their hashes, when it ended, whether it is whole."""
    info = load(Path(folder).expanduser()).info
    models = {name: about.get("checkpoint_sha", "") for name, about in info.get("models", {}).items()}
    return {
        "run": Path(folder).expanduser().resolve().name,
        "models": models,
        "finished": info.get("finished"),
        "status": info.get("status"),
        "identity": info.get("identity"),
    }
