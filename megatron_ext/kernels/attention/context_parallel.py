"""Attention over a sequence that several processes share, on any attention back end.

A causal row of length s is cut into 2C chunks for C processes; process r holds chunks r and 2C - 1 - r, so that all
have as many pairs of query and key to work on (the split of Megatron's and Llama 3's context parallelism, arXiv
2407.21783, section 3.3.2). Queries stay where they are; keys and values, few under grouped-query attention, are
gathered, and their gradients scattered and summed. megatron-core turns rotary embeddings by the same split.
"""

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region

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


def gather_sequence(tensor: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The whole sequence, in order, from each process's :func:`own_chunks` on axis 0; gradients are summed."""
    by_process = gather_from_sequence_parallel_region(tensor, group=group)
    pairs = by_process.unflatten(0, (group.size(), 2, -1))
    return torch.cat((pairs[:, 0].flatten(0, 1), pairs[:, 1].flip(0).flatten(0, 1)))


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
        both = torch.stack((key, value)).transpose(0, 2)  # [seq / C, batch, 2, ...]: one collective
        keys, values = gather_sequence(both, self.group).transpose(0, 2).unbind(0)
        rank, size = self.group.rank(), self.group.size()
        early, late = query.chunk(2, dim=1)
        halves = ((rank, early), (2 * size - 1 - rank, late))
        return torch.cat(
            [self._attend(chunk, documents, half, keys, values) for chunk, half in halves], dim=1
        )

    def _attend(
        self,
        chunk: int,
        documents: Documents | None,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> torch.Tensor:
        """One chunk of every row: [batch, chunk length, heads, head_size] → the same."""
        length = query.size(1)
        end = (chunk + 1) * length
        keys, values = keys[:, :end], values[:, :end]
        if documents is None:
            return super()._rows(query, keys, values)
        starts = documents_of_chunk(documents.cu_seqlens_q, chunk, length, 2 * self.group.size())
        packed = query.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
        longest = min(documents.longest, length), min(documents.longest, end)
        output = self.backend.varlen(*packed, *starts, *longest, self.softmax_scale, self.window)
        return output.view(query.shape)
