"""What of a micro-batch travels to the device, and what is made of it there."""

import numpy as np
import pytest
import torch
from megatron.core import parallel_state

from megatron_ext.data.loader import MicroBatch
from megatron_ext.train.device_batch import DeviceBatch

ROWS, SEQ = 2, 5


@pytest.mark.parametrize(("dtype", "largest"), [(np.uint16, 65_535), (np.int32, 128_255)])
def test_tokens_travel_as_on_disk_and_are_widened_there(
    monkeypatch: pytest.MonkeyPatch, dtype: type, largest: int
) -> None:
    monkeypatch.setattr(parallel_state, "get_context_parallel_world_size", lambda: 1)
    tokens = np.arange(ROWS * (SEQ + 1)).reshape(ROWS, SEQ + 1).astype(dtype)
    tokens[0, 0] = largest
    mask, starts = np.ones((ROWS, SEQ), np.uint8), np.array([0, 3, SEQ, ROWS * SEQ], np.int32)
    batch = DeviceBatch.of(MicroBatch(tokens, mask, starts, np.zeros(ROWS, np.int32)), torch.device("cpu"))
    assert batch.tokens.numpy().dtype == dtype
    assert batch.loss_mask is not None
    assert batch.loss_mask.dtype == torch.uint8
    assert batch.documents is not None
    assert batch.documents.cu_seqlens_q.tolist() == starts.tolist()
    assert batch.documents.longest == SEQ
    inputs = batch.model_input()
    assert (inputs.tokens.dtype, inputs.labels.dtype) == (torch.int64, torch.int64)
    assert inputs.tokens.tolist() == tokens[:, :-1].tolist()
    assert inputs.labels.tolist() == tokens[:, 1:].tolist()
