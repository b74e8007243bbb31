"""The losses, in fp32 and on supervised positions only: the logits of a whole row never exist.

MLE and RTO are one cross-entropy under different labels (rows.py sets them: the reply's own tokens, or the
refusal token at every position of a violating reply); DeRTa is both in one batch. DPO compares the summed
log-probabilities of a safe and a violating reply with those of the model it started from.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the name all of torch's users know)


class HeadLoss(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    """Linear head + cross-entropy, a chunk of positions at a time.

    With a frozen head (LoRA) the gradient of `hidden` is made in the forward pass, while the chunk's logits are
    at hand; with a trained head the logits are made again in the backward pass, chunk by chunk.
    """

    @staticmethod
    def forward(ctx, hidden, weight, labels, chunk):  # type: ignore[no-untyped-def]
        """Hidden (n, d), weight (v, d), labels (n,) -> losses (n,) in fp32."""
        n = hidden.shape[0]
        losses = torch.empty(n, dtype=torch.float32, device=hidden.device)
        ahead = ctx.needs_input_grad[0] and not ctx.needs_input_grad[1]
        grad = torch.empty_like(hidden) if ahead else None
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            logprobs = F.log_softmax((hidden[part] @ weight.T).float(), dim=-1)
            losses[part] = F.nll_loss(logprobs, labels[part], reduction="none")
            if grad is not None:
                grad[part] = error(logprobs, labels[part]).to(weight.dtype) @ weight
        ctx.chunk = chunk
        ctx.save_for_backward(hidden, weight, labels, grad)
        return losses

    @staticmethod
    def backward(ctx, upstream):  # type: ignore[no-untyped-def]
        """The gradient of each position's loss, scaled by what flows in from above."""
        hidden, weight, labels, grad = ctx.saved_tensors
        if grad is not None:
            return grad * upstream[:, None].to(grad.dtype), None, None, None
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, hidden.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logprobs = F.log_softmax((hidden[part] @ weight.T).float(), dim=-1)
            wrong = error(logprobs, labels[part]) * upstream[part, None]
            grad_weight += (wrong.T.to(hidden.dtype) @ hidden[part]).float()
            if grad is not None:
                grad[part] = wrong.to(weight.dtype) @ weight
        return grad, grad_weight.to(weight.dtype), None, None


def error(logprobs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The gradient of cross-entropy by its logits, p - onehot, (n, v), in the place of the log-probabilities."""
    wrong = logprobs.exp_()
    wrong[torch.arange(len(labels), device=labels.device), labels] -= 1.0
    return wrong


def token_losses(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, chunk: int = 512) -> torch.Tensor:
    """-log p(label) at each position, (n,) in fp32, from hidden (n, d) and the head's weight (v, d)."""
    losses: torch.Tensor = HeadLoss.apply(hidden, weight.to(hidden.dtype), labels, chunk)
    return losses


def row_logprobs(losses: torch.Tensor, row: torch.Tensor, rows: int) -> torch.Tensor:
    """Summed log-probability of each row's supervised tokens, (rows,), from losses (n,) and row numbers (n,)."""
    total: torch.Tensor = torch.zeros(rows, dtype=losses.dtype, device=losses.device).index_add(0, row, -losses)
    return total


def away_losses(losses: torch.Tensor) -> torch.Tensor:
    """-log(1 - p) of each token, (n,), from its -log p: what moves a model away from a reply (R2D2)."""
    return -torch.log(-torch.expm1(-losses.clamp(min=1e-9)))  # p = 1 in fp32 would be infinite


def dpo_losses(
    chosen: torch.Tensor, rejected: torch.Tensor, ref_chosen: torch.Tensor, ref_rejected: torch.Tensor, beta: float
) -> torch.Tensor:
    """-log sigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected))) of each pair, (pairs,)."""
    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
