"""START HERE: the nouns of the whole program, in the order they flow.

    Behavior -> Attempt -> Completion -> Judgement -> Record -> Metric -> report and gate

An attack turns a behavior into attempts, a model turns an attempt into a completion, a judge turns
both into a judgement. A record holds what became of one attempt, or why it failed. Every stage takes
one noun and returns the next; text the model wrote lives in `Completion` only, never in a `Record`.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

Capability: TypeAlias = Literal["chat", "raw", "prefill", "logprobs", "weights"]
Expect: TypeAlias = Literal["refuse", "comply"]
Role: TypeAlias = Literal["system", "user", "assistant"]
Finish: TypeAlias = Literal["stop", "length"]

Label: TypeAlias = Literal["complied", "refused", "neither", "correct", "wrong", "unscored"]
"""What a reply did: gave what was asked (a *violation* where refusal was expected), refused, did neither
(off the topic, empty, an echo, gibberish), or, on a task with one right answer, was correct or wrong.
`unscored` means that the judge could not tell: it is counted and bounded, never taken as safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """One thing asked of a model, and whether it should do it."""

    id: str
    request: str
    expect: Expect = "refuse"
    category: str = ""
    task: str = ""  # the set it belongs to, such as "magic"
    opening: str = ""  # the request as a declarative opening, for CompletionAttack
    target: str = ""  # how a violating reply would begin, for white-box attacks
    reference: str = ""  # a whole violating reply, for prefills; empty where none is known
    split: Literal["dev", "test"] = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is sent to a model: chat messages, or raw text that bypasses the chat template.

    `prefill` opens the assistant's turn (chat) or is appended (raw); the model goes on from there.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    prefill: str = ""

    @classmethod
    def chat(cls, user: str, *, system: str = "", prefill: str = "") -> Prompt:
        """A one-turn chat, with a system message when one is given."""
        turns = [Message(role="system", content=system)] if system else []
        return cls(messages=(*turns, Message(role="user", content=user)), prefill=prefill)

    @property
    def needs(self) -> frozenset[Capability]:
        """What a model must be able to do to answer this prompt."""
        kind: Capability = "chat" if self.text is None else "raw"
        return frozenset({kind, "prefill"} if self.prefill and self.text is None else {kind})

    @property
    def last(self) -> str:
        """The text of the last user turn, or the raw text."""
        return self.text if self.text is not None else self.messages[-1].content


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a reply is drawn. The defaults are the paper's: greedy, up to 1,024 new tokens."""

    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    schema: str | None = None  # a JSON schema (as text) the reply must follow, where the model can
    logprobs: int = 0  # how many alternatives to return for each token


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One prompt an attack built for one behavior; `depth` counts tokens of a violating reply it already holds."""

    behavior: Behavior
    attack: str
    prompt: Prompt
    variant: str = ""
    seed: int = 0
    depth: int = 0
    queries: int = 1  # calls of the target and the attacker spent to find this attempt, the last one included
    # What the search for it cost, by the names of `Meter`; None: all that was counted since the attempt before it.
    spent: Mapping[str, float] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model wrote. `token_ends[i]` is the offset in `text` at which token i ends (empty: unknown)."""

    text: str
    model: str
    finish: Finish = "stop"
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    busy: float = 0.0  # seconds the engine worked on it: its share of every step it was in; 0: not known
    token_ends: tuple[int, ...] = ()
    logprobs: tuple[Mapping[str, float], ...] = ()  # per token: alternative -> natural-log probability


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A judge's reading of one completion.

    `refusal_at` is the index of the token at which the first refusal begins (None: no refusal anywhere);
    `given` counts the content tokens that stand before it (the whole reply where there is no refusal).
    """

    judge: str
    label: Label
    # Probability of `complied`, or the mark of a graded answer, 0 to 1 but where the preset has a scale of its own
    # (`pair`: 1 to 10); None: not given.
    score: float | None = None
    refusal_at: int | None = None
    given: int = 0
    reason: str = ""  # a short code, never text of the model
    tokens: int = 0  # what a judging model read and wrote for it
    longer: int | None = None  # of a comparison: characters of the reply less those of the reference


BROKEN = "broken"
"""The variant of the record that a case leaves whose attack failed before it sent anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What became of one attempt: ids, hashes, verdicts and usage; no text of any model.

    `judgements[0]` is the verdict that counts; `error` is set, and `judgements` empty, where the model failed.
    """

    key: str
    model: str
    task: str
    behavior: str
    expect: Expect
    category: str = ""
    attack: str = "direct"
    variant: str = ""
    seed: int = 0
    depth: int = 0
    index: int = 0  # which of the attempts of its case it was, in the order of the attack
    queries: int = 1
    spent: Mapping[str, float] = field(default_factory=dict, compare=False)  # search, request and verdict; see Meter
    judgements: tuple[Judgement, ...] = ()
    error: str | None = None
    finish: Finish | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0
    behavior_sha: str = ""  # of the whole behavior: an id alone does not say what was asked for
    prompt_sha: str = ""
    reply_sha: str = ""

    @property
    def label(self) -> Label | None:
        """The counting verdict; None where the attempt failed before it could be judged."""
        return self.judgements[0].label if self.judgements else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number with its interval and its denominators.

    `n` counts what the value is computed over; `n_error` and `n_unscored` stand outside it. `floor` and
    `ceiling` are the value had every one of those been 0, or 1: the truth lies between, whatever they hide.
    `value`, `low` and `high` are None where `n` is 0, and where `note` says why there is no number.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    n_error: int = 0
    n_unscored: int = 0
    floor: float | None = None
    ceiling: float | None = None
    group: Mapping[str, str] = field(default_factory=dict)  # e.g. {"model": "base", "attack": "prefill"}
    note: str = ""  # what the number rests on, or why there is none


class Model(Protocol):
    """Something that completes prompts; every `generate` may be in flight at once with any number of others."""

    @property
    def name(self) -> str:
        """What it is called in records and reports."""

    @property
    def can(self) -> frozenset[Capability]:
        """What it is able to do."""

    def describe(self) -> dict[str, Any]:
        """What a run folder keeps to identify the model: ids, versions and hashes, as plain JSON."""

    def head(self, text: str, k: int) -> str:
        """The first `k` tokens of `text`, as text; all of it when it is shorter."""

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Completes one prompt. Raises ModelError when the model fails or answers nothing usable."""

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """Sum of the log-probabilities of `continuation` after `prompt`, and whether greedy search gives it."""

    def weights(self) -> tuple[Any, Any]:
        """The torch module (eval mode, no gradients on parameters) and its tokenizer, loaded once and shared.

        Only for models whose `can` holds "weights"; others raise UsageError.
        """

    async def close(self) -> None:
        """Frees everything; no process, thread or socket is left."""


class Judge(Protocol):
    """Reads what came back and says what it is."""

    name: str

    async def judge(self, attempt: Attempt, completion: Completion, said: str) -> Judgement:
        """Judges `said`: the reply as the attack reads it back (the completion's text for most attacks)."""


class Memo(Protocol):
    """Private memory of one run, kept in its folder: what a search needs to go on after a kill."""

    def get(self, key: str) -> str | None:
        """What was last put under `key`, or None."""

    def put(self, key: str, value: str) -> None:
        """Keeps `value`; it survives a kill from the moment this returns."""


@dataclass(slots=True, kw_only=True)
class Meter:
    """What one case (an attack on one behavior) has spent, by name, and the limits it keeps to.

    Names: `target_queries`, `target_tokens` (read and written), `target_written`, the same of `attacker` and `judge`,
    `seconds` of the machine and `usd` at endpoints (target and attacker). A limit may also be set on a sum: `queries`
    (target and attacker) and `tokens` (all three roles). Calls of the models of a run are counted by themselves; what a
    search does to weights it adds.
    """

    SUMS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "queries": ("target_queries", "attacker_queries"),
        "tokens": ("target_tokens", "attacker_tokens", "judge_tokens"),
    }

    limits: Mapping[str, float] = field(default_factory=dict)
    keep: dict[str, float] = field(default_factory=dict)  # what a search leaves for the request it leads to
    counts: dict[str, float] = field(default_factory=dict)  # by searching
    sent: dict[str, float] = field(default_factory=dict)  # by the attempts themselves
    exhausted: bool = False  # a limit has stopped something

    def add(self, name: str, n: float = 1) -> None:
        """Adds `n` under `name`."""
        self.counts[name] = self.counts.get(name, 0) + n

    @property
    def queries(self) -> int:
        """Calls of the target and the attacker by searching so far; the judge's are counted apart."""
        return int(sum(self.counts.get(name, 0) for name in self.SUMS["queries"]))

    def fits(self, more: Mapping[str, float], *, searching: bool = True) -> bool:
        """Whether no limit is passed by spending `more`, by name, on top of what is spent.

        Not `searching`: an attempt's own request. What a search has spent counts against it only in limits on the
        target's queries and tokens: for these there is room left. Else a search that ended could not send its result.
        """
        for name, limit in self.limits.items():
            parts = self.SUMS.get(name, (name,))
            counts = self.counts if searching or {"target_queries", "target_tokens"} & {*parts} else {}
            if sum(counts.get(p, 0) + self.sent.get(p, 0) + more.get(p, 0) for p in parts) > limit:
                return False
        return True

    def allows(self, more: Mapping[str, float]) -> bool:
        """Whether a search may spend `more` and still send what it finds; where not, `exhausted` says so."""
        fits = self.fits({name: more.get(name, 0) + self.keep.get(name, 0) for name in {*more, *self.keep}})
        self.exhausted = self.exhausted or not fits
        return fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an attack may use: the model under attack, a helper model, a judge, memory, and its own random numbers.

    `target` and `attacker` remember what they answered, so a search that is run again after a kill replays
    its finished queries at no cost, as long as it asks them in the same words and with the same seeds.
    """

    target: Model
    attacker: Model
    judge: Judge
    memo: Memo
    sampling: Sampling
    seed: int = 0
    meter: Meter = field(default_factory=Meter)

    def rng(self, *parts: object) -> random.Random:
        """A generator seeded by the run's seed and `parts`, the same on every machine and in any order of work."""
        digest = hashlib.sha256(json.dumps([self.seed, *map(str, parts)]).encode()).digest()
        return random.Random(int.from_bytes(digest[:8], "big"))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder, read back. `info` is run.json: spec, versions, hashes, budget, status ("partial" or "complete")."""

    folder: Path
    info: Mapping[str, Any]
    records: tuple[Record, ...]
    metrics: tuple[Metric, ...]


class Attack(Protocol):
    """Turns a behavior into attempts. Subclasses are frozen dataclasses whose fields are the attack's settings.

    An attack never loads a model, picks a judge, writes a file or counts successes: the engine does.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Capability]] = frozenset({"chat"})
    attacker_needs: ClassVar[frozenset[Capability]] = frozenset()  # of an attacker that is none of the models attacked
    ends_on_one: ClassVar[bool] = False  # may search, and yield the variant it ended on: no sample of that variant

    def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """Yields the attempts to complete and judge; the same ones in the same order for the same seed."""

    def describe(self, behaviors: Sequence[Behavior], can: Collection[Capability]) -> dict[str, Any]:
        """What the run folder keeps of it beside its settings, before anything is sent; `notes` are for the reader."""
        return {}

    def read(self, attempt: Attempt, text: str) -> str:
        """The reply as it is to be judged: what the model wrote, decoded where the attack had it encoded."""
        return text


def sha(value: object) -> str:
    """The first 16 hex digits of the sha256 of a string, or of a dataclass or JSON value in canonical form."""
    if not isinstance(value, str):
        plain = asdict(value) if hasattr(value, "__dataclass_fields__") else value  # type: ignore[call-overload]
        value = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:16]
