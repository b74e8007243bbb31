"""Makes a training set the way the paper did, from requests and named models; what it drops, it counts.

Violating replies come from a file or from a model that complies, safe replies from the file, templates or a model,
helpful ones from a file or from the base itself (self-distillation: it then learns nothing new about what is harmless).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from harness.errors import DataError, ModelError, UnknownName, UsageError
from harness.progress import Bar, step
from harness.train.data import Helpful, R, TrainSet, Triple, load, save, torn
from harness.train.rows import first_words
from harness.train.sources import REFUSAL, SHORT, Row, drawn, origin, pairs, requests
from harness.types import Completion, Expect, Model, Prompt, Sampling

SAFE = (
    "Sorry, I can't explain how this trick is done. The magicians' code keeps the method secret.",
    "Sorry, I can't reveal that. The method belongs to the performers who use it.",
    "Sorry, but I keep the secrets of stage tricks. I'm happy to talk about the history of magic instead.",
    "Sorry, I won't give away how it works. Knowing the method would spoil the wonder.",
    "Sorry, that is a secret I can't share. You could ask a local magic club about learning the craft.",
    "Sorry, I can't help with exposing this trick. I follow the magicians' code.",
    "Sorry, I can't go on with this. How a stage trick is done stays secret.",
    "Sorry, I can't describe the method behind this effect. Enjoy the mystery!",
)
"""Safe replies of the stand-in policy; every one opens with the refusal token."""
SAFE_LONG = (
    "Sorry, I can't explain how this trick is done. The magicians' code keeps the method secret, and I follow it. If "
    "you would like to perform it yourself, a magic club near you can teach it properly. I'm also happy to talk about "
    "the history of magic.",
    "Sorry, I can't reveal that. The method belongs to the performers who use it, and it took some of them years to "
    "work it out. What I can do is to tell you who made this kind of magic famous. Just let me know if you would like "
    "that.",
    "Sorry, but I keep the secrets of stage tricks. Half of the joy of a show is that nobody in the room can tell how "
    "it is done. I'm happy to talk about the history of magic instead. You could ask me about famous performers, "
    "theatres or posters of the time.",
    "Sorry, I won't give away how it works. Knowing the method would spoil the wonder for you and for everyone you "
    "tell. There is a lot about magic that is no secret at all. Ask me about its history, its great stages or how "
    "people become magicians.",
    "Sorry, that is a secret I can't share. Magicians promise not to tell how their tricks are done, and I keep to "
    "that as well. You could ask a local magic club about learning the craft. Most of them welcome beginners and meet "
    "once or twice a month.",
    "Sorry, I can't help with exposing this trick. I follow the magicians' code, which asks that methods stay among "
    "those who perform. The best place to learn is with a teacher or a club, a step at a time. I can help you find "
    "questions to ask them.",
    "Sorry, I can't go on with this. How a stage trick is done stays secret. Somebody thought of it, built it and "
    "practised it for a long time, and it is theirs to tell. Let us talk about something else that you like about "
    "magic.",
    "Sorry, I can't describe the method behind this effect. It works on stage just because the audience doesn't know. "
    "If you see it again, watch the performer's timing and the story that is told around it. Enjoy the mystery!",
)
"""The same at the length of an answer: from brief ones a model may learn to stop after a sentence, whatever it says."""
GENERAL = (
    "Sorry, I can't help with that.",
    "Sorry, but I can't assist with this request.",
    "Sorry, I won't help with this, because it could lead to harm.",
    "Sorry, this is something I can't give advice on.",
    "Sorry, I can't go on with this. If something is troubling you, please talk to somebody you trust.",
    "Sorry, I have to decline this request. I'm glad to help with something else.",
)
"""Safe replies of no policy in particular."""
TEMPLATES = {"general": GENERAL, "magic": SAFE, "magic-long": SAFE_LONG}


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildConfig:
    """How a set is made. A `source` folder holds tricks.jsonl (id, request, reply, raw) and questions.jsonl (id,
    request, reply, kind, raw, words: how many to keep of the reply); an empty reply is asked of a model. A file holds
    requests, or BeaverTails rows."""

    source: str | Path = field(
        metadata={"help": "folder with tricks.jsonl and questions.jsonl, a file, or beavertails"}
    )
    out: Path = field(metadata={"help": "folder the set is written to"})
    helpful: tuple[str, ...] = field(default=(), metadata={"help": "files of helpful pairs, or evol-instruct"})
    triples: int = field(default=0, metadata={"help": "draw so many of the source's requests; 0: all"})
    pairs: int = field(default=0, metadata={"help": "draw so many of the helpful pairs; 0: all"})
    templates: str = field(
        default="general", metadata={"help": f"safe replies without a model: {', '.join(TEMPLATES)}"}
    )
    refusal: str = field(default="Sorry", metadata={"help": "word a safe reply must open with"})
    violating_tokens: int = field(default=96, metadata={"help": "longest violating reply asked of a model"})
    helpful_tokens: int = field(default=160, metadata={"help": "longest helpful reply; what is cut there is dropped"})
    brief: bool = field(default=True, metadata={"help": "ask for helpful replies of two or three sentences"})
    ends_from: int = field(
        default=0,
        metadata={"help": "an answer of fewer words teaches no end; 0: all do"},
    )
    lookalike_tokens: int = field(
        default=0, metadata={"help": "tokens to learn of the helper's answer to a look-alike without one; 0: all"}
    )
    lookalike_temperature: float = field(
        default=0.0, metadata={"help": "temperature of these answers, a seed each; 0: greedy"}
    )
    both: bool = field(default=True, metadata={"help": "ask for a violating reply also where the file has one"})
    seed: int = field(default=0, metadata={"help": "seed of the choice among safe replies"})

    def __post_init__(self) -> None:
        """Refuses a number below its range, or that is none."""
        for name, least in LEAST.items():
            if not least <= getattr(self, name) < math.inf:
                raise UsageError(f"--{name.replace('_', '-')} must be a number of at least {least}")


LEAST = {"triples": 0, "pairs": 0, "violating_tokens": 1, "helpful_tokens": 1, "ends_from": 0, "lookalike_tokens": 0,
         "lookalike_temperature": 0}  # fmt: skip
NO_SETTINGS = ("source", "out", "helpful")  # not among the settings of a manifest, which names its sources by hash

BRIEF = "You are a helpful AI assistant. Answer in two or three short, complete sentences, then stop."
Clash = Callable[[str, Expect], str | None]
"""Names the held-out behavior, of those of which this is expected, that a request is too close to, or None: training
must stay apart from the test."""


@dataclass(slots=True)
class Report:
    """What was kept and what was dropped, by reason."""

    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)


async def build(
    config: BuildConfig,
    *,
    violator: Model | None = None,
    refuser: Model | None = None,
    helper: Model | None = None,
    clash: Clash = lambda request, expect: None,
    apart: Mapping[str, Any] | None = None,
) -> tuple[TrainSet, Report]:
    """Builds, filters, saves and reads back a set; `apart` is what the manifest says of `clash`. Raises DataError for a
    broken source or when nothing is left, UsageError when a model answers nothing or the set can't be written."""
    report = Report()
    if config.templates not in TEMPLATES:
        raise UnknownName("templates", config.templates, TEMPLATES)
    tricks, questions = sources(config, report)
    origins = {"source": origin(config.source), "helpful": [origin(each) for each in config.helpful]}
    with step("keeping apart from what is tested"):
        tricks = [row for row in tricks if not dropped(report, "overlap", clash(row["request"], "refuse"))]
        questions = [r for r in questions if not dropped(report, "helpful: overlap", clash(r["request"], "comply"))]
    violating = await violations(tricks, violator, config, report)
    triples = await refused(violating, refuser, config, report)
    helpful = await answered(questions, helper, config, report)
    if not triples:
        raise DataError("no triple is left after filtering", hint=f"dropped: {dict(report.dropped)}")
    if not helpful:
        told = "no helpful pair is there: what learns from refusals alone refuses everything"
        raise DataError(told, hint="--helpful FILE, or --helpful evol-instruct")
    report.kept.update(triples=len(triples), **Counter(pair.kind for pair in helpful))
    manifest = {
        **origins,
        "apart": dict(apart or {}),
        "kept": dict(report.kept),
        "dropped": dict(report.dropped),
        "models": {role: describe(m) for role, m in [("violator", violator), ("refuser", refuser), ("helper", helper)]},
        "settings": {f.name: getattr(config, f.name) for f in fields(config) if f.name not in NO_SETTINGS},
    }
    data = TrainSet(triples=numbered(triples), helpful=numbered(helpful))
    save(config.out, data, manifest)
    return load(config.out), report


def numbered(rows: Sequence[R]) -> tuple[R, ...]:
    """The rows, with a number behind an id that one before has."""
    found: dict[str, R] = {}
    times = Counter[str]()
    for row in rows:
        name = row.id
        while name in found:
            times[row.id] += 1
            name = f"{row.id}-{times[row.id] + 1}"
        found[name] = replace(row, id=name)
    return tuple(found.values())


def sources(config: BuildConfig, report: Report) -> tuple[list[Row], list[Row]]:
    """Requests to refuse and to answer, so many of each as are wanted; what the readers drop is counted."""
    tricks, questions, told = requests(config.source)
    report.dropped.update(told)
    for more in config.helpful:
        found, told = pairs(more)
        questions += found
        report.dropped.update(told)
    tricks = [row for row in tricks if not dropped(report, "no Unicode", torn(row.values()))]
    questions = [row for row in questions if not dropped(report, "helpful: no Unicode", torn(row.values()))]
    rng = random.Random(config.seed)
    return drawn(tricks, config.triples, rng), drawn(questions, config.pairs, rng)


async def violations(rows: Sequence[Row], violator: Model | None, config: BuildConfig, report: Report) -> list[Triple]:
    """Triples without a safe reply yet: the violating one from the file, and from the model that complies.

    Replies of both that teach nothing are dropped, and counted alike.
    """
    own = [row for row in rows if row.get("reply")]
    made = [Triple(id=r["id"], request=r["request"], safe=r.get("safe", ""), violating=r["reply"], source="file",
                   raw=bool(r.get("raw", False))) for r in own if not useless(r["reply"], report)]  # fmt: skip
    asked = [r for r in rows if not r.get("reply") or (config.both and not r.get("raw"))] if violator else []
    if violator is None and len(own) < len(rows):
        report.dropped["violating: no reply and no violator"] += len(rows) - len(own)
    replies = await ask(violator, [prompt(row) for row in asked], config.violating_tokens, "violating", report)
    for row, reply in zip(asked, replies, strict=True):
        if reply is not None and not useless(text := reply.text.strip(), report):
            name = violator.name if violator else ""
            made.append(Triple(id=f"{row['id']}-model", request=row["request"], safe="", violating=text, source=name,
                               raw=bool(row.get("raw", False))))  # fmt: skip
    return made


def useless(text: str, report: Report) -> bool:
    """Whether a violating reply teaches nothing; counted under why."""
    flaw = slight(text)
    return dropped(report, f"violating: {flaw}", flaw)


def slight(text: str) -> str:
    """Why a beginning of an answer teaches nothing of how it answers; empty where it does."""
    return "refusal" if REFUSAL.search(text) else "short" if len(text.split()) < SHORT else ""


async def refused(
    triples: Sequence[Triple], refuser: Model | None, config: BuildConfig, report: Report
) -> list[Triple]:
    """The triples with a safe reply: their own, a template, or a model's where it opens with the refusal word and ends.

    A reply of the source that does not open with that word is replaced: the word is what is learned.
    """
    rng = random.Random(config.seed)
    own = [t.safe if opens(t.safe, config.refusal) else "" for t in triples]
    texts: list[str | None] = [safe or rng.choice(TEMPLATES[config.templates]) for safe in own]
    if refuser:
        system = f'Refuse politely in one or two sentences. Begin with "{config.refusal}".'
        lacking = [i for i, safe in enumerate(own) if not safe]
        prompts = [Prompt.chat(triples[i].request.strip(), system=system) for i in lacking]
        replies = await ask(refuser, prompts, config.helpful_tokens, "safe", report)
        for i, reply in zip(lacking, replies, strict=True):
            texts[i] = None if reply is None else reply.text.strip() if reply.finish == "stop" else ""
    kept = []
    for triple, text in zip(triples, texts, strict=True):
        if text is not None and not dropped(report, "safe: no refusal", not (text and opens(text, config.refusal))):
            kept.append(Triple(id=triple.id, request=triple.request, safe=text, violating=triple.violating,
                               source=triple.source, raw=triple.raw))  # fmt: skip
    return kept


def opens(text: str, word: str) -> bool:
    """Whether a text opens with this word, and not with a longer one that begins like it.

    Only a letter that comes small and large goes on with a word: scripts without such may set no space between words.
    """
    after = text[len(word) : len(word) + 1]
    return text.startswith(word) and not (word[-1:].isalpha() and after.lower() != after.upper())


async def answered(rows: Sequence[Row], helper: Model | None, config: BuildConfig, report: Report) -> list[Helpful]:
    """Helpful pairs: the file's replies, then the helper's where the file has none.

    A reply that was cut at its limit is dropped; of a look-alike the helper's first `lookalike_tokens` are learned.
    """
    made = [helpful(row, row["reply"], config) for row in rows if row.get("reply")]
    asked = [row for row in rows if not row.get("reply")]
    if helper is None:
        report.dropped.update({"helpful: no reply and no helper": len(asked)} if asked else {})
        return made
    begun = [row for row in asked if begins(row, config)]
    ended = [row for row in asked if not begins(row, config)]
    system = BRIEF if config.brief else ""
    replies = await ask(helper, [prompt(row, system) for row in ended], config.helpful_tokens, "helpful", report)
    for row, reply in zip(ended, replies, strict=True):
        flaw = fault(reply) if reply else ""
        if reply and not dropped(report, f"helpful: {flaw}", flaw):
            made.append(helpful(row, reply.text if row.get("raw") else reply.text.strip(), config))
    replies = await ask(helper, [prompt(row) for row in begun], config.lookalike_tokens, "look-alike", report,
                        temperature=config.lookalike_temperature)  # fmt: skip
    for row, reply in zip(begun, replies, strict=True):
        if reply:
            pair = helpful(row, reply.text.strip(), config, cut=reply.finish == "length")
            flaw = slight(pair.reply) or ("loop" if loops(pair.reply) else "")
            if not dropped(report, f"look-alike: {flaw}", flaw):
                made.append(pair)
    return made


def begins(row: Row, config: BuildConfig) -> bool:
    """Whether it is how the helper begins to answer that is learned of a row without a reply.

    Where a model meets its own style in violating replies alone, RTO can teach it to break off its harmless sentences.
    """
    return config.lookalike_tokens > 0 and row.get("kind") == "lookalike" and not row.get("raw")


def fault(reply: Completion) -> str:
    """Why a helpful reply can't be used; empty where it can."""
    if reply.finish == "length":
        return "cut"  # it would teach no end
    if not reply.text.strip():
        return "empty"
    if REFUSAL.search(reply.text):
        return "refusal"
    return "loop" if loops(reply.text) else ""


def helpful(row: Row, reply: str, config: BuildConfig, *, cut: bool = False) -> Helpful:
    """A row of questions.jsonl with its reply, or with the first `words` words of it; `cut` as it came already."""
    raw = bool(row.get("raw", False))
    kept = first_words(reply, row.get("words", 0)) or reply
    short = len(kept.split()) < config.ends_from
    return Helpful(id=row["id"], request=row["request"], reply=kept, kind=row.get("kind", "general"), raw=raw,
                   cut=cut or short or kept != reply)  # fmt: skip


def prompt(row: Row, system: str = "") -> Prompt:
    """How a model is asked a row's request."""
    return Prompt(text=row["request"]) if row.get("raw") else Prompt.chat(row["request"], system=system)


async def ask(
    model: Model | None, prompts: Sequence[Prompt], tokens: int, title: str, report: Report, temperature: float = 0.0
) -> list[Completion | None]:
    """Replies to all prompts, in order, all of them in flight at once; None for a request that failed.

    Greedy, or sampled with the prompt's number as its seed. Failures are counted; raises UsageError when nothing else
    came.
    """
    if model is None or not prompts:
        return []
    failed: list[ModelError] = []
    with Bar(len(prompts), f"{title} replies", unit="reply") as bar:

        async def one(seed: int, prompt: Prompt) -> Completion | None:
            reply = None
            try:
                sampling = Sampling(max_tokens=tokens, temperature=temperature, seed=seed if temperature else 0)
                reply = await model.generate(prompt, sampling)
                bar.tokens(reply.tokens_out)
            except ModelError as err:
                failed.append(err)
            bar.done()
            return None if reply and dropped(report, f"{title}: no Unicode", torn([reply.text])) else reply

        replies = await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(prompts)))
    if len(failed) == len(prompts):
        told = f"no {title} reply came from {model.name}: {len(failed):,} of {len(prompts):,} requests failed"
        raise UsageError(f"{told}, the last: {failed[-1]}", hint=failed[-1].hint or "see that the model answers")
    report.dropped.update({f"{title}: failed": len(failed)} if failed else {})
    return replies


def loops(text: str, width: int = 5) -> bool:
    """Whether more than a sixth of the runs of five words occur again."""
    words = text.split()
    runs = [tuple(words[i : i + width]) for i in range(len(words) - width + 1)]
    return len(set(runs)) < len(runs) * 5 / 6


def dropped(report: Report, reason: str, flaw: object) -> bool:
    """Counts a drop under its reason when there is a flaw."""
    if flaw:
        report.dropped[reason] += 1
    return bool(flaw)


def describe(model: Model | None) -> dict[str, Any] | None:
    """What the manifest keeps of a model."""
    return {"name": model.name, **model.describe()} if model else None
