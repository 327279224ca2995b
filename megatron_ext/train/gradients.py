"""What happens to gradients between the last backward pass and the optimizer."""

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads


class GradientReduction:
    """Sums gradients over all groups, and the tokens that they are of; the update divides by these.

    megatron-core's ``finalize_model_grads`` divides here: one more pass over all gradients. And it asks whether there
    are tokens, which waits for the device in every step.

    Attributes:
        num_tokens: int32 [], of the global batch; the same tensor is filled again where a graph is replayed.
    """

    num_tokens: torch.Tensor

    def __call__(self, model: list[DistributedDataParallel], num_tokens: torch.Tensor, **groups: Any) -> None:
        """What megatron-core's schedule does after its last backward pass.

        Args:
            model: the chunks of this process.
            num_tokens: int32 [], of this process's micro-batches; read on the last pipeline stage.
            groups: passed on to megatron-core.
        """
        finalize_model_grads(model, None, **groups)
        last = parallel_state.get_pipeline_model_parallel_last_rank()
        dist.broadcast(num_tokens, src=last, group=parallel_state.get_pipeline_model_parallel_group())
        dist.all_reduce(num_tokens, group=parallel_state.get_data_parallel_group(with_context_parallel=True))
        self.num_tokens = num_tokens
