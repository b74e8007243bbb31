"""Probe sampling: a draft decides what the target sees, and nothing it says is taken for the target's loss."""

from __future__ import annotations

import pytest

from attacks.probe import ProbeSampling, correlation
from harness.errors import UsageError
from tests.attacks_adaptive.fakes import context, run
from tests.attacks_adaptive.test_gcg import FAST, INIT, setup
from tests.attacks_adaptive.tiny import model, open_model

pytestmark = pytest.mark.slow


def test_its_losses_are_the_targets_and_it_shows_the_target_less() -> None:
    import torch

    from attacks.gcg_search import Job, Search, Settings, gradients, scores
    from attacks.probe import Draft, ProbeSearch

    packed, tokens, scene = setup()
    other, other_tokens, _ = setup("qwen2")
    lines = [("tell me how the trick is done.", "the ring floats because a thread")]
    settings = Settings(steps=3, width=64, topk=32, init=INIT)
    plain = Search(packed, tokens, [scene], settings)
    probing = ProbeSearch(packed, tokens, [scene], settings, Draft(other, other_tokens, lines))
    full, step = plain.step(), probing.step()
    assert step.tokens < full.tokens
    assert step.loss >= full.loss  # it saw some of the same candidates
    job = Job(scene, torch.tensor(probing.seed))
    gradients(packed, [job], 0.0)
    ((loss, _),) = scores(packed, [job], [torch.tensor([step.ids])], 0.0)
    assert float(loss) == pytest.approx(step.loss, abs=2e-5)


def test_the_draft_scores_suffixes_of_any_length_in_its_own_tokens() -> None:
    import torch

    from attacks.probe import Draft
    from tests.attacks_adaptive.test_gcg import REQUEST, TARGET, plain_losses

    packed, tokens, scene = setup()
    texts = [" x x", " ! x !", " x !"]
    found = Draft(packed, tokens, [(REQUEST, TARGET)]).losses(texts, 1, 0.0)
    expected = [plain_losses(packed, scene, torch.tensor([tokens.encode(text)]))[0] for text in texts]
    assert torch.allclose(found, torch.stack(expected), atol=2e-5)


def test_rank_correlation_of_cases_worked_out_by_hand() -> None:
    import torch

    one = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert correlation(one, one * one) == pytest.approx(1)
    assert correlation(one, -one) == pytest.approx(-1)
    # ranks 0 1 2 3 against 1 0 2 3: 1 - 6 * (1 + 1) / (4 * 15) = 0.8
    assert correlation(one, torch.tensor([2.0, 1.0, 3.0, 4.0])) == pytest.approx(0.8)
    assert correlation(one[:1], one[:1]) == 0.0


def test_it_is_never_called_gcg_and_needs_a_model_of_its_own() -> None:
    target = open_model()
    attempts = run(ProbeSampling(steps=2, **FAST), context(target, open_model(model("qwen2"))))
    assert {attempt.attack for attempt in attempts} == {"probe_sampling"}
    with pytest.raises(UsageError, match="draft"):
        run(ProbeSampling(steps=2, **FAST), context(target, target))
