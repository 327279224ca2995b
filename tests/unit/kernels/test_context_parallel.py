"""Two chunks of every row on each process: together they are attention over whole rows, as are their gradients."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_ext.kernels.attention import context_parallel
from megatron_ext.kernels.attention.base import AttentionBackend
from megatron_ext.kernels.attention.context_parallel import (
    ContextParallelAttention,
    documents_of_chunk,
    gather_sequence,
    own_chunks,
)
from megatron_ext.kernels.attention.core import DotProductAttention
from megatron_ext.kernels.attention.documents import Documents
from megatron_ext.kernels.attention.reference import ReferenceAttention
from megatron_ext.kernels.attention.sdpa import SdpaFlashAttention

BATCH, CHUNK, HEADS, KV_HEADS, HEAD_SIZE = 2, 3, 4, 2, 8


class Group:
    """Stands for one of ``processes`` processes."""

    def __init__(self, rank: int, processes: int) -> None:
        self.rank = lambda: rank
        self.size = lambda: processes


@pytest.fixture(params=[1, 2, 3])
def processes(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_chunks_are_dealt_out_from_both_ends(processes: int) -> None:
    tokens = torch.arange(2 * processes * CHUNK).repeat(BATCH, 1)
    for rank in range(processes):
        numbers = (rank, 2 * processes - 1 - rank)
        expected = [chunk * CHUNK + place for chunk in numbers for place in range(CHUNK)]
        assert own_chunks(tokens, 1, rank, processes).tolist() == [expected] * BATCH


def test_a_sequence_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="10 does not divide into 2 × 2 chunks"):
        own_chunks(torch.zeros(1, 10), 1, 0, 2)


def test_gathered_parts_are_the_sequence_in_order(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.arange(2 * processes * CHUNK)
    parts = [own_chunks(whole, 0, rank, processes) for rank in range(processes)]
    monkeypatch.setattr(
        context_parallel,
        "gather_from_sequence_parallel_region",
        lambda _tensor, group: torch.cat(parts),  # noqa: ARG005
    )
    assert torch.equal(gather_sequence(parts[0], Group(0, processes)), whole)  # type: ignore[arg-type]


@given(st.data())
def test_documents_of_a_chunk_are_those_that_counting_finds(data: st.DataObject) -> None:
    rows, chunks, length = (data.draw(st.integers(1, high)) for high in (3, 6, 5))
    row = chunks * length
    inner = data.draw(st.sets(st.integers(1, rows * row - 1))) if rows * row > 1 else set()
    starts = sorted({number * row for number in range(rows + 1)} | inner)
    chunk = data.draw(st.integers(0, chunks - 1))
    queries, keys = documents_of_chunk(torch.tensor(starts, dtype=torch.int32), chunk, length, chunks)
    lengths = [
        (
            sum(place % row // length == chunk for place in range(start, end)),
            sum(place % row // length <= chunk for place in range(start, end)),
        )
        for start, end in pairwise(starts)
    ]
    assert list(zip(queries.diff().tolist(), keys.diff().tolist(), strict=True)) == lengths
    assert (queries[0], keys[0]) == (0, 0)


@pytest.mark.parametrize("backend", [SdpaFlashAttention(), ReferenceAttention()], ids=lambda one: one.name)
@settings(deadline=None, max_examples=10)
@given(processes=st.integers(1, 3), cuts=st.one_of(st.none(), st.sets(st.integers(1, 2 * BATCH * CHUNK - 1))))
def test_all_processes_together_attend_as_one(
    backend: AttentionBackend, processes: int, cuts: set[int] | None
) -> None:
    length = 2 * processes * CHUNK
    documents = None
    if cuts is not None:
        starts = sorted({cut * processes for cut in cuts} | {row * length for row in range(BATCH + 1)})
        documents = Documents.on_device(
            torch.tensor(starts, dtype=torch.int32).numpy(), length, torch.device("cpu")
        )
    generator = torch.Generator().manual_seed(0)
    query, key, value, upstream = (
        torch.randn(length, BATCH, heads, HEAD_SIZE, generator=generator, dtype=torch.float64)
        for heads in (HEADS, KV_HEADS, KV_HEADS, HEADS)
    )
    whole = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    expected = DotProductAttention(config(), backend=backend)(*whole, packed_seq_params=documents)
    expected.backward(upstream.flatten(2))

    leaves = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
    with pytest.MonkeyPatch.context() as patch:
        both = torch.stack((leaves[1], leaves[2]), dim=2)
        patch.setattr(context_parallel, "gather_sequence", lambda _part, _group: both)
        for rank in range(processes):
            slot = SimpleNamespace(cp=Group(rank, processes))
            module = ContextParallelAttention(config(), pg_collection=slot, backend=backend)
            parts = [own_chunks(tensor, 0, rank, processes) for tensor in leaves]
            output = module(*parts, packed_seq_params=documents)
            torch.testing.assert_close(output, own_chunks(expected, 0, rank, processes))
            output.backward(own_chunks(upstream.flatten(2), 0, rank, processes), retain_graph=True)
    for ours, theirs in zip(leaves, whole, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def config() -> Any:
    return SimpleNamespace()
