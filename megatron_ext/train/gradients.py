"""What happens to gradients before the first backward pass of a step, and between the last and the optimizer."""

from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, finalize_model_grads

from megatron_ext.kernels.weight_gradient import forget_weight_gradient


def forget_gradients(model: list[DistributedDataParallel]) -> None:
    """Start a step: as megatron-core's ``zero_grad_buffer``, but what a product will overwrite is not zeroed.

    A tied table's gradient is one of a product and of the embedding; it is zeroed as well.
    """
    for chunk in model:
        remembered = []
        for weight in chunk.params_with_grad:
            weight.grad_added_to_main_grad = False
            tied = getattr(weight, "shared_embedding", False) or getattr(weight, "zero_out_wgrad", False)
            if tied or not forget_weight_gradient(weight.main_grad):
                remembered.append(weight.main_grad)
        torch._foreach_zero_(remembered)
        for group in chunk.bucket_groups:
            group.reset()


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
