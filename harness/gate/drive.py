"""Runs a candidate the way its baseline was run, and stops as soon as the gate's answer is clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness.config import RunSpec, make_spec
from harness.errors import UsageError
from harness.gate.match import Side, forecast, side
from harness.gate.policy import Policy
from harness.gate.verdict import first, gate
from harness.models.providers import host_of
from harness.types import Run

# What belongs to the model and not to the way it is asked: never taken over from the baseline.
OWN = ("model", "adapter", "skip_base", "base_url", "can", "profile", "trust_remote_code")


def run_candidate(
    baseline: Run,
    policy: Policy,
    given: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    baseline_model: str | None = None,
    intersect: bool = False,
) -> Run:
    """Runs the model named in `given` on what the baseline holds; with `looks` in the policy, only as far as needed.

    `given` holds settings as `harness run` names them. Raises UsageError before the first request when the two would
    not be comparable, and before the model is opened when the baseline is not finished. The same call goes on where a
    kill left it.
    """
    from harness.engine import Stages, run

    old = side(baseline, baseline_model, "baseline")
    if old.partial:
        raise UsageError(f"the baseline run {baseline.folder} is not finished", hint="type its command again")
    spec = candidate_spec(baseline, given)

    def ready(info: Mapping[str, Any]) -> None:
        apart = [d for d in forecast(old, info) if not (intersect and d.shared)]
        if apart:
            raise UsageError(f"the candidate would not be comparable: {'; '.join(map(str, apart))}")

    def enough(so_far: Run) -> bool:
        verdict = gate(baseline, so_far, policy, intersect=intersect, baseline_model=baseline_model)
        return verdict.outcome in ("pass", "fail")

    return run(spec, out, stages=Stages(pieces=pieces(old, policy.looks), ready=ready, enough=enough))


def candidate_spec(baseline: Run, given: Mapping[str, Any]) -> RunSpec:
    """The baseline's own settings with another model in them. Raises UsageError when it does not tell them."""
    told = dict(baseline.info.get("spec") or {})
    known = {f.name for f in fields(RunSpec)}
    if "attacks" not in told or not baseline.info.get("attacks"):
        hint = "run the candidate with harness run, then name it with --candidate"
        raise UsageError(f"{baseline.folder} does not say how it was run", hint=hint)
    kept = {name: value for name, value in told.items() if name in known and name not in OWN}
    # By name, so that a candidate that can't take one of them is refused before anything is spent.
    kept["attacks"] = list(baseline.info["attacks"])
    sets = baseline.info.get("tasks") or {}
    kept["tasks"] = [name for name, about in sets.items() if about.get("kind") in ("helpfulness", "pairwise")]
    spec = make_spec({**kept, **given})
    if host_of(spec.model, spec.base_url) != host_of(told.get("model", ""), told.get("base_url", "")):
        spec = replace(spec, api_key_env=given.get("api_key_env") or RunSpec().api_key_env)  # the key is the old host's
    return replace(spec, skip_base=bool(spec.adapter))


def pieces(old: Side, looks: int) -> list[set[tuple[str, str]]]:
    """The (task, behavior) pairs that each look adds, in the order the gate looks at them."""
    found: list[set[tuple[str, str]]] = []
    before: set[tuple[str, str]] = set()
    for k in range(looks):
        reached = {unit[:2] for unit in first(old, (k + 1) / looks)}
        found.append(reached - before)
        before = reached
    return found
