"""Each loss against a number worked out by hand and against a slow, obvious reference."""

from __future__ import annotations

import math
import random

import pytest

pytestmark = pytest.mark.slow


def test_cross_entropy_of_equal_logits_is_the_log_of_the_vocabulary() -> None:
    """Hidden = 0 gives logits 0 everywhere, so every one of 4 words has probability 1/4: loss ln 4 = 1.386294."""
    import torch

    from harness.train.losses import token_losses

    losses = token_losses(torch.zeros(3, 2), torch.randn(4, 2), torch.tensor([0, 1, 3]))
    assert losses.tolist() == pytest.approx([1.386294] * 3, abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    """Hidden (1), head (0, ln 3): logits 0 and ln 3, so p = 1/4 and 3/4; losses ln 4 = 1.386294, ln 4/3 = 0.287682."""
    import torch

    from harness.train.losses import token_losses

    hidden, head = torch.ones(2, 1), torch.tensor([[0.0], [math.log(3)]])
    assert token_losses(hidden, head, torch.tensor([0, 1])).tolist() == pytest.approx([1.386294, 0.287682], abs=1e-6)


def test_dpo_by_hand() -> None:
    """Margin (-1 + 3) - (-4 + 4) = 2, beta 0.5: -ln sigmoid(1) = ln(1 + 1/e) = 0.313262; margin 0: ln 2 = 0.693147."""
    import torch

    from harness.train.losses import dpo_losses

    chosen, rejected = torch.tensor([-1.0, -3.0]), torch.tensor([-4.0, -4.0])
    losses = dpo_losses(chosen, rejected, torch.tensor([-3.0, -3.0]), torch.tensor([-4.0, -4.0]), beta=0.5)
    assert losses.tolist() == pytest.approx([0.313262, 0.693147], abs=1e-6)


def test_away_by_hand() -> None:
    """p = 1/4 (loss ln 4): -ln 3/4 = 0.287682; p = 3/4: -ln 1/4 = 1.386294; p = 1 in fp32 stays finite."""
    import torch

    from harness.train.losses import away_losses

    found = away_losses(torch.tensor([math.log(4), math.log(4 / 3), 0.0]))
    assert found[:2].tolist() == pytest.approx([0.287682, 1.386294], abs=1e-5)
    assert torch.isfinite(found).all()


def test_away_gradients_equal_the_obvious_way(tiny) -> None:  # type: ignore[no-untyped-def]
    import torch

    from harness.train.losses import away_losses
    from harness.train.pack import pack

    rows = random_rows()
    scorer, ours, plain = both(tiny)
    fast = away_losses(scorer(pack(rows)))
    fast.mean().backward()
    slow = torch.cat([-torch.log(1 - torch.exp(-each)) for each in obvious(plain, rows)])
    slow.mean().backward()
    assert (fast - slow).abs().max() < 1e-5
    same_gradients(ours, plain)


def random_rows(n: int = 4) -> list:  # type: ignore[type-arg]
    from harness.train.rows import IGNORE, Row

    rng = random.Random(0)
    rows = []
    for _ in range(n):
        length = rng.randint(5, 12)
        labels = [IGNORE if i < 3 or rng.random() < 0.2 else rng.randrange(19) for i in range(length)]
        labels[-1] = 7
        rows.append(Row(ids=tuple(rng.randrange(19) for _ in range(length)), labels=tuple(labels), part="mle"))
    return rows


def sharing_rows() -> list:  # type: ignore[type-arg]
    """Six rows, five of which open with the same nine tokens; one of those is labelled from the seventh on."""
    from dataclasses import replace

    opening = (3, 1, 4, 1, 5, 9, 2, 6, 5)
    plain = random_rows(6)
    rows = [
        replace(row, ids=opening + row.ids, labels=(-100,) * 9 + row.labels) if n != 2 else row
        for n, row in enumerate(plain)
    ]
    rows[4] = replace(rows[4], labels=(-100,) * 6 + (11,) * 3 + rows[4].labels[9:])
    return rows


def obvious(model, rows):  # type: ignore[no-untyped-def]
    """Every row alone, all its logits, plain attention, torch's own cross-entropy."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    losses = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0]
        each = F.cross_entropy(logits, torch.tensor(row.labels), reduction="none", ignore_index=-100)
        losses.append(each[torch.tensor(row.labels) != -100])
    return losses


def both(tiny, chunk=5, frozen_head=False):  # type: ignore[no-untyped-def]
    """Two copies of the tiny model: one packed and scored by us, one for the obvious way."""
    from transformers import AutoModelForCausalLM

    from harness.train.pack import Scorer, register

    ours = AutoModelForCausalLM.from_pretrained(tiny, attn_implementation=register())
    plain = AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="eager")
    for model in (ours, plain):
        model.get_output_embeddings().weight.requires_grad_(not frozen_head)
    return Scorer(ours, chunk=chunk), ours, plain


def same_gradients(ours, plain) -> None:  # type: ignore[no-untyped-def]
    for (name, a), b in zip(ours.named_parameters(), plain.parameters(), strict=True):
        if a.requires_grad:
            assert (a.grad - b.grad).abs().max() < 1e-5, name


@pytest.mark.parametrize("frozen_head", [False, True])
@pytest.mark.parametrize("make", [random_rows, sharing_rows])
def test_packed_chunked_loss_and_gradients_equal_the_obvious_way(tiny, frozen_head, make) -> None:  # type: ignore[no-untyped-def]
    """Tied embeddings make the frozen-head case the one a LoRA run has."""
    import torch

    from harness.train.pack import pack

    rows = make()
    scorer, ours, plain = both(tiny, frozen_head=frozen_head)
    batch = pack(rows)
    assert batch.shared == (6 if make is sharing_rows else 0)
    losses = scorer(batch)
    reference = torch.cat(obvious(plain, rows))
    assert (losses - reference).abs().max() < 1e-5
    losses.mean().backward()
    reference.mean().backward()
    same_gradients(ours, plain)


def test_dpo_gradients_equal_the_obvious_way(tiny) -> None:  # type: ignore[no-untyped-def]
    import torch

    from harness.train.losses import dpo_losses, row_logprobs
    from harness.train.pack import pack

    rows = random_rows()
    scorer, ours, plain = both(tiny)
    batch = pack(rows)
    logprobs = row_logprobs(scorer(batch), batch.row, len(rows))
    ref = torch.tensor([-20.0, -21.0])
    dpo_losses(logprobs[0::2], logprobs[1::2], ref, ref, 0.1).mean().backward()
    slow = torch.stack([-each.sum() for each in obvious(plain, rows)])
    margin = (slow[0::2] - ref) - (slow[1::2] - ref)
    (-torch.log(1 / (1 + torch.exp(-0.1 * margin)))).mean().backward()
    same_gradients(ours, plain)


def test_a_row_does_not_see_its_neighbours_in_the_pack(tiny) -> None:  # type: ignore[no-untyped-def]
    import torch

    from harness.train.pack import pack

    rows = random_rows()
    scorer, *_ = both(tiny)
    together = scorer(pack(rows))
    alone = torch.cat([scorer(pack([row])) for row in rows])
    assert (together - alone).abs().max() < 1e-5
