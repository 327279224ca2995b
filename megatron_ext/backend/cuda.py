"""NVIDIA GPUs over NCCL."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

Result = TypeVar("Result")


class GraphRecorder:
    """CUDA graphs, captured on a stream of their own: the default stream cannot be."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Queue the block's work on the stream of captures; what is queued after the block waits for it."""
        outside = torch.cuda.current_stream()
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            yield
        outside.wait_stream(self.stream)

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Capture ``work`` in a pool of memory of its own; what is cached is given back first."""
        gc.collect()  # of cycles that still hold the memory of steps before
        graph = torch.cuda.CUDAGraph()
        # Only this thread is held to what a capture allows: NCCL's own asks for events meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            result = work()
        return result, graph.replay


class CudaBackend:
    """One GPU of this node."""

    collective = "nccl"
    fused_kernels = True

    def __init__(self, local_rank: int) -> None:
        self.device = torch.device("cuda", local_rank)

    def start(self) -> None:
        """Make the GPU current, for megatron-core allocates on the current device."""
        torch.cuda.set_device(self.device)

    def device_name(self) -> str:
        """For example ``NVIDIA H100 80GB HBM3``."""
        return torch.cuda.get_device_name(self.device)

    def synchronize(self) -> None:
        """Wait for every queued kernel."""
        torch.cuda.synchronize(self.device)

    def peak_memory_bytes(self) -> int:
        """Largest memory the allocator has reserved."""
        return torch.cuda.max_memory_reserved(self.device)

    def host_clock(self) -> float:
        """Wall-clock time: the backward pass is issued by threads of its own."""
        return time.perf_counter()

    def reset_peak_memory(self) -> None:
        """Empty the allocator's cache, then forget the peak."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def recorder(self) -> GraphRecorder:
        """CUDA graphs."""
        return GraphRecorder(self.device)
