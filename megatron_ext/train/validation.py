"""Loss on the held-out text, over all of it and for each set."""

import torch
import torch.distributed as dist

from megatron_ext.data.blend import ValidationDataset
from megatron_ext.data.indexed import DatasetStatistics
from megatron_ext.observe.groups import group_sets
from megatron_ext.observe.metrics import SetLoss, ValidationRecord, summarise_validation
from megatron_ext.train.run import Run
from megatron_ext.train.state import TrainState
from megatron_ext.train.step import validation_step


def validate(run: Run, dataset: ValidationDataset, state: TrainState) -> ValidationRecord:
    """Read the held-out windows, or the first ``eval_iters`` batches of them; all ranks call it and get the same."""
    if run.validation_loader is None:
        raise RuntimeError("this run has no held-out text")
    names = dataset.names
    totals = torch.zeros(len(names), 2, dtype=torch.float64, device=run.backend.device)
    for micro_batches in run.validation_loader.batches():
        totals += validation_step(run.model, micro_batches, len(names))
    dist.all_reduce(totals)
    losses = {
        name: SetLoss(loss_sum=loss_sum, tokens=round(tokens), text_bytes=_bytes_behind(tokens, statistics))
        for name, (loss_sum, tokens), statistics in zip(
            names, totals.tolist(), dataset.statistics, strict=True
        )
    }
    return summarise_validation(
        losses,
        group_sets(names, dataset.groups, per_label=run.config.logging.per_label),
        iteration=state.iteration,
        consumed_samples=state.consumed_samples,
        consumed_tokens=state.consumed_tokens,
    )


def _bytes_behind(tokens: float, statistics: DatasetStatistics | None) -> float | None:
    """UTF-8 bytes of the text that ``tokens`` of a set stand for, on the set's average."""
    if statistics is None or statistics.tokens == 0:
        return None
    return statistics.bytes * tokens / statistics.tokens
