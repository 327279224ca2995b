"""Rotary position embedding in Triton, from the packed output of the qkv projection to q, k and v (arXiv 2104.09864).

One kernel reads the projection once and writes three contiguous tensors, as attention kernels want them; one packs
their gradients and turns them back. A head's halves are its pairs, as in Llama: (i, i + head_size / 2). Cosines and
sines come from a table in fp32 that stays in the cache; computed here they would take most of the instructions.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from megatron_ext.kernels.fused.checks import check

PAIRS_PER_PROGRAM = 1024
"""Of as many heads; eight for each thread, whose halves are then 16 bytes each in 16 bits."""
WARPS = 4


@triton.jit
def _destinations(
    packed_head: tl.tensor, heads_per_group: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Group of each packed head, its place in the group, and its number among the query heads."""
    group = packed_head // (heads_per_group + 2)
    place = packed_head % (heads_per_group + 2)
    return group, place, group * heads_per_group + place


@triton.jit
def _rotation(
    table: tl.tensor, position: tl.tensor, half: tl.tensor, size: tl.tensor, turned: tl.tensor
) -> tuple[tl.tensor, tl.tensor]:
    """Cosine and sine of each pair at a position for the heads that are turned; 1 and 0 for values."""
    source = table + position * size + half
    cosine = tl.load(source, mask=half < size // 2, other=1.0)
    sine = tl.load(source + size // 2, mask=half < size // 2, other=0.0)
    cosine = tl.where(turned[:, None], cosine[None, :], 1.0)
    return cosine, tl.where(turned[:, None], sine[None, :], 0.0)


@triton.jit
def _rope_forward_kernel(
    packed: tl.tensor,
    table: tl.tensor,
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    batch: tl.tensor,
    groups: tl.tensor,
    heads_per_group: tl.tensor,
    size: tl.tensor,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    half = tl.arange(0, HALF)
    heads = groups * (heads_per_group + 2)
    group, place, query_head = _destinations(head, heads_per_group)
    inside = (head < heads)[:, None] & (half < size // 2)[None, :]
    source = packed + (token * heads + head[:, None]) * size + half[None, :]
    first = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + size // 2, mask=inside, other=0.0).to(tl.float32)
    cosine, sine = _rotation(table, token // batch, half, size, place <= heads_per_group)
    kind = packed.dtype.element_ty
    turned_first = (first * cosine - second * sine).to(kind)
    turned_second = (second * cosine + first * sine).to(kind)

    target = query + (token * groups * heads_per_group + query_head[:, None]) * size + half[None, :]
    chosen = inside & (place < heads_per_group)[:, None]
    tl.store(target, turned_first, mask=chosen)
    tl.store(target + size // 2, turned_second, mask=chosen)
    offset = (token * groups + group[:, None]) * size + half[None, :]
    chosen = inside & (place == heads_per_group)[:, None]
    tl.store(key + offset, turned_first, mask=chosen)
    tl.store(key + offset + size // 2, turned_second, mask=chosen)
    chosen = inside & (place == heads_per_group + 1)[:, None]
    tl.store(value + offset, turned_first, mask=chosen)
    tl.store(value + offset + size // 2, turned_second, mask=chosen)


@triton.jit
def _offset(
    token: tl.tensor, batch: tl.tensor, head: tl.tensor, half: tl.tensor, strides: tl.tensor
) -> tl.tensor:
    """Of [heads, half] values of a token in [seq, batch, heads, head_size] with these strides of the first three."""
    place = (token // batch) * strides[0] + (token % batch) * strides[1]
    return place + head[:, None].to(tl.int64) * strides[2] + half[None, :]


@triton.jit
def _load_halves(source: tl.tensor, size: tl.tensor, chosen: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    first = tl.load(source, mask=chosen, other=0.0).to(tl.float32)
    second = tl.load(source + size // 2, mask=chosen, other=0.0).to(tl.float32)
    return first, second


@triton.jit
def _rope_backward_kernel(
    grad_query: tl.tensor,
    grad_key: tl.tensor,
    grad_value: tl.tensor,
    table: tl.tensor,
    grad_packed: tl.tensor,
    query_strides: tl.tensor,
    key_strides: tl.tensor,
    value_strides: tl.tensor,
    batch: tl.tensor,
    groups: tl.tensor,
    heads_per_group: tl.tensor,
    size: tl.tensor,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    half = tl.arange(0, HALF)
    heads = groups * (heads_per_group + 2)
    group, place, query_head = _destinations(head, heads_per_group)
    inside = (head < heads)[:, None] & (half < size // 2)[None, :]
    # Each head has one source; the other two give zeros.
    source = grad_query + _offset(token, batch, query_head, half, query_strides)
    q1, q2 = _load_halves(source, size, inside & (place < heads_per_group)[:, None])
    source = grad_key + _offset(token, batch, group, half, key_strides)
    k1, k2 = _load_halves(source, size, inside & (place == heads_per_group)[:, None])
    source = grad_value + _offset(token, batch, group, half, value_strides)
    v1, v2 = _load_halves(source, size, inside & (place == heads_per_group + 1)[:, None])
    first = q1 + k1 + v1
    second = q2 + k2 + v2
    cosine, sine = _rotation(table, token // batch, half, size, place <= heads_per_group)
    target = grad_packed + (token * heads + head[:, None]) * size + half[None, :]
    kind = grad_packed.dtype.element_ty
    tl.store(target, (first * cosine + second * sine).to(kind), mask=inside)
    tl.store(target + size // 2, (second * cosine - first * sine).to(kind), mask=inside)


def _launch(
    kernel: Any, *arguments: Any, packed: torch.Tensor, groups: int, heads_per_group: int, size: int
) -> None:
    seq_length, batch = packed.shape[:2]
    half = triton.next_power_of_2(size // 2)
    heads = max(1, PAIRS_PER_PROGRAM // half)
    blocks = triton.cdiv(groups * (heads_per_group + 2), heads)
    kernel[(seq_length * batch, blocks)](
        *arguments, batch, groups, heads_per_group, size, HEADS=heads, HALF=half, num_warps=WARPS
    )


class _PackedRope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, packed: torch.Tensor, table: torch.Tensor, groups: int, heads_per_group: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        size = packed.size(-1) // (groups * (heads_per_group + 2))
        query = packed.new_empty(*packed.shape[:2], groups * heads_per_group, size)
        key = packed.new_empty(*packed.shape[:2], groups, size)
        value = torch.empty_like(key)
        ctx.save_for_backward(table)
        ctx.shape = {"groups": groups, "heads_per_group": heads_per_group, "size": size}
        _launch(_rope_forward_kernel, packed, table, query, key, value, packed=packed, **ctx.shape)
        return query, key, value

    @staticmethod
    def backward(
        ctx: Any, grad_query: torch.Tensor, grad_key: torch.Tensor, grad_value: torch.Tensor
    ) -> tuple[torch.Tensor, None, None, None]:
        (table,) = ctx.saved_tensors
        heads = ctx.shape["groups"] * (ctx.shape["heads_per_group"] + 2)
        grad = grad_query.new_empty(*grad_query.shape[:2], heads * ctx.shape["size"])
        # Attention kernels give them in layouts of their own; a copy would cost as much as the rotation.
        parts = [
            one if one.stride(-1) == 1 else one.contiguous() for one in (grad_query, grad_key, grad_value)
        ]
        strides = [one.stride()[:-1] for one in parts]
        _launch(_rope_backward_kernel, *parts, table, grad, *strides, packed=grad, **ctx.shape)
        return grad, None, None, None


def rope_packed(
    packed: torch.Tensor, table: torch.Tensor, groups: int, heads_per_group: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split the qkv projection's output and turn queries and keys by their positions.

    Args:
        packed: [seq, batch, groups × (heads_per_group + 2) × head_size]: each group's queries, its key, its value;
            head_size is even.
        table: fp32 [seq, ..., head_size], :func:`megatron_ext.kernels.reference.rope_table` of the positions.
        groups: KV heads here.
        heads_per_group: query heads of each.

    Returns:
        Queries [seq, batch, groups × heads_per_group, head_size], keys and values [seq, batch, groups, head_size].

    Raises:
        ValueError: shapes do not fit.
    """
    size, left = divmod(packed.size(-1), groups * (heads_per_group + 2))
    check(fits=left == 0 and size % 2 == 0, what=f"{packed.size(-1)} columns are not heads of an even size")
    fits = table.size(0) == packed.size(0) and table.numel() == table.size(0) * size
    check(fits=fits, what=f"table {tuple(table.shape)} for {packed.size(0)} positions and heads of {size}")
    query, key, value = _PackedRope.apply(  # type: ignore[no-untyped-call]
        packed.contiguous(), table.contiguous(), groups, heads_per_group
    )
    return query, key, value
