"""Where documents lie in a micro-batch, on its way through megatron-core to the attention."""

from dataclasses import dataclass

import numpy as np
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from numpy.typing import NDArray

from megatron_ext.backend.transfer import transfer


@dataclass
class Documents(PackedSeqParams):  # type: ignore[misc]
    """Attention stays inside these; hidden states keep their layout, [seq, batch, hidden].

    megatron-core hands its PackedSeqParams to every layer, also past recomputation, which keeps tensors only; so what
    the host knows of the longest document needs no copy back from the device. Of what megatron-core reads itself,
    ``qkv_format`` leaves the layout as it is, and ``max_seqlen_*`` is the length of its rotary table, hence the row's.

    Attributes:
        cu_seqlens_q: int32 [documents + 1] on the device, from 0 to batch × seq: where documents start in the
            batch-major flattened tokens, with a boundary at each row.
        longest: tokens of the longest document.
    """

    longest: int = 0

    @classmethod
    def on_device(cls, cu_seqlens: NDArray[np.int32], seq_length: int, device: torch.device) -> "Documents":
        """From ``MicroBatch.cu_seqlens``, rows of ``seq_length`` tokens; nothing waits for the device."""
        starts = transfer(cu_seqlens, device)
        return cls(
            qkv_format="sbhd",
            cu_seqlens_q=starts,
            cu_seqlens_kv=starts,
            max_seqlen_q=seq_length,
            max_seqlen_kv=seq_length,
            longest=int(np.diff(cu_seqlens).max()),
        )
