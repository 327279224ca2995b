"""Attention over a sequence that several processes share, on any attention back end.

A causal row of length s is cut into 2C chunks for C processes; process r holds chunks r and 2C - 1 - r, so that all
have as many pairs of query and key to work on (the split of Megatron's and Llama 3's context parallelism, arXiv
2407.21783, section 3.3.2). Queries stay where they are; keys and values, few under grouped-query attention, are
gathered, and their gradients scattered and summed. megatron-core turns rotary embeddings by the same split.
"""

from typing import Any

import torch
import torch.distributed as dist

from megatron_ext.kernels.attention.core import DotProductAttention
from megatron_ext.kernels.attention.documents import Documents


def own_chunks(tensor: torch.Tensor, dim: int, rank: int, size: int) -> torch.Tensor:
    """What process ``rank`` of ``size`` holds of a whole sequence along ``dim``: chunks rank and 2 size - 1 - rank.

    Raises:
        ValueError: the sequence does not divide into 2 size chunks.
    """
    if tensor.size(dim) % (2 * size):
        raise ValueError(f"a sequence of {tensor.size(dim)} does not divide into 2 × {size} chunks")
    chunks = tensor.chunk(2 * size, dim)
    return torch.cat((chunks[rank], chunks[2 * size - 1 - rank]), dim)


class _GatheredStarts(torch.autograd.Function):
    """Keys and values of other processes, with no more than one copy of what is gathered and one of its gradient."""

    @staticmethod
    def forward(
        ctx: Any, key: torch.Tensor, value: torch.Tensor, ends: tuple[int, int], group: dist.ProcessGroup
    ) -> tuple[torch.Tensor, ...]:
        ctx.ends, ctx.group, ctx.length = ends, group, len(key) * group.size()
        gathered = [_gather(part.contiguous(), group) for part in (key, value)]
        whole = [_in_order(_finished(one), group.size()) for one in gathered]
        return tuple(rows[:end] for end in ends for rows in whole)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[Any, ...]:
        (early, late), group = ctx.ends, ctx.group
        reduced = []
        for grad_early, grad_late in zip(grads[:2], grads[2:], strict=True):
            whole = grad_late.new_empty(ctx.length, *grad_late.shape[1:])
            torch.add(grad_late[:early], grad_early, out=whole[:early])
            whole[early:late] = grad_late[early:]
            whole[late:] = 0
            reduced.append(_reduce_scatter(_by_process(whole, group.size()), group))
        return *(_finished(one) for one in reduced), None, None


def gathered_starts(
    key: torch.Tensor, value: torch.Tensor, ends: tuple[int, int], group: dist.ProcessGroup
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values from the start of a row up to two places in it.

    Args:
        key: [seq / C, …], this process's :func:`own_chunks`.
        value: as ``key``.
        ends: of this process's chunks in the row, (rank + 1) and (2 C - rank) chunks.
        group: the C processes that share rows; gradients are summed over them.

    Returns:
        Keys and values [end, …], in order, for each end.
    """
    keys_early, values_early, keys_late, values_late = _GatheredStarts.apply(  # type: ignore[no-untyped-call]
        key, value, ends, group
    )
    return [(keys_early, values_early), (keys_late, values_late)]


Pending = tuple[torch.Tensor, Any]


def _gather(part: torch.Tensor, group: dist.ProcessGroup) -> Pending:
    gathered = part.new_empty(group.size() * len(part), *part.shape[1:])
    return gathered, dist.all_gather_into_tensor(gathered, part, group=group, async_op=True)


def _reduce_scatter(parts: torch.Tensor, group: dist.ProcessGroup) -> Pending:
    own = parts.new_empty(len(parts) // group.size(), *parts.shape[1:])
    return own, dist.reduce_scatter_tensor(own, parts, group=group, async_op=True)


def _finished(pending: Pending) -> torch.Tensor:
    tensor, work = pending
    work.wait()
    return tensor


def _in_order(by_process: torch.Tensor, size: int) -> torch.Tensor:
    """Chunks as they follow each other, from the two of each process."""
    chunks = by_process.chunk(2 * size)
    return torch.cat([*chunks[0::2], *reversed(chunks[1::2])])


def _by_process(whole: torch.Tensor, size: int) -> torch.Tensor:
    """The other way round."""
    chunks = whole.chunk(2 * size)
    return torch.cat([chunks[number] for rank in range(size) for number in (rank, 2 * size - 1 - rank)])


def documents_of_chunk(
    cu_seqlens: torch.Tensor, chunk: int, chunk_length: int, num_chunks: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where documents start in one chunk of every row, and in the keys up to the chunk's end of every row.

    Args:
        cu_seqlens: int32 [documents + 1] over whole rows, batch-major, with a boundary at each row.
        chunk: its number in the row.
        chunk_length: tokens of a chunk.
        num_chunks: chunks of a row.

    Returns:
        cu_seqlens of the queries and of the keys. A document that ended before the chunk has keys and no query, one
        that starts after it has neither; the last query of any other sees the last key.
    """
    row_length, start = chunk_length * num_chunks, chunk_length * chunk
    row = cu_seqlens // row_length
    place = cu_seqlens % row_length
    queries = row * chunk_length + (place - start).clamp(0, chunk_length)
    keys = row * (start + chunk_length) + place.clamp(max=start + chunk_length)
    return queries.to(torch.int32), keys.to(torch.int32)


class ContextParallelAttention(DotProductAttention):
    """Attention of this process's two chunks of each row to all that precedes them."""

    def __init__(self, config: Any, *slot: Any, pg_collection: Any, **slot_options: Any) -> None:
        super().__init__(config, *slot, **slot_options)
        self.group: dist.ProcessGroup = pg_collection.cp

    def _rows(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self._chunks(None, query, key, value)

    def _inside(
        self, documents: Documents, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        return self._chunks(documents, query, key, value)

    def _chunks(
        self, documents: Documents | None, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """[batch, seq / C, heads, head_size] → the same.

        The backward pass keeps the keys and values of whole rows, unless core attention is recomputed: that gathers
        them again.
        """
        rank, size = self.group.rank(), self.group.size()
        early, late = query.chunk(2, dim=1)
        numbers, length = (rank, 2 * size - 1 - rank), early.size(1)
        ends = (numbers[0] + 1) * length, (numbers[1] + 1) * length
        starts = gathered_starts(key.transpose(0, 1), value.transpose(0, 1), ends, self.group)
        halves = zip(numbers, (early, late), starts, strict=True)
        return torch.cat(
            [
                self._attend(chunk, documents, half, keys.transpose(0, 1), values.transpose(0, 1))
                for chunk, half, (keys, values) in halves
            ],
            dim=1,
        )

    def _attend(
        self,
        chunk: int,
        documents: Documents | None,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        """One chunk of every row, and all up to its end: [batch, chunk length, heads, head_size] → the same."""
        if documents is None:
            return super()._rows(query, keys, values)
        length, end = query.size(1), keys.size(1)
        starts = documents_of_chunk(documents.cu_seqlens_q, chunk, length, 2 * self.group.size())
        packed = query.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
        longest = min(documents.longest, length), min(documents.longest, end)
        output = self.backend.varlen(*packed, *starts, *longest, self.softmax_scale, self.window)
        return output.view(query.shape)
