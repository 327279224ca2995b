"""Filling a run from where it starts, and what it saves."""

from pathlib import Path

import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_ext.checkpoint.distributed import load_distributed, load_slices, save_distributed
from megatron_ext.checkpoint.manifest import Manifest, writer_versions
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.dump import run_to_yaml
from megatron_ext.config.sections import RunConfig
from megatron_ext.convert.assets import FOLDER, copy_assets
from megatron_ext.data.blend import BlendedDataset
from megatron_ext.data.loader import TrainLoader
from megatron_ext.data.position import DataPosition, usable
from megatron_ext.train.start import HFStart, Start, find_start
from megatron_ext.train.state import TrainState
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


def load_start(
    start: Start | HFStart | None, model: list[DistributedDataParallel], optimizer: MegatronOptimizer
) -> TrainState:
    """Fill the model, and on resuming the optimizer, from where ``find_start`` says; all ranks call it.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ConversionError: the files of a Hugging Face folder are.
    """
    if start is None:
        logger.info("starting from random weights")
        return TrainState()
    if isinstance(start, HFStart):
        load_slices(start.tensors, model, optimizer)
        logger.info(f"starting from the weights in {start.folder}")
        return TrainState()
    load_distributed(start.folder, model, optimizer, with_optimizer=start.resumes)
    if not start.resumes:
        logger.info(f"starting from the weights in {start.folder}")
        return TrainState()
    manifest = start.manifest
    logger.info(f"resuming from {start.folder}: {manifest.consumed_samples:,} samples consumed")
    return TrainState(
        manifest.iteration,
        manifest.consumed_samples,
        manifest.consumed_tokens,
        manifest.skipped_iterations,
    )


def load_position(start: Start | HFStart | None, dataset: BlendedDataset) -> DataPosition | None:
    """Counters of the blend where a run resumes, so that its position need not be found by drawing.

    Raises:
        DataError: the checkpoint's counters are damaged.
    """
    if start is None or not start.resumes:
        return None
    return usable(DataPosition.read(start.folder), dataset.record, start.manifest.consumed_samples)


def save(
    config: RunConfig,
    model: list[DistributedDataParallel],
    optimizer: MegatronOptimizer,
    state: TrainState,
    train_loader: TrainLoader,
) -> None:
    """Write a checkpoint that is complete or absent, move ``latest`` to it, drop old ones; all ranks call it."""
    store = CheckpointStore(Path(config.checkpoint_dir))
    is_writer = dist.get_rank() == 0
    temporary = [store.begin(state.iteration) if is_writer else None]
    dist.broadcast_object_list(temporary, src=0)
    folder = temporary[0]
    if folder is None:
        raise RuntimeError("rank 0 named no folder")
    save_distributed(folder, model, optimizer)
    if is_writer:
        _describe(config, state).write(folder)
        train_loader.position(state.consumed_samples).write(folder)
        write_text(folder / "run.yaml", run_to_yaml(config))
        _carry_assets(config, folder)
        saved = store.commit(folder, state.iteration, config.checkpoint.keep)
        logger.info(f"saved {saved}")
    dist.barrier()


def _describe(config: RunConfig, state: TrainState) -> Manifest:
    return Manifest(
        model=config.model,
        iteration=state.iteration,
        consumed_samples=state.consumed_samples,
        consumed_tokens=state.consumed_tokens,
        skipped_iterations=state.skipped_iterations,
        has_optimizer=True,
        distributed_optimizer=config.parallel.use_distributed_optimizer,
        params_dtype=config.training.precision,
        tokenizer=config.tokenizer,
        versions=writer_versions(),
    )


def _carry_assets(config: RunConfig, folder: Path) -> None:
    """Take along what the imported model came with, so that any checkpoint can be exported on its own."""
    start = find_start(config)
    if start is not None and start.assets.is_dir():
        copy_assets(start.assets, folder / FOLDER)
