"""Data-parallel gradient reduction, AdamW and clipping, on megatron-core."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import MegatronOptimizer, get_megatron_optimizer
from megatron.core.optimizer import OptimizerConfig as MegatronOptimizerConfig
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_ext.config.sections import RunConfig
from megatron_ext.model.transformer import PARAMS_DTYPE
from megatron_ext.optim.flat_adamw import FlatAdamW, install_flat_adamw

NORM_EPSILON = 1e-6
"""Added to the norm before dividing by it, as in megatron-core."""


def wrap_data_parallel(
    run: RunConfig, config: TransformerConfig, chunks: list[Any]
) -> list[DistributedDataParallel]:
    """Give the model its flat gradient buffers and their reduction over data- and context-parallel ranks."""
    parallel = run.parallel
    settings = DistributedDataParallelConfig(
        grad_reduce_in_fp32=run.optimizer.main_grads_dtype == "fp32",
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
    """AdamW; weight decay on matrices only, gradients clipped to ``clip_grad`` over all ranks."""
    install_flat_adamw()
    optimizer, dtype = run.optimizer, PARAMS_DTYPE[run.training.precision]
    config = MegatronOptimizerConfig(
        optimizer="adam",
        lr=optimizer.lr,
        min_lr=optimizer.min_lr,
        weight_decay=optimizer.weight_decay,
        adam_beta1=optimizer.adam_beta1,
        adam_beta2=optimizer.adam_beta2,
        adam_eps=optimizer.adam_eps,
        clip_grad=optimizer.clip_grad,
        bf16=run.training.precision == "bf16",
        fp16=run.training.precision == "fp16",
        loss_scale=optimizer.loss_scale,
        initial_loss_scale=optimizer.initial_loss_scale,
        min_loss_scale=optimizer.min_loss_scale,
        loss_scale_window=optimizer.loss_scale_window,
        hysteresis=optimizer.hysteresis,
        params_dtype=dtype,
        use_distributed_optimizer=run.parallel.use_distributed_optimizer,
        overlap_param_gather=run.parallel.overlap_param_gather,
    )
    # Not given above: megatron-core would ask for Transformer Engine, and the states are ours.
    config.store_param_remainders = optimizer.store_param_remainders
    config.main_grads_dtype = PARAMS_DTYPE[optimizer.main_grads_dtype]
    config.exp_avg_dtype = PARAMS_DTYPE[optimizer.exp_avg_dtype]
    config.exp_avg_sq_dtype = PARAMS_DTYPE[optimizer.exp_avg_sq_dtype]
    built = get_megatron_optimizer(config, model)
    for part in built.chained_optimizers:
        if type(part.optimizer) is torch.optim.AdamW:
            _fuse(part.optimizer)
    return built


def _fuse(adamw: torch.optim.AdamW) -> None:
    """Let torch update in one kernel: its default on GPUs takes another 4 bytes a parameter while it works."""
    for group in adamw.param_groups:
        group["fused"] = True


def set_learning_rate(optimizer: MegatronOptimizer, learning_rate: float, weight_decay: float) -> None:
    """Use these in the next step; groups that take no weight decay (norms) have the multiplier 0."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_mult"]
        group["weight_decay"] = weight_decay * group["wd_mult"]


@dataclass(frozen=True)
class Update:
    """What became of a step.

    Attributes:
        grad_norm: float64 [], L2 norm over all gradients before clipping, on the device and equal on every rank.
        applied: False where fp16 gradients overflowed and the weights stayed as they were.
    """

    grad_norm: torch.Tensor
    applied: bool


@torch.no_grad()
def step(optimizer: MegatronOptimizer, clip_grad: float) -> Update:
    """Clip and update once gradients are reduced; the host waits for nothing, except under fp16's loss scaling.

    megatron-core's own ``step`` fetches the norm to decide on clipping; here the factor stays on the device, and goes
    into the update's kernel where that is ours.
    """
    overflow = optimizer.prepare_grads()
    (part,) = optimizer.chained_optimizers
    norm = _gradient_norm(part)
    if overflow:
        return Update(norm, applied=False)
    if clip_grad > 0:
        factor = (clip_grad / (norm + NORM_EPSILON)).clamp(max=1.0).float()
        if isinstance(part.optimizer, FlatAdamW):
            part.optimizer.grad_scale = factor
        else:
            gradients = [weight.grad for weight in part.get_parameters() if weight.grad is not None]
            torch._foreach_mul_(gradients, factor)
    optimizer.step_with_ready_grads()
    return Update(norm, applied=True)


def _gradient_norm(part: MegatronOptimizer) -> torch.Tensor:
    """Over this rank's share of the gradients, each counted once, and then over the ranks that hold the others."""
    gradients = part.get_main_grads_for_grad_norm()
    norms = (
        torch._foreach_norm(gradients, 2, dtype=torch.float32) if gradients else [part.get_loss_scale() * 0]
    )
    squares = torch.stack([norm.reshape(()) for norm in norms]).double().square().sum()
    dist.all_reduce(squares, group=part.get_grad_stats_parallel_group())
    return squares.sqrt()
