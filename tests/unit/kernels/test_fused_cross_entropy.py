"""Losses and gradients of the fused cross entropies against torch's in float64."""

import pytest
import torch

from megatron_ext.kernels import reference
from megatron_ext.kernels.fused.cross_entropy import (
    VocabularyPart,
    cross_entropy,
    losses_of,
    replace_by_gradient,
    row_statistics,
)
from megatron_ext.kernels.fused.linear_cross_entropy import linear_cross_entropy

BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2**-7}
"""Relative to the largest value; an fp32 logit of 80 has steps of 7.6e-6, and so have probabilities."""

SEQ_LENGTH, BATCH = 5, 2


def scattered_mask(device: torch.device) -> torch.Tensor:
    """Upstream gradients as a loss mask and a loss scale make them."""
    mask = torch.rand(SEQ_LENGTH, BATCH, device=device) > 0.3
    return mask * 3.5


def assert_near(found: torch.Tensor, right: torch.Tensor, bound: float) -> None:
    assert found.shape == right.shape
    torch.testing.assert_close(
        found.double().cpu(), right.double(), rtol=0, atol=bound * float(right.detach().abs().max())
    )


@pytest.mark.parametrize("dtype", BOUNDS, ids=["fp32", "bf16"])
@pytest.mark.parametrize(("columns", "real"), [(259, 259), (260, 259), (4099, 4097), (16, 3)])
def test_cross_entropy(device: torch.device, dtype: torch.dtype, columns: int, real: int) -> None:
    torch.manual_seed(0)
    logits = (20 * torch.randn(SEQ_LENGTH, BATCH, columns, device=device)).to(dtype).requires_grad_()
    with torch.no_grad():
        logits[..., real:] = 1e4  # padding must not show, whatever it holds
    labels = torch.randint(real, (SEQ_LENGTH, BATCH), device=device)
    upstream = scattered_mask(device)
    exact = logits.detach().double().cpu().requires_grad_()
    right = reference.cross_entropy(exact, labels.cpu(), real)
    right.backward(upstream.double().cpu())

    buffer = logits * 1  # as from a projection, which does not need its output again
    losses = cross_entropy(buffer, labels, VocabularyPart(0, real))
    assert losses.dtype == torch.float32
    assert_near(losses, right, 1e-6)
    losses.backward(upstream)
    assert_near(logits.grad, exact.grad, BOUNDS[dtype])
    assert logits.grad[..., real:].abs().sum() == 0
    assert torch.equal(buffer.detach(), logits.grad), "the gradient takes the logits' place"


def test_a_loss_is_differentiated_once(device: torch.device) -> None:
    logits = torch.randn(2, 8, device=device, requires_grad=True)
    loss = cross_entropy(logits * 1, torch.tensor([1, 2], device=device), VocabularyPart(0, 8)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        loss.backward()


@pytest.mark.parametrize("dtype", BOUNDS, ids=["fp32", "bf16"])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 10, 64])
def test_with_the_projection(device: torch.device, dtype: torch.dtype, chunk_tokens: int) -> None:
    torch.manual_seed(0)
    columns, real, size = 35, 33, 12
    hidden = torch.randn(SEQ_LENGTH, BATCH, size, device=device).to(dtype).requires_grad_()
    weight = torch.randn(columns, size, device=device).to(dtype).requires_grad_()
    labels = torch.randint(real, (SEQ_LENGTH, BATCH), device=device)
    upstream = scattered_mask(device)
    exact = [one.detach().double().cpu().requires_grad_() for one in (hidden, weight)]
    right = reference.linear_cross_entropy(*exact, labels.cpu(), real)
    right.backward(upstream.double().cpu())

    losses = linear_cross_entropy(hidden, weight, labels, VocabularyPart(0, real), chunk_tokens)
    assert losses.dtype == torch.float32
    bound = BOUNDS[dtype]
    assert_near(losses, right, bound)
    losses.backward(upstream)
    for found, wanted in zip((hidden, weight), exact, strict=True):
        assert found.grad.dtype == dtype
        assert_near(found.grad, wanted.grad, bound)
    assert weight.grad[real:].abs().sum() == 0


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_of_a_vocabulary_add_up(device: torch.device, parts: int) -> None:
    """One rank after another, their statistics combined as the collectives do; the last part is all padding."""
    torch.manual_seed(0)
    tokens, real, width = 6, 10, 10 // (parts - 1)
    logits = 10 * torch.randn(tokens, real, device=device)
    labels = torch.randint(real, (tokens,), device=device)
    exact = logits.double().cpu().requires_grad_()
    right = reference.cross_entropy(exact.unsqueeze(0), labels.cpu().unsqueeze(0), real)[0]
    right.sum().backward()

    filled = torch.cat([logits, logits.new_full((tokens, width), 50.0)], dim=1)
    held = [piece.contiguous() for piece in filled.split(width, dim=1)]
    where = [
        VocabularyPart(number * width, max(0, min(width, real - number * width))) for number in range(parts)
    ]
    statistics = [row_statistics(*one) for one in zip(held, [labels] * parts, where, strict=True)]
    largest = torch.stack([one[0] for one in statistics]).amax(dim=0)
    sums = sum(torch.stack([one[1] * (one[0] - largest).exp(), one[2]]) for one in statistics)
    losses, log_sum_exp = losses_of(torch.stack([largest, *sums]), None)
    assert_near(losses, right, 1e-6)
    for piece, part in zip(held, where, strict=True):
        replace_by_gradient(piece, labels, log_sum_exp, torch.ones_like(losses), part)
    grad = torch.cat(held, dim=1)
    assert_near(grad[:, :real], exact.grad, 2e-6)
    assert grad[:, real:].abs().sum() == 0
