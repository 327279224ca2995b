"""One optimizer step, and one validation pass over a list of micro-batches."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_model_config

from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.observe.profile import update_mark
from megatron_ext.optim.optimizer import set_learning_rate, step
from megatron_ext.optim.schedule import learning_rate
from megatron_ext.train.device_batch import DeviceBatch, transfer
from megatron_ext.train.gradients import finalize_gradients
from megatron_ext.train.graphs import StepGraphs


@dataclasses.dataclass(frozen=True)
class StepOutcome:
    """What a step leaves on its device, nothing waited for.

    Attributes:
        loss: float64 [2], Σ loss in nats and Σ tokens it is over, for this data-parallel rank; zeros on processes that
            do not report it, so that a sum over all processes counts each token once.
        grad_norm: float64 [], L2 norm over all gradients before clipping, equal on every rank.
        learning_rate: what the step used.
        skipped: whether gradients overflowed in fp16, and the weights are as before.
    """

    loss: torch.Tensor
    grad_norm: torch.Tensor
    learning_rate: float
    skipped: bool


def connect_schedule(
    model: list[DistributedDataParallel], optimizer: MegatronOptimizer, graphs: StepGraphs | None = None
) -> None:
    """Tell megatron-core's schedule how gradients are scaled, reduced and overlapped."""
    config, settings = get_model_config(model[0]), model[0].ddp_config
    config.finalize_model_grads_func = finalize_gradients
    config.grad_scale_func = optimizer.scale_loss if graphs is None else graphs.scale_loss
    interleaved = len(model) > 1  # then the schedule takes one function for each chunk, else one alone
    if settings.overlap_grad_reduce:
        config.no_sync_func = [chunk.no_sync for chunk in model] if interleaved else model[0].no_sync
    if settings.overlap_param_gather:
        starts = [chunk.start_param_sync for chunk in model]
        config.param_sync_func = starts if interleaved else starts[0]


def train_step(
    config: RunConfig,
    model: list[DistributedDataParallel],
    optimizer: MegatronOptimizer,
    micro_batches: list[MicroBatch],
    update_number: int,
    *,
    graphs: StepGraphs | None = None,
) -> StepOutcome:
    """Forward and backward over the micro-batches, reduce, clip, update.

    Args:
        config: the run's settings.
        model: this process's part, connected by :func:`connect_schedule`.
        optimizer: its optimizer.
        micro_batches: this data-parallel rank's share of one global batch.
        update_number: of this update of the weights, from 1: what the learning rate depends on.
        graphs: those the model was connected with, where its passes are recorded.
    """
    rate = learning_rate(config.optimizer, config.training.train_iters, update_number)
    set_learning_rate(optimizer, rate, config.optimizer.weight_decay)
    for chunk in model:
        chunk.zero_grad_buffer()
    optimizer.zero_grad()
    passes = partial(_run_schedule, model, _training_loss, forward_only=False)
    if graphs is None:
        reports = passes(_on_device(model, micro_batches))
    else:
        reports = graphs.run(micro_batches, optimizer.get_loss_scale(), passes)
    with update_mark():
        update = step(optimizer, config.optimizer.clip_grad)
    loss = torch.stack(reports).sum(dim=0) if reports and reports_loss() else None
    return StepOutcome(_zeros(model, 2) if loss is None else loss, update.grad_norm, rate, not update.applied)


@torch.no_grad()  # megatron-core's forward-only schedule builds the graph of every micro-batch and keeps it
def validation_step(
    model: list[DistributedDataParallel], micro_batches: list[MicroBatch], num_datasets: int
) -> torch.Tensor:
    """Σ loss and Σ tokens of each dataset.

    Returns:
        float64 [num_datasets, 2], zeros on processes that do not report.
    """
    totals = _zeros(model, num_datasets, 2)
    reports = _run_schedule(model, _loss_by_row, _on_device(model, micro_batches), forward_only=True)
    if reports and reports_loss():
        for micro_batch, rows in zip(micro_batches, reports, strict=True):
            owner = transfer(micro_batch.dataset_index, totals.device)
            real = owner >= 0
            totals.index_add_(0, owner[real], rows[real])
    return totals


def reports_loss() -> bool:
    """Whether this process is the one of its model copy whose loss is counted."""
    last_stage = parallel_state.is_pipeline_last_stage()
    return bool(last_stage and parallel_state.get_tensor_model_parallel_rank() == 0)


def _run_schedule(
    model: list[DistributedDataParallel],
    loss_function: Any,
    batches: list[DeviceBatch],
    *,
    forward_only: bool,
) -> list[torch.Tensor]:
    """megatron-core's schedule over the micro-batches; what ``loss_function`` reports of each."""
    rows, width = batches[0].tokens.shape

    def forward(following: Iterator[DeviceBatch], stage: Any) -> tuple[torch.Tensor, Any]:
        batch = next(following)
        inputs, labels, loss_mask = batch.model_input()
        # RoPE counts positions itself, so the embedding needs none.
        losses = stage(inputs, None, None, labels=labels, packed_seq_params=batch.documents)
        return losses, partial(loss_function, loss_mask)

    reports: list[torch.Tensor] = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=[iter(batches) for _ in model],
        model=model,
        num_microbatches=len(batches),
        seq_length=width - 1,
        micro_batch_size=rows,
        forward_only=forward_only,
    )
    return reports


def _on_device(model: list[DistributedDataParallel], micro_batches: list[MicroBatch]) -> list[DeviceBatch]:
    device = _device(model)
    return [DeviceBatch.of(batch, device) for batch in micro_batches]


def _device(model: list[DistributedDataParallel]) -> torch.device:
    device: torch.device = next(model[0].parameters()).device
    return device


def _zeros(model: list[DistributedDataParallel], *shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.float64, device=_device(model))


def _training_loss(
    loss_mask: torch.Tensor | None, losses: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ loss (differentiated), number of tokens, and the report of both, from the loss of each token [rows, seq]."""
    losses = losses.float() if loss_mask is None else losses.float() * loss_mask
    loss_sum = losses.sum()
    num_tokens = losses.new_full((), losses.numel()) if loss_mask is None else loss_mask.sum()
    report = torch.stack([loss_sum.detach().double(), num_tokens.double()])
    return loss_sum, num_tokens.to(torch.int32), report


def _loss_by_row(
    loss_mask: torch.Tensor | None, losses: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As above, with the report kept apart for each row: float64 [rows, 2]."""
    mask = torch.ones_like(losses) if loss_mask is None else loss_mask
    by_row = torch.stack([(losses.double() * mask).sum(dim=1), mask.sum(dim=1).double()], dim=1)
    return by_row[:, 0].sum(), mask.sum().to(torch.int32), by_row
