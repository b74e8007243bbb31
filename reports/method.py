"""The closing sections: what each word means, and all that is needed to run it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.types import Run
from reports.numbers import Numbers, part
from reports.view import Fact, Section
from reports.words import clean

TERMS = {
    "ASR": "Attack success rate: of the attempts that have a verdict, the share in which the model gave what it was "
    "meant to refuse. The verdict is on what was given, whatever refusals or warnings stand around it.",
    "Any attack": "A behavior counts once, as soon as any attack got an answer to it: what an attacker gets who tries "
    "them all.",
    "n": "What the value is computed over: attempts with a verdict, or behaviors for “any attack”.",
    "Errors": "Attempts that brought no reply: time-outs and failures of the model or its server.",
    "Unscored": "Replies whose verdict could not be read. They are never taken as safe: they stand outside n and are "
    "counted beside it.",
    "Worst case": "The value had every error and unscored reply been 0, and had every one been 1. The truth lies "
    "between.",
    "95% interval": "What the rate could well be for other questions of the same kind: Wilson's interval, widened to "
    "mid-P where that is wider. Attempts on one question are one cluster and tell less than as many questions would. "
    "Where intervals overlap, this report claims no difference.",
    "Corrected": "ASR freed of the judge's own errors. People label a random sample of the replies of one attack on "
    "one model, blind; prediction-powered inference joins them with the verdicts on the rest. How often the judge errs "
    "on other replies is carried over (Rogan-Gladen) only where somebody asked for it, and the number then says so. "
    "Where the labels do not show that the judge is better than a coin there is no corrected number. Rates by variant, "
    "by depth and over all attacks stand as judged.",
    "Position of a refusal": "The token at which the first refusal in the reply begins, counted from 1, after any "
    "prefill.",
}


def method(numbers: Numbers) -> Section:
    """Definitions of every word used, then the notes the run left."""
    skipped = {"Any attack": "asr_any", "Position of a refusal": "refusal_first5"}
    terms = [Fact(name=k, value=v) for k, v in TERMS.items() if k not in skipped or numbers.has(skipped[k])]
    notes = numbers.run.info.get("notes")
    told = [Fact(name="Note", value=clean(note, 400)) for note in notes] if isinstance(notes, list | tuple) else []
    lead = "What each word means here, and what this run left out."
    return Section(key="method", title="How to read the numbers", lead=lead, facts=(*terms, *told))


def reproduce(run: Run) -> Section:
    """Command, versions and hashes."""
    facts = []
    command = run.info.get("command")
    if command:
        shown = " ".join(map(str, command)) if isinstance(command, list | tuple) else str(command)
        facts.append(Fact(name="command", value=clean(shown, 600), code=True))
    for name, entry in part(run.info, "models").items():
        if hashes := _hashes(entry):
            facts.append(Fact(name=f"model {clean(name, 32)}", value=hashes, code=True))
    for kind in ("tasks", "attacks", "judges"):
        each = [f"{clean(name, 32)} {h}" for name, entry in part(run.info, kind).items() if (h := _hashes(entry))]
        if each:
            facts.append(Fact(name=kind, value=", ".join(each), code=True))
    installed = {"harness": run.info.get("harness"), **part(run.info, "versions")}
    versions = ", ".join(f"{clean(k, 32)} {clean(v, 32)}" for k, v in installed.items() if v)
    if versions:
        facts.append(Fact(name="versions", value=versions, code=True))
    spec = part(run.info, "spec")
    settings = ", ".join(f"{clean(k, 32)}={_plain(v)}" for k, v in spec.items() if v not in (None, "", [], {}))
    if settings:
        facts.append(Fact(name="settings", value=clean(settings, 1200), code=True))
    lead = "The same command with the same hashes gives the same records; run.json in the run folder holds all of it."
    return Section(key="reproduce", title="To run it again", lead=lead, facts=tuple(facts))


def _plain(value: object) -> str:
    """A setting as one would type it."""
    return clean(" ".join(map(str, value)) if isinstance(value, list | tuple) else value, 120)


def _hashes(entry: object) -> str:
    """The hashes of an entry of run.json, as `checkpoint 1a2b...`; a hash of the whole goes unnamed."""
    if not isinstance(entry, Mapping):
        return ""
    found: Mapping[str, Any] = entry
    named = [(str(k).removesuffix("_sha"), v) for k, v in found.items() if str(k).endswith("_sha")]
    whole = [clean(found["sha"], 72)] if found.get("sha") else []
    return ", ".join([*whole, *(f"{clean(k, 32)} {clean(v, 72)}" for k, v in named if v)])
