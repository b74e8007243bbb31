"""The paper's protocol as settings of a run: which profile, what a trial cuts, and what must be pulled beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.config import PROFILES, RunSpec, make_spec
from harness.data import pinned
from harness.errors import UsageError
from harness.models import embedded

PROTOCOL, STAND_IN = "paper", "paper-stand-in"
TRIAL = (
    "pair.streams=2",
    "pair.iterations=2",
    "pair.tries=2",
    "pair.attacker_tokens=200",
    "autodan.steps=2",
    "autodan.size=8",
)
"""With `--limit` a run is a trial, whose numbers mean little: its searches are cut too, so that it ends soon."""


def make(given: Mapping[str, Any], *, stand_in: bool = False) -> RunSpec:
    """The settings of a run of the protocol; what is given wins over it.

    Without the public data (the embedded model, a script) or when asked, the questions, tasks and templates are those
    of the stand-in policy. Raises UsageError where data is missing, and whatever `make_spec` does.
    """
    model = str(given.get("model", ""))
    stand_in = stand_in or ("behaviors" not in given and (model == embedded.NAME or model.startswith("scripted:")))
    profile = STAND_IN if stand_in else PROTOCOL
    told = {**given, "profile": profile}
    if str(given.get("limit", "0")) not in ("", "0"):
        told["set"] = (*TRIAL, *given.get("set", ()))
        told.setdefault("task_limit", given["limit"])
    return make_spec(told)


def check_data(spec: RunSpec) -> None:
    """Raises UsageError, which names every public set that the run needs and this machine lacks."""
    needed = [spec.behaviors, *spec.tasks, *(name.replace("_", "-") for name in spec.attacks)]
    if "derta-alpaca" in spec.tasks and not spec.reference:
        needed.append("alpaca-eval")
    missing = [name for name in dict.fromkeys(needed) if name in pinned.table() and not pinned.pulled(name)]
    if missing:
        hint = f"harness data pull {' '.join(missing)}, or try the protocol on harmless stand-ins: --stand-in"
        raise UsageError(f"the public data is not on this machine: {', '.join(missing)}", hint=hint)


def is_protocol(spec: Mapping[str, Any]) -> bool:
    """Whether the settings of a run folder are those of this protocol, in either form."""
    return spec.get("profile") in (PROTOCOL, STAND_IN)


def is_stand_in(spec: Mapping[str, Any]) -> bool:
    """Whether the questions are other than the paper's."""
    return bool(spec.get("behaviors") != PROFILES[PROTOCOL]["behaviors"])
