"""What the fused kernels compute, in plain torch and in the dtype given: what tests and benchmarks compare with."""

import torch
from torch.nn import functional


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``x / sqrt(mean(x²) + eps) × weight`` over the last axis."""
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight


def forked_rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The normed input, and the input."""
    return rms_norm(x, weight, eps), x


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The normed sum, and the sum."""
    return rms_norm(x + residual, weight, eps), x + residual


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) × up`` of the two halves of the last axis."""
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def rope_table(angles: torch.Tensor) -> torch.Tensor:
    """Cosines and, behind them, sines of the angles of each pair: [..., pairs] → [..., 2 × pairs]."""
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def rope_packed(
    packed: torch.Tensor, table: torch.Tensor, groups: int, heads_per_group: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of the packed projection, the first two turned; shapes as the kernel's."""
    seq_length, batch = packed.shape[:2]
    split = packed.view(seq_length, batch, groups, heads_per_group + 2, -1)
    query, key, value = torch.split(split, [heads_per_group, 1, 1], dim=3)
    cosine, sine = table.view(seq_length, 1, 1, -1).to(packed.dtype).chunk(2, dim=-1)

    def turn(heads: torch.Tensor) -> torch.Tensor:
        first, second = heads.flatten(2, 3).chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    return turn(query), turn(key), value.flatten(2, 3)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, real: int) -> torch.Tensor:
    """Loss of each token [...] from logits [..., columns] whose columns from ``real`` on are padding."""
    return functional.cross_entropy(
        logits[..., :real].flatten(0, -2), labels.flatten(), reduction="none"
    ).view(labels.shape)


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, real: int
) -> torch.Tensor:
    """As :func:`cross_entropy`, from hidden [..., hidden] and weight [columns, hidden]."""
    return cross_entropy(hidden @ weight.t(), labels, real)
