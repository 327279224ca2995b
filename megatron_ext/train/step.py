"""One optimizer step, and one validation pass over a list of micro-batches."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_model_config
from numpy.typing import NDArray

from megatron_ext.backend.transfer import transfer
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.observe.profile import update_mark
from megatron_ext.optim.optimizer import set_learning_rate, step
from megatron_ext.optim.schedule import learning_rate
from megatron_ext.train.device_batch import DeviceBatch
from megatron_ext.train.gradients import GradientReduction, forget_gradients
from megatron_ext.train.graphs import StepGraphs


@dataclasses.dataclass(frozen=True)
class StepOutcome:
    """What a step leaves on its device, nothing waited for.

    Attributes:
        row_losses: float64 [rows, 2], Σ loss in nats and Σ tokens it is over, of each row that this process reports (of
            its part of the row, under context parallelism); no rows on processes that report none, so that a sum over
            all processes counts each token once.
        row_sets: int32 [rows] on the host, the set each of them is from.
        grad_norm: float64 [], L2 norm over all gradients before clipping, equal on every rank.
        learning_rate: what the step used.
        skipped: whether gradients overflowed in fp16, and the weights are as before.
    """

    row_losses: torch.Tensor
    row_sets: NDArray[np.int32]
    grad_norm: torch.Tensor
    learning_rate: float
    skipped: bool

    @property
    def loss(self) -> torch.Tensor:
        """float64 [2], Σ loss and Σ tokens of all rows of this process."""
        return self.row_losses.sum(dim=0)


def connect_schedule(
    model: list[DistributedDataParallel], optimizer: MegatronOptimizer, graphs: StepGraphs | None = None
) -> None:
    """Tell megatron-core's schedule how gradients are scaled, reduced and overlapped."""
    config, settings = get_model_config(model[0]), model[0].ddp_config
    config.finalize_model_grads_func = GradientReduction()
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
    forget_gradients(model)
    optimizer.zero_grad()
    passes = partial(_run_schedule, model, forward_only=False)
    if graphs is None:
        reports = passes(_on_device(model, micro_batches))
    else:
        reports = graphs.run(micro_batches, optimizer.get_loss_scale(), passes)
    with update_mark():
        num_tokens = get_model_config(model[0]).finalize_model_grads_func.num_tokens
        update = step(optimizer, config.optimizer.clip_grad, num_tokens)
    row_losses, row_sets = _rows(reports, micro_batches, _device(model))
    return StepOutcome(row_losses, row_sets, update.grad_norm, rate, not update.applied)


@torch.no_grad()  # megatron-core's forward-only schedule builds the graph of every micro-batch and keeps it
def validation_step(
    model: list[DistributedDataParallel], micro_batches: list[MicroBatch], num_datasets: int
) -> torch.Tensor:
    """Σ loss and Σ tokens of each dataset.

    Returns:
        float64 [num_datasets, 2], zeros on processes that do not report.
    """
    totals = torch.zeros(num_datasets, 2, dtype=torch.float64, device=_device(model))
    reports = _run_schedule(model, _on_device(model, micro_batches), forward_only=True)
    add_by_set(totals, *_rows(reports, micro_batches, totals.device))
    return totals


def add_by_set(totals: torch.Tensor, row_losses: torch.Tensor, row_sets: NDArray[np.int32]) -> None:
    """Add the reports of rows to ``totals`` of their sets, float64 [sets, 2]; nothing is waited for.

    Rows are as in :class:`StepOutcome`; filler rows, of set -1, count nowhere.
    """
    real = np.flatnonzero(row_sets >= 0)
    if len(real) == 0:
        return
    if len(real) < len(row_sets):
        row_losses, row_sets = row_losses[transfer(real, totals.device)], row_sets[real]
    totals.index_add_(0, transfer(row_sets, totals.device), row_losses)


def reports_loss() -> bool:
    """Whether this process is the one of its model copy whose loss is counted."""
    last_stage = parallel_state.is_pipeline_last_stage()
    return bool(last_stage and parallel_state.get_tensor_model_parallel_rank() == 0)


def _run_schedule(
    model: list[DistributedDataParallel],
    batches: list[DeviceBatch],
    *,
    forward_only: bool,
) -> list[torch.Tensor]:
    """megatron-core's schedule over the micro-batches; the loss of each one's rows."""
    rows, width = batches[0].tokens.shape

    def forward(following: Iterator[DeviceBatch], stage: Any) -> tuple[torch.Tensor, Any]:
        batch = next(following)
        inputs, labels, loss_mask = batch.model_input()
        # RoPE counts positions itself, so the embedding needs none.
        losses = stage(inputs, None, None, labels=labels, packed_seq_params=batch.documents)
        return losses, partial(_loss_by_row, loss_mask)

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


def _rows(
    reports: list[torch.Tensor], micro_batches: list[MicroBatch], device: torch.device
) -> tuple[torch.Tensor, NDArray[np.int32]]:
    """``row_losses`` and ``row_sets`` of :class:`StepOutcome`, from the report of each micro-batch."""
    if not reports or not reports_loss():
        return torch.zeros(0, 2, dtype=torch.float64, device=device), np.zeros(0, dtype=np.int32)
    return torch.cat(reports), np.concatenate([batch.dataset_index for batch in micro_batches])


def _device(model: list[DistributedDataParallel]) -> torch.device:
    device: torch.device = next(model[0].parameters()).device
    return device


def _loss_by_row(
    loss_mask: torch.Tensor | None, losses: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Σ loss (differentiated), number of tokens, and the report of both for each row, from the loss of each token.

    Losses are [rows, seq], the report is float64 [rows, 2].
    """
    losses = losses.float() if loss_mask is None else losses.float() * loss_mask
    row_losses = losses.sum(dim=1, dtype=torch.float64)
    row_tokens = (
        row_losses.new_full((len(losses),), losses.shape[1]) if loss_mask is None else loss_mask.sum(dim=1)
    )
    report = torch.stack([row_losses.detach(), row_tokens.double()], dim=1)
    return row_losses.sum(), row_tokens.sum().to(torch.int32), report
