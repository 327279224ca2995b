"""What happens to gradients between the last backward pass and the optimizer."""

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads


def finalize_gradients(model: list[DistributedDataParallel], num_tokens: torch.Tensor, **groups: Any) -> None:
    """Reduce gradients over all groups and divide them by the number of tokens in the global batch.

    megatron-core's ``finalize_model_grads`` asks whether there are tokens, which waits for the device in every step.

    Args:
        model: the chunks of this process.
        num_tokens: int32 [], of this process's micro-batches; read on the last pipeline stage.
        groups: passed on to megatron-core.
    """
    finalize_model_grads(model, None, **groups)
    last = parallel_state.get_pipeline_model_parallel_last_rank()
    dist.broadcast(num_tokens, src=last, group=parallel_state.get_pipeline_model_parallel_group())
    dist.all_reduce(num_tokens, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
    for chunk in model:
        chunk.scale_gradients(1.0 / num_tokens.clamp(min=1))  # without tokens, gradients are 0
