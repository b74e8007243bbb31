"""The search behind GCG (Zou et al. 2023, arXiv:2307.15043): a suffix, token by token, down the loss of a target.

One step: (1) gradient of the loss with respect to the suffix tokens, (2) candidates that swap a token each, drawn
from the best of that gradient, (3) those that survive being written out and tokenised again, (4) the loss of each,
(5) the best becomes the suffix. Draws follow nanoGCG, so that with its settings and seed the suffixes are its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

from attacks.packed import KV, Packed, Row
from harness.errors import UsageError

Tensor: TypeAlias = Any

MARK = "\ue000"  # stands for the suffix while the chat template is filled in; a private character
SPARE = ".,!?;:()[]{}@#$%&*wxyz"  # what the attack buffer's further entries are drawn from, as in nanoGCG


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the search goes. The defaults are the paper's."""

    steps: int = 500
    width: int = 512  # candidates a step
    topk: int = 256  # tokens a position that they are drawn from
    init: str = " !" * 20
    swaps: int = 1  # tokens a candidate changes
    positions: Literal["even", "uniform"] = "even"  # every position in turn, or drawn
    mellowmax: float = 0.0  # its alpha; 0: cross-entropy
    buffer: int = 0  # best suffixes kept to go on from; 0: always go on from the last
    early_stop: bool = False  # end when greedy decoding gives the target
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One prompt with a place for the suffix, as token ids, and the keys and values of what stands before it."""

    before_text: str
    after_text: str
    before: list[int]
    after: list[int]
    target: Tensor  # [k]
    tail: Tensor  # [m]: from after the suffix to the last token whose successor counts
    trims: bool  # the chat template drops white space at the end of a message
    past: KV = field(repr=False)


@dataclass(slots=True)
class Job:
    """Suffixes to be scored in one scene. `past` covers `before` and the suffix `base`, which they are changes of."""

    scene: Scene
    base: Tensor  # [n]
    past: KV = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a search: the loss of its best candidate, its ids, and how many scenes that was over."""

    loss: float
    ids: list[int]
    scenes: int = 1
    hit: bool = False  # greedy decoding gives the target in all of them
    tokens: int = 0  # that went through the model for it
    drafted: int = 0  # that went through a draft model, where there is one
    seconds: float = 0.0


class Tokens:
    """A tokenizer's side of the search: what a suffix may hold, and what survives being written out."""

    def __init__(self, tokenizer: Any, size: int) -> None:
        """`size` is the number of the model's embeddings."""
        import torch

        self.tokenizer = tokenizer
        texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        bad = {i for i, text in enumerate(texts) if not (text.isascii() and text.isprintable())}
        bad |= set(tokenizer.all_special_ids) | set(range(len(tokenizer), size))
        self.forbidden = torch.tensor(sorted(bad))  # special, past the vocabulary, or not printable ASCII

    def encode(self, text: str) -> list[int]:
        """The ids of a text, nothing added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, with its spaces as they are."""
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def survivors(self, rows: list[list[int]], scenes: Iterable[Scene]) -> list[int]:
        """Which rows come back as they were when the whole prompt around them is tokenised, in every scene."""
        texts = [self.decode(row) for row in rows]
        alive = list(range(len(rows)))
        for scene in scenes:
            if scene.trims:
                alive = [i for i in alive if texts[i] == texts[i].rstrip()]
            prompts = [scene.before_text + texts[i] + scene.after_text for i in alive]
            whole = self.tokenizer(prompts, add_special_tokens=False)["input_ids"] if prompts else []
            expected = (scene.before + rows[i] + scene.after for i in alive)
            alive = [i for i, ids, e in zip(alive, whole, expected, strict=True) if list(ids) == e]
        return alive

    def scene(self, packed: Packed, request: str, target: str) -> Scene:
        """The chat prompt of a request, cut at the suffix; the template's text is kept whole, special tokens too."""
        import torch

        before, _, after = self.filled(request + MARK).partition(MARK)
        b, a, t = (self.encode(text) for text in (before, after, target))
        return Scene(
            before_text=before,
            after_text=after,
            before=b,
            after=a,
            target=torch.tensor(t, device=packed.device),
            tail=torch.tensor(a + t[:-1], device=packed.device),
            trims=f"{MARK} " not in self.filled(f"{request}{MARK} "),
            past=packed.keys_and_values(b),
        )

    def filled(self, user: str) -> str:
        """The chat template around one user turn."""
        messages = [{"role": "user", "content": user}]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@lru_cache(maxsize=4)
def tokens_of(tokenizer: Any, size: int) -> Tokens:
    """`Tokens` of a tokenizer, made once: reading the whole vocabulary takes a second."""
    return Tokens(tokenizer, size)


def target_loss(logits: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Loss [N] of logits [N, k, vocabulary]: mean cross-entropy, or nanoGCG's mellowmax over raw logits."""
    import torch

    n, k = logits.shape[:2]
    if alpha:
        negative = -logits.gather(-1, target.expand(n, k)[..., None]).squeeze(-1)
        return (torch.logsumexp(alpha * negative, dim=-1) - torch.tensor(float(k)).log()) / alpha
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.repeat(n), reduction="none")
    return each.view(n, k).mean(1)


def gradients(packed: Packed, jobs: Sequence[Job], alpha: float) -> list[Tensor]:
    """For each job the gradient [n, vocabulary] with respect to its suffix's one-hot tokens.

    Brings `past` of every job up to date on the way: the forward pass makes the suffix's keys and values anyway.
    """
    import torch

    row, kept, leaves, starts = Row(), list[tuple[Tensor, Tensor]](), [], []
    for job in jobs:
        leaf = packed.embed(job.base).detach().requires_grad_()
        leaves.append(leaf)
        starts.append(row.size)
        tokens = torch.cat([leaf, packed.embed(job.scene.tail)])[None]
        row.add(tokens, len(job.scene.target), job.scene.past, len(job.scene.before))
    logits = packed.logits(row, kept).split([len(job.scene.target) for job in jobs])
    losses = [target_loss(x[None], job.scene.target, alpha).sum() for x, job in zip(logits, jobs, strict=True)]
    found = torch.autograd.grad(torch.stack(losses).sum(), leaves)
    for job, at in zip(jobs, starts, strict=True):
        new = [(k[:, at : at + len(job.base)], v[:, at : at + len(job.base)]) for k, v in kept]
        pairs = zip(job.scene.past, new, strict=True)
        job.past = [(torch.cat([k, nk], 1), torch.cat([v, nv], 1)) for (k, v), (nk, nv) in pairs]
    return [grad @ packed.embed.weight.T for grad in found]


def scores(
    packed: Packed, jobs: Sequence[Job], suffixes: Sequence[Tensor], alpha: float
) -> list[tuple[Tensor, Tensor]]:
    """For each job the loss [N] of its suffixes [N, n], and whether greedy decoding gives the target [N].

    A suffix shares the keys and values of all that stands before its first change; equal ones are scored once.
    """
    import torch

    unique = [torch.unique(ids, dim=0, return_inverse=True) for ids in suffixes]
    loss = [torch.empty(len(ids), device=packed.device) for ids, _ in unique]
    hit = [torch.empty(len(ids), device=packed.device, dtype=torch.bool) for ids, _ in unique]
    for batch in batches(jobs, [ids for ids, _ in unique], packed.room()):
        row = Row()
        for j, p, rows in batch:
            scene = jobs[j].scene
            tokens = torch.cat([unique[j][0][rows, p:], scene.tail.expand(len(rows), -1)], dim=1)
            row.add(tokens, len(scene.target), jobs[j].past, len(scene.before) + p)
        with torch.no_grad():
            logits = packed.logits(row).split([len(rows) * len(jobs[j].scene.target) for j, _, rows in batch])
        for (j, _, rows), flat in zip(batch, logits, strict=True):
            target = jobs[j].scene.target
            each = flat.unflatten(0, (len(rows), len(target)))
            loss[j][rows] = target_loss(each, target, alpha)
            hit[j][rows] = (each.argmax(-1) == target).all(1)
    return [(loss[j][back], hit[j][back]) for j, (_, back) in enumerate(unique)]


def batches(jobs: Sequence[Job], suffixes: Sequence[Tensor], room: int) -> Iterator[list[tuple[int, int, Tensor]]]:
    """Cuts all suffixes into batches of about `room` tokens: (job, first changed position, which suffixes)."""
    batch: list[tuple[int, int, Tensor]] = []
    left = room
    for j, (job, ids) in enumerate(zip(jobs, suffixes, strict=True)):
        first = (ids != job.base).int().argmax(1)
        for p in first.unique().tolist():
            length = ids.shape[1] - p + len(job.scene.tail)
            rows = (first == p).nonzero().squeeze(1)
            while len(rows):
                fit = max(left // length, 0 if batch else 1)
                if not fit:
                    yield batch
                    batch, left = [], room
                    continue
                batch.append((j, p, rows[:fit]))
                left -= length * len(rows[:fit])
                rows = rows[fit:]
    if batch:
        yield batch


def averaged(found: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Over several scenes: for each suffix its mean loss, and whether greedy decoding gives every target."""
    import torch

    return torch.stack([loss for loss, _ in found]).mean(0), torch.stack([hit for _, hit in found]).all(0)


def lots(settings: Settings, n: int, generator: Any) -> tuple[Tensor, Tensor]:
    """What one step draws for each candidate: places to change, and ranks of tokens to put there; [width, swaps]."""
    import torch

    if settings.positions == "uniform":
        places = torch.argsort(torch.rand((settings.width, n), generator=generator))[:, : settings.swaps]
    else:
        places = (torch.arange(settings.width) * n // settings.width)[:, None]
    return places, torch.randint(0, settings.topk, (*places.shape, 1), generator=generator).squeeze(2)


def candidates(settings: Settings, gradient: Tensor, base: Tensor, generator: Any) -> Tensor:
    """Suffixes [width, n]: `base` with some tokens changed to ones that the gradient likes best."""
    places, ranks = lots(settings, len(base), generator)
    best = (-gradient).topk(settings.topk, dim=1).indices.cpu()
    return base.cpu().repeat(settings.width, 1).scatter(1, places, best[places, ranks])


class Search:
    """A suffix for one scene, or one for several: then losses are averaged and scenes join as those before are won.

    `steps` holds what was done so far. A search given the same steps goes on exactly as the one that made them.
    """

    def __init__(self, packed: Packed, tokens: Tokens, scenes: Sequence[Scene], settings: Settings) -> None:
        import torch

        allowed = packed.embed.weight.shape[0] - len(tokens.forbidden)
        settings = replace(settings, topk=min(settings.topk, allowed))  # a small vocabulary has no 256 to draw from
        self.packed, self.tokens, self.settings = packed, tokens, settings
        self.scenes = list(scenes)
        self.steps: list[Step] = []
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.seed = self.start()
        self.buffer: list[tuple[float, list[int]]] = self.first_buffer()
        self.best = self.buffer[0]

    def start(self) -> list[int]:
        """The first suffix. Raises UsageError when no spelling of `init` survives between prompt and template."""
        init = self.settings.init
        for text in (init, " " + init.strip(), init.strip()):
            ids = self.tokens.encode(text)
            if text.strip() and self.tokens.survivors([ids], self.scenes):
                return ids
        raise UsageError(f"the first suffix {init!r} can't stand in the prompt as it is", hint="set another init")

    def first_buffer(self) -> list[tuple[float, list[int]]]:
        """The first suffix, and random ones of the same length where a buffer is kept, with their losses."""
        import torch

        rows = [self.seed]
        if self.settings.buffer > 1:
            spare = torch.tensor([self.tokens.encode(c)[0] for c in SPARE])
            size = (self.settings.buffer - 1, len(self.seed))
            rows += spare[torch.randint(0, len(spare), size, generator=self.generator)].tolist()
        jobs = self.jobs(self.seed, 1)
        gradients(self.packed, jobs, self.settings.mellowmax)
        ids = torch.tensor(rows, device=self.packed.device)
        loss, _ = scores(self.packed, jobs, [ids], self.settings.mellowmax)[0]
        return sorted(zip(loss.tolist(), rows, strict=True), key=lambda entry: entry[0])

    def jobs(self, suffix: list[int], scenes: int) -> list[Job]:
        """One job for each of the first `scenes` scenes."""
        import torch

        base = torch.tensor(suffix, device=self.packed.device)
        return [Job(scene, base) for scene in self.scenes[:scenes]]

    @property
    def active(self) -> int:
        """How many scenes count in the next step."""
        if not self.steps:
            return 1
        last = self.steps[-1]
        return min(len(self.scenes), last.scenes + last.hit)

    @property
    def done(self) -> bool:
        """All steps are done, or the target was met and that is enough."""
        last = self.steps[-1] if self.steps else None
        met = self.settings.early_stop and last is not None and last.hit and last.scenes == len(self.scenes)
        return met or len(self.steps) >= self.settings.steps

    def replay(self, step: Step) -> None:
        """Takes over a step that an earlier start made: its result, and the random numbers it drew."""
        lots(self.settings, len(self.seed), self.generator)
        self.keep(step)

    def step(self) -> Step:
        """Makes one step."""
        return self.advance([self])[0]

    @classmethod
    def advance(cls, searches: Sequence[Search]) -> list[Step]:
        """One step of each of several searches on one model, in shared passes; its cost is split evenly."""
        packed, alpha = searches[0].packed, searches[0].settings.mellowmax
        spent, began = packed.spent, time.perf_counter()
        jobs = [search.jobs(search.buffer[0][1], search.active) for search in searches]
        found = iter(gradients(packed, [job for mine in jobs for job in mine], alpha))
        rows = [s.propose([next(found) for _ in mine]) for s, mine in zip(searches, jobs, strict=True)]
        steps = cls.pick(searches, jobs, rows)
        share = 1 / len(searches)
        tokens, seconds = round((packed.spent - spent) * share), (time.perf_counter() - began) * share
        steps = [replace(step, tokens=tokens, seconds=seconds) for step in steps]
        for search, step in zip(searches, steps, strict=True):
            search.keep(step)
        return steps

    def propose(self, found: list[Tensor]) -> Tensor:
        """Candidates [m, n] that survive being written out, from the gradients of the active scenes; m may be 0."""
        import torch

        if len(found) > 1:  # no scene outweighs another
            found = [grad / grad.norm(dim=-1, keepdim=True) for grad in found]
        gradient = torch.stack(found).sum(0)
        gradient[:, self.tokens.forbidden] = float("inf")
        base = torch.tensor(self.buffer[0][1], device=self.packed.device)
        ids = candidates(self.settings, gradient, base, self.generator)
        return ids[self.tokens.survivors(ids.tolist(), self.scenes)]

    @classmethod
    def pick(cls, searches: Sequence[Search], jobs: Sequence[list[Job]], rows: Sequence[Tensor]) -> list[Step]:
        """For each search the candidate with the lowest loss; where none survived it stays where it is."""
        packed, alpha = searches[0].packed, searches[0].settings.mellowmax
        alive = [(mine, ids.to(packed.device)) for mine, ids in zip(jobs, rows, strict=True) if len(ids)]
        flat = [(job, ids) for mine, ids in alive for job in mine]
        told = iter(scores(packed, [job for job, _ in flat], [ids for _, ids in flat], alpha))
        steps = []
        for search, mine, ids in zip(searches, jobs, rows, strict=True):
            if not len(ids):
                steps.append(search.stay())
                continue
            loss, hit = averaged([next(told) for _ in mine])
            i = int(loss.argmin())
            steps.append(Step(float(loss[i]), ids[i].tolist(), len(mine), bool(hit[i])))
        return steps

    def stay(self) -> Step:
        """A step that moves nothing: the loss is the one known, over the scenes it is known for, and so is the hit."""
        last = self.steps[-1] if self.steps else Step(*self.buffer[0])
        loss, ids = self.buffer[0]
        return Step(loss, ids, last.scenes, last.hit and ids == last.ids)

    def keep(self, step: Step) -> None:
        """Puts a step's suffix into the buffer, as nanoGCG does: without one, even a worse suffix takes over.

        Losses over more scenes are another measure: where one joins, all that was kept before goes.
        """
        joined = step.scenes > (self.steps[-1].scenes if self.steps else 1)
        if joined or self.settings.buffer == 0:
            self.buffer = [(step.loss, step.ids)]
        elif step.loss < self.buffer[-1][0]:
            self.buffer[-1] = (step.loss, step.ids)
            self.buffer.sort(key=lambda entry: entry[0])
        if joined or step.loss < self.best[0]:
            self.best = (step.loss, step.ids)
        self.steps.append(step)
