"""The nucleus without a sort, against a slow, obvious one and against vLLM's own."""

import pytest

torch = pytest.importorskip("torch")
from harness.models import cpu_sampling  # noqa: E402


def kept(row, p):
    """Token by token, the likeliest first."""
    found, held = set(), 0.0
    shares = torch.softmax(row.double(), dim=-1)
    for token in shares.argsort(descending=True).tolist():
        if found and held >= p:
            break
        found.add(token)
        held += float(shares[token])
    return found


def left(logits):
    return [set((row > -torch.inf).nonzero().flatten().tolist()) for row in logits]


@pytest.mark.parametrize("scale", [0.1, 1.0, 6.0])
def test_what_stays_is_the_smallest_set_that_holds_p(scale, monkeypatch):
    monkeypatch.setattr(cpu_sampling, "FIRST", 40)
    torch.manual_seed(0)
    logits = torch.randn(6, 500) * scale
    p = torch.tensor([0.05, 0.5, 0.8, 0.99, 1.0, 1e-9])
    wanted = [kept(row, float(share)) for row, share in zip(logits, p, strict=True)]
    wanted[4] = set(range(500))  # p = 1 leaves everything
    before = logits.clone()
    short = cpu_sampling.nucleus(logits, p).tolist()
    for row in range(6):
        if row in short:
            assert len(wanted[row]) >= 40  # the first few did not suffice, and the row is as it was
            assert torch.equal(logits[row], before[row])
        else:
            assert left(logits)[row] == wanted[row]
            stays = list(wanted[row])
            assert torch.equal(logits[row, stays], before[row, stays])
    assert short == [row for row in range(6) if row != 4 and len(wanted[row]) > 40]


def test_a_row_that_needs_a_sort_gets_one():
    asked = []

    def theirs(logits, k, p, allow_cpu_sync=False):
        asked.append((logits.shape[0], k, p.tolist() if p is not None else None))
        return logits.fill_(7.0)

    ours = cpu_sampling.instead(theirs)
    flat, peaked = torch.zeros(600), torch.zeros(600)
    peaked[3] = 50.0
    found = ours(torch.stack([flat, peaked]), None, torch.tensor([0.9, 0.9]))
    assert asked == [(1, None, pytest.approx([0.9]))]
    assert (found[0] == 7).all()
    assert left(found[1:]) == [{3}]
    ours(torch.zeros(2, 600), torch.tensor([5, 5]), None)  # top-k is left to vLLM
    assert asked[1][0] == 2


@pytest.mark.slow
def test_the_nucleus_is_that_of_vllm():
    sampler = pytest.importorskip("vllm.v1.sample.ops.topk_topp_sampler")
    assert cpu_sampling.install()
    assert cpu_sampling.install()  # once is enough
    ours = sampler.apply_top_k_top_p_pytorch
    theirs = ours.instead_of
    assert not hasattr(theirs, "instead_of")
    torch.manual_seed(1)
    logits, p = torch.randn(8, 5000) * 4, torch.tensor([0.8] * 6 + [1.0, 0.3])
    assert left(ours(logits.clone(), None, p)) == left(theirs(logits.clone(), None, p))
