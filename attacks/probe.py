"""Probe sampling: GCG's steps with most candidates weeded out by a draft model (Zhao et al. 2024, arXiv:2403.01251).

It may miss the best candidate, so it is an attack of its own and never reported as GCG. The draft is the run's
attacker model. The closer its ranking is to the target's on a few random candidates, the fewer the target has to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from attacks.gcg import Gcg
from attacks.gcg_search import Job, Scene, Search, Settings, Step, Tokens, averaged, scores, tokens_of
from attacks.packed import Packed, packed
from harness.errors import UsageError
from harness.types import Capability, Context

Tensor: TypeAlias = Any

PROBES = 16  # one candidate in so many is shown to both models
KEPT = 8  # with no agreement at all, one candidate in so many is shown to the target; both as in the paper


class Draft:
    """A smaller model's view of the same suffixes, in its own tokens."""

    def __init__(self, model: Packed, tokens: Tokens, lines: Sequence[tuple[str, str]]) -> None:
        self.model, self.tokens = model, tokens
        self.scenes = [tokens.scene(model, request, target) for request, target in lines]

    def losses(self, texts: Sequence[str], scenes: int, alpha: float) -> Tensor:
        """The mean loss of each suffix over the first scenes."""
        import torch

        rows = [self.tokens.encode(text) for text in texts]
        total = torch.zeros(len(rows))
        for length in sorted({len(row) for row in rows}):
            which = [i for i, row in enumerate(rows) if len(row) == length]
            ids = torch.tensor([rows[i] for i in which], device=self.model.device)
            nothing = torch.full((length,), -1, device=self.model.device)  # no suffix shares its beginning with it
            jobs = [Job(scene, nothing, scene.past) for scene in self.scenes[:scenes]]
            found = scores(self.model, jobs, [ids] * len(jobs), alpha)
            total[which] = torch.stack([loss for loss, _ in found]).mean(0).float().cpu()
        return total


class ProbeSearch(Search):
    """GCG's search with another way to pick among the candidates."""

    def __init__(
        self, model: Packed, tokens: Tokens, scenes: Sequence[Scene], settings: Settings, draft: Draft
    ) -> None:
        super().__init__(model, tokens, scenes, settings)
        self.draft = draft

    @classmethod
    def advance(cls, searches: Sequence[Search]) -> list[Step]:
        """One step of each, one after another: the draft has its own passes."""
        return [super(ProbeSearch, cls).advance([search])[0] for search in searches]

    @classmethod
    def pick(cls, searches: Sequence[Search], jobs: Sequence[list[Job]], rows: Sequence[Tensor]) -> list[Step]:
        """The best of the probes and of those that the draft likes."""
        (search,), (mine,), (ids,) = searches, jobs, rows
        assert isinstance(search, ProbeSearch)
        return [search.best_of(mine, ids) if len(ids) else search.stay()]

    def best_of(self, jobs: list[Job], ids: Tensor) -> Step:
        """One search's pick."""
        import torch

        spent = self.draft.model.spent
        generator = torch.Generator().manual_seed(100_003 * self.settings.seed + len(self.steps))
        probes = torch.randperm(len(ids), generator=generator)[: max(2, len(ids) // PROBES)]
        told = self.measure(jobs, ids[probes])
        texts = [self.tokens.decode(row) for row in ids.tolist()]
        drafted = self.draft.losses(texts, len(jobs), self.settings.mellowmax)
        agreement = (1 + correlation(told[0].cpu(), drafted[probes])) / 2
        liked = drafted.topk(max(1, int((1 - agreement) * len(ids) / KEPT)), largest=False).indices
        both = [torch.cat(pair) for pair in zip(told, self.measure(jobs, ids[liked]), strict=True)]
        i = int(both[0].argmin())
        best = ids[torch.cat([probes, liked])[i]].tolist()
        return Step(float(both[0][i]), best, len(jobs), bool(both[1][i]), drafted=self.draft.model.spent - spent)

    def measure(self, jobs: list[Job], ids: Tensor) -> tuple[Tensor, Tensor]:
        """The target's view of some candidates, averaged over the scenes."""
        return averaged(scores(self.packed, jobs, [ids.to(self.packed.device)] * len(jobs), self.settings.mellowmax))


def correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation; 0 where there is nothing to rank."""
    import torch

    if len(one) < 2:
        return 0.0
    ranks = torch.stack([x.argsort().argsort().float() for x in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSampling(Gcg):
    """GCG's steps with a draft model, the attacker, that picks what the target scores."""

    name: ClassVar[str] = "probe_sampling"
    attacker_needs: ClassVar[frozenset[Capability]] = frozenset({"weights"})

    def open(self, lines: list[tuple[str, str]], context: Context) -> Search:
        """A search at its start. Raises UsageError when the attacker has no weights or is the target itself."""
        module, tokenizer = context.target.weights()
        small, its_tokenizer = context.attacker.weights()
        if small is module:
            raise UsageError(f"{self.name} needs a draft model", hint="name a smaller checkpoint with --attacker")
        model, draft = packed(module), packed(small)
        tokens = tokens_of(tokenizer, model.embed.weight.shape[0])
        scenes = [tokens.scene(model, request, target) for request, target in lines]
        theirs = Draft(draft, tokens_of(its_tokenizer, draft.embed.weight.shape[0]), lines)
        return ProbeSearch(model, tokens, scenes, self.settings(context.seed), theirs)
