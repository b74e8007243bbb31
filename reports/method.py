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
    "95% interval": "Where the value would fall in 95 of 100 such samples of questions. Where intervals overlap, this "
    "report claims no difference.",
    "Corrected": "ASR freed of the judge's own errors, which takes a labelled random sample of the same replies. "
    "Without one there is no corrected number, and what stands here is the judge's reading.",
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
    for kind in ("models", "tasks", "judges"):
        for name, entry in part(run.info, kind).items():
            if hashes := _hashes(entry):
                facts.append(Fact(name=f"{kind[:-1]} {clean(name, 32)}", value=hashes, code=True))
    versions = ", ".join(f"{clean(k, 32)} {clean(v, 32)}" for k, v in part(run.info, "versions").items())
    if versions:
        facts.append(Fact(name="versions", value=versions, code=True))
    spec = part(run.info, "spec")
    settings = ", ".join(f"{clean(k, 32)}={clean(v, 60)}" for k, v in spec.items() if v not in (None, "", [], {}))
    if settings:
        facts.append(Fact(name="settings", value=clean(settings, 1200), code=True))
    lead = "The same command with the same hashes gives the same records; run.json in the run folder holds all of it."
    return Section(key="reproduce", title="To run it again", lead=lead, facts=tuple(facts))


def _hashes(entry: object) -> str:
    """The fields of an entry of run.json that name a hash, as `checkpoint 1a2b...`."""
    if not isinstance(entry, Mapping):
        return ""
    found: Mapping[str, Any] = entry
    pairs = [(str(k).removesuffix("_sha"), v) for k, v in found.items() if str(k) == "sha" or str(k).endswith("_sha")]
    return ", ".join(f"{clean(k, 32)} {clean(v, 72)}" for k, v in pairs if v)
