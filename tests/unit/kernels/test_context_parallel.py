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
    gathered_starts,
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


class Done:
    """A collective that is over."""

    def wait(self) -> None: ...


def test_gathered_parts_are_the_sequence_in_order(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the gradient of each place goes back to the process that holds it, from both of its readers."""
    length = 2 * processes * CHUNK
    whole = torch.randn(length, BATCH, dtype=torch.float64)
    parts = [own_chunks(whole, 0, rank, processes) for rank in range(processes)]
    monkeypatch.setattr(context_parallel, "_gather", lambda _part, _group: (torch.cat(parts), Done()))
    sent: list[torch.Tensor] = []

    def reduce_scatter(by_process: torch.Tensor, group: Any) -> Any:
        sent.append(by_process)
        return by_process.chunk(processes)[group.rank()], Done()

    monkeypatch.setattr(context_parallel, "_reduce_scatter", reduce_scatter)
    for rank in range(processes):
        key, value = (parts[rank].clone().requires_grad_() for _ in range(2))
        ends = (rank + 1) * CHUNK, (2 * processes - rank) * CHUNK
        starts = gathered_starts(key, value, ends, Group(rank, processes))  # type: ignore[arg-type]
        for end, (keys, values) in zip(ends, starts, strict=True):
            assert torch.equal(keys, whole[:end])
            assert torch.equal(values, whole[:end])
        weights = [torch.randn(end, BATCH, dtype=torch.float64) for end in ends]
        sum((keys * weight).sum() for (keys, _), weight in zip(starts, weights, strict=True)).backward()
        expected = torch.zeros(length, BATCH, dtype=torch.float64)
        for end, weight in zip(ends, weights, strict=True):
            expected[:end] += weight
        in_parts = torch.cat([own_chunks(expected, 0, other, processes) for other in range(processes)])
        assert torch.equal(sent[-2], in_parts)  # of keys
        assert not sent[-1].any()  # of values, which nothing was asked of
        assert torch.equal(key.grad, own_chunks(expected, 0, rank, processes))  # type: ignore[arg-type]


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
        patch.setattr(
            context_parallel,
            "gathered_starts",
            lambda _key, _value, ends, _group: [tuple(rows[:end] for rows in leaves[1:]) for end in ends],
        )
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
