"""A step's forward and backward passes as one graph: recorded once, then queued by one call.

The graph holds all that megatron-core's schedule does in any layout, from tokens to reduced gradients, so it grows with
the number of micro-batches. megatron-core's own ``FullCudaGraphWrapper`` serves one model in a process and one number
of micro-batches: its graph belongs to the class, and where a batch has grown it would replay that of the smaller one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from megatron_ext.backend.device import Recorder
from megatron_ext.backend.transfer import pinned
from megatron_ext.data.loader import MicroBatch
from megatron_ext.errors import TrainingError
from megatron_ext.train.device_batch import DeviceBatch
from megatron_ext.utils.console import get_logger

WARMUP_STEPS = 3
"""Before a recording: kernels are compiled, processes connect, and megatron-core counts the gradients of a bucket."""

logger = get_logger(__name__)

Passes = Callable[[list[DeviceBatch]], list[torch.Tensor]]


class _Slot(NamedTuple):
    """Where one micro-batch of every step lies; all have a mask, so that one that needs it is no different."""

    tokens: torch.Tensor
    loss_mask: torch.Tensor

    @classmethod
    def like(cls, batch: MicroBatch, device: torch.device) -> "_Slot":
        tokens = torch.empty_like(torch.from_numpy(batch.tokens), device=device)
        return cls(tokens, torch.empty_like(tokens[:, 1:], dtype=torch.uint8))

    def fill(self, batch: MicroBatch) -> None:
        tokens = pinned(batch.tokens, self.tokens.device)
        alike = tokens.shape == self.tokens.shape and tokens.dtype == self.tokens.dtype
        if not alike or batch.cu_seqlens is not None:
            raise TrainingError(
                "kernels.cuda_graphs=true needs micro-batches without documents that are all alike, and one of "
                f"{tokens.dtype} {list(tokens.shape)} came after {self.tokens.dtype} {list(self.tokens.shape)}; "
                "set it to false"
            )
        self.tokens.copy_(tokens, non_blocking=True)
        if batch.loss_mask is None:
            self.loss_mask.fill_(1)
        else:
            self.loss_mask.copy_(pinned(batch.loss_mask, self.tokens.device), non_blocking=True)


class _Recording(NamedTuple):
    num_microbatches: int
    reports: list[torch.Tensor]
    replay: Callable[[], None]


class StepGraphs:
    """Runs the passes of each step: the first ones as they are, then from a graph.

    What changes between steps lies in tensors that stay: the micro-batches, the loss scale, weights and main gradients.

    Args:
        recorder: of the device.
        device: where the model is.
    """

    def __init__(self, recorder: Recorder, device: torch.device) -> None:
        self._recorder = recorder
        self._device = device
        self._loss_scale = torch.ones(1, device=device)
        self._slots: list[_Slot] = []
        self._warmed_up = 0
        self._recording: _Recording | None = None

    def beside(self) -> AbstractContextManager[None]:
        """Where the model is to be wrapped for data parallelism: see :meth:`Recorder.beside`."""
        return self._recorder.beside()

    def scale_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """``loss`` times the scale of the step: in fp16 another tensor holds it after each change."""
        return self._loss_scale * loss

    def run(
        self, micro_batches: list[MicroBatch], loss_scale: torch.Tensor, passes: Passes
    ) -> list[torch.Tensor]:
        """``passes`` over the micro-batches.

        Args:
            micro_batches: of one step. Where their number differs from the step before, a new graph is recorded in
                place of the old one: a batch that is ramped up never shrinks.
            loss_scale: fp32 [1], on the device.
            passes: forward and backward passes with whatever belongs to them; the same in every step.

        Returns:
            What ``passes`` returns, to be read before the next call.

        Raises:
            TrainingError: a micro-batch has another shape or dtype than those before, or documents.
        """
        inputs = self._filled(micro_batches)
        self._loss_scale.copy_(loss_scale)
        if self._warmed_up < WARMUP_STEPS:
            self._warmed_up += 1
            with self.beside():
                return passes(inputs)
        if self._recording is None or self._recording.num_microbatches != len(inputs):
            self.release()  # before the next takes as much memory
            self._recording = _Recording(len(inputs), *self._recorder.record(lambda: passes(inputs)))
            logger.info(f"recorded a graph of {len(inputs)} micro-batches")
        self._recording.replay()
        return self._recording.reports

    def release(self) -> None:
        """Let the graph go: NCCL would wait for it before it ended the connections in it."""
        self._recording = None

    def _filled(self, micro_batches: list[MicroBatch]) -> list[DeviceBatch]:
        """The tensors that graphs read, with these micro-batches in them."""
        for batch in micro_batches[len(self._slots) :]:
            self._slots.append(_Slot.like(batch, self._device))
        used = self._slots[: len(micro_batches)]
        for slot, batch in zip(used, micro_batches, strict=True):
            slot.fill(batch)
        return [DeviceBatch(slot.tokens, slot.loss_mask, None) for slot in used]
