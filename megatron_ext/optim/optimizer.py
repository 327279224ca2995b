"""Data-parallel gradient reduction and AdamW, from megatron-core."""

from typing import Any

from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_ext.config.sections import RunConfig
from megatron_ext.model.transformer import PARAMS_DTYPE
from megatron_ext.optim.distributed_adam import mend_distributed_optimizer


def wrap_data_parallel(
    run: RunConfig, config: TransformerConfig, chunks: list[Any]
) -> list[DistributedDataParallel]:
    """Give the model its flat fp32 gradient buffers and their reduction over data- and context-parallel ranks."""
    parallel = run.parallel
    settings = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=parallel.use_distributed_optimizer,
        overlap_grad_reduce=parallel.overlap_grad_reduce,
        overlap_param_gather=parallel.overlap_param_gather,
    )
    # Chunks after the first communicate while others compute, in one piece: only the first gains from buckets.
    return [
        DistributedDataParallel(config, settings, chunk, disable_bucketing=index > 0)
        for index, chunk in enumerate(chunks)
    ]


def build_optimizer(run: RunConfig, model: list[DistributedDataParallel]) -> MegatronOptimizer:
    """AdamW with fp32 state; weight decay on matrices only, gradients clipped to ``clip_grad`` over all ranks."""
    mend_distributed_optimizer()
    optimizer, dtype = run.optimizer, PARAMS_DTYPE[run.training.precision]
    return get_megatron_optimizer(
        MegatronOptimizerConfig(
            optimizer="adam",
            lr=optimizer.lr,
            min_lr=optimizer.min_lr,
            weight_decay=optimizer.weight_decay,
            adam_beta1=optimizer.adam_beta1,
            adam_beta2=optimizer.adam_beta2,
            adam_eps=optimizer.adam_eps,
            clip_grad=optimizer.clip_grad,
            bf16=run.training.precision == "bf16",
            params_dtype=dtype,
            use_distributed_optimizer=run.parallel.use_distributed_optimizer,
            overlap_param_gather=run.parallel.overlap_param_gather,
        ),
        model,
    )


def set_learning_rate(optimizer: MegatronOptimizer, learning_rate: float, weight_decay: float) -> None:
    """Use these in the next step; groups that take no weight decay (norms) have the multiplier 0."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_mult"]
        group["weight_decay"] = weight_decay * group["wd_mult"]
