"""A micro-batch on its device: copied as it is on disk, widened and split there."""

import dataclasses
from typing import NamedTuple

import torch
from megatron.core import parallel_state

from megatron_ext.backend.transfer import transfer
from megatron_ext.data.loader import MicroBatch
from megatron_ext.kernels.attention.context_parallel import own_chunks
from megatron_ext.kernels.attention.documents import Documents


class ModelInput(NamedTuple):
    """What the model and its loss take of a micro-batch; under context parallelism, this process's part of the rows.

    Attributes:
        tokens: int64 [rows, seq].
        labels: int64 [rows, seq].
        loss_mask: uint8 [rows, seq], or None where every label counts.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor | None


@dataclasses.dataclass(frozen=True)
class DeviceBatch:
    """A :class:`MicroBatch`'s arrays, of whole rows, on the device.

    Attributes:
        tokens: uint16 or int32 [rows, seq + 1].
        loss_mask: uint8 [rows, seq] over the labels, or None where every label counts.
        documents: of the rows one after the other, or None where attention does not ask.
    """

    tokens: torch.Tensor
    loss_mask: torch.Tensor | None
    documents: Documents | None

    @classmethod
    def of(cls, batch: MicroBatch, device: torch.device) -> "DeviceBatch":
        """A copy on ``device``; nothing is waited for."""
        starts, seq_length = batch.cu_seqlens, batch.tokens.shape[1] - 1
        return cls(
            tokens=transfer(batch.tokens, device),
            loss_mask=None if batch.loss_mask is None else transfer(batch.loss_mask, device),
            documents=None if starts is None else Documents.on_device(starts, seq_length, device),
        )

    def model_input(self) -> ModelInput:
        """Widened, and inputs and labels apart."""
        tokens = self.tokens.long()
        return ModelInput(
            tokens=_own_part(tokens[:, :-1]),
            labels=_own_part(tokens[:, 1:]),
            loss_mask=None if self.loss_mask is None else _own_part(self.loss_mask),
        )


def _own_part(rows: torch.Tensor) -> torch.Tensor:
    """Contiguous [rows, seq / C] of [rows, seq], for C context-parallel processes."""
    size = parallel_state.get_context_parallel_world_size()
    if size == 1:
        return rows.contiguous()
    return own_chunks(rows, 1, parallel_state.get_context_parallel_rank(), size)
