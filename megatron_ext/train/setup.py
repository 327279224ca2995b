"""Builds a process's :class:`Run`: device, process groups, model, optimizer, data, hooks."""

import dataclasses
import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_ext.backend.device import Backend, select_backend
from megatron_ext.config.sections import ParallelConfig, RunConfig
from megatron_ext.data.loader import TrainLoader, ValidationLoader
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.errors import LaunchError
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.transformer import build_model, to_training_precision, transformer_config
from megatron_ext.observe.sinks import Sink, build_sinks
from megatron_ext.optim.optimizer import build_optimizer, wrap_data_parallel
from megatron_ext.train.checkpoints import load_position, load_start
from megatron_ext.train.graphs import StepGraphs
from megatron_ext.train.hooks import build_hooks
from megatron_ext.train.inputs import Inputs, open_inputs
from megatron_ext.train.resumed import announce_changes
from megatron_ext.train.run import Run
from megatron_ext.train.state import TrainState
from megatron_ext.train.step import connect_schedule
from megatron_ext.train.stop import StopRequest
from megatron_ext.utils.console import get_logger
from megatron_ext.utils.stopwatch import Stopwatch

OPTIONAL_PACKAGES = {"Transformer Engine": "transformer_engine", "apex": "apex"}

logger = get_logger(__name__)

ModelBuilder = Callable[[RunConfig, TransformerConfig], list[GPTModel]]
STAGE_SEED_STEP = 100
"""Between the seeds of two pipeline stages, or their layers would start from the same random weights."""


def build_run(config: RunConfig, environment: ProcessEnvironment) -> Run:
    """Everything this process needs to train; all processes call it together.

    Raises:
        MegatronExtError: an input is wrong; each error names it.
    """
    inputs = open_inputs(config)
    backend = select_backend(config.device, environment.local_rank, environment.local_world_size)
    _announce(backend)
    start_processes(config, environment, backend)

    model, optimizer, graphs = build_trainable(config, backend)
    start = load_start(inputs.start, model, optimizer)
    if inputs.start is not None and inputs.start.resumes:
        announce_changes(inputs.start.folder, config, start)
    train_loader, validation_loader = _loaders(config, inputs)
    return Run(
        config=config,
        environment=environment,
        backend=backend,
        model=model,
        optimizer=optimizer,
        graphs=graphs,
        train_loader=train_loader,
        validation_loader=validation_loader,
        start=start,
        stop=StopRequest(),
        stopwatch=Stopwatch(backend.synchronize),
        sinks=_sinks(config, environment, start),
        hooks=build_hooks(config, backend, inputs.datasets),
    )


class Trainable(NamedTuple):
    """What ``train_step`` works on."""

    model: list[DistributedDataParallel]
    optimizer: MegatronOptimizer
    graphs: StepGraphs | None


def build_trainable(
    config: RunConfig,
    backend: Backend,
    build: ModelBuilder = build_model,
) -> Trainable:
    """This process's part of the model with random weights, and its optimizer, ready for ``train_step``.

    Args:
        config: the checked run.
        backend: the device, started.
        build: makes the bare model; another than ours is measured beside it.
    """
    megatron_config = transformer_config(config, fused_kernels=backend.fused_kernels)
    bare_model = to_training_precision(build(config, megatron_config), megatron_config, backend.device)
    graphs = StepGraphs(backend.recorder(), backend.device) if config.kernels.cuda_graphs else None
    with nullcontext() if graphs is None else graphs.beside():
        model = wrap_data_parallel(config, megatron_config, bare_model)
    for chunk in model:
        chunk.broadcast_params()
        chunk.train()
    optimizer = build_optimizer(config, model)
    connect_schedule(model, optimizer, graphs)
    return Trainable(model, optimizer, graphs)


def _announce(backend: Backend) -> None:
    """Say what the run computes on, and which optional packages it does without."""
    absent = [name for name, module in OPTIONAL_PACKAGES.items() if importlib.util.find_spec(module) is None]
    without = f"; without {', '.join(absent)}: torch's own kernels take their place" if absent else ""
    logger.info(f"training on {backend.device_name()} over {backend.collective}{without}")


def start_processes(config: RunConfig, environment: ProcessEnvironment, backend: Backend) -> None:
    """Join torch.distributed, make the groups of every kind of parallelism, seed.

    A process that trains again, in another layout, has joined already and keeps its connections.

    Raises:
        LaunchError: there are more or fewer processes than the run was checked for.
    """
    if environment.world_size != config.launch.world_size:
        raise LaunchError(
            f"{environment.world_size} processes were started, but launch.nnodes × launch.nproc_per_node is "
            f"{config.launch.world_size}; make them agree"
        )
    environment.export()
    backend.start()
    if not dist.is_initialized():
        dist.init_process_group(backend.collective, rank=environment.rank, world_size=environment.world_size)
    form_groups(config.parallel)
    seed = config.training.seed + STAGE_SEED_STEP * parallel_state.get_pipeline_model_parallel_rank()
    torch.manual_seed(seed)
    # Recomputation and sequence parallelism switch random states inside a pass: in a graph only these can be.
    model_parallel_cuda_manual_seed(
        seed, use_cudagraphable_rng=backend.fused_kernels and config.kernels.cuda_graphs, force_reset_rng=True
    )


def leave_processes() -> None:
    """End the connections once all processes are done; left to the interpreter's end, their threads may abort it."""
    dist.barrier()
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


def form_groups(parallel: ParallelConfig) -> None:
    """Make megatron-core's process groups, in place of those of another layout."""
    _end_groups()
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_model_parallel_size,
        context_parallel_size=parallel.context_parallel_size,
    )


def _end_groups() -> None:
    """End every group but that of all processes: megatron-core only forgets its own, and gloo's threads would go on."""
    parallel_state.destroy_model_parallel()
    others = [group for group in dist.distributed_c10d._world.pg_map if group is not dist.group.WORLD]
    if others:
        dist.barrier()
    for group in others:
        dist.destroy_process_group(group)


def _sinks(config: RunConfig, environment: ProcessEnvironment, start: TrainState) -> list[Sink]:
    if environment.rank != 0:
        return []
    return build_sinks(config.logging, Path(config.run_dir), start.iteration, config.training.train_iters)


def _loaders(config: RunConfig, inputs: Inputs) -> tuple[TrainLoader, ValidationLoader | None]:
    training, datasets = config.training, inputs.datasets
    sampler = BatchSampler(
        micro_batch_size=training.micro_batch_size,
        global_batch_size=training.global_batch_size,
        data_parallel_rank=parallel_state.get_data_parallel_rank(),
        data_parallel_size=parallel_state.get_data_parallel_world_size(),
    )
    vocab_size = config.model.vocab_size
    saved = load_position(inputs.start, datasets.train)
    ramping = dataclasses.replace(sampler, ramp=training.batch_sizes)
    train_loader = TrainLoader(datasets.train, ramping, config.data.prefetch_batches, vocab_size, saved)
    if datasets.valid is None:
        return train_loader, None
    return train_loader, ValidationLoader(datasets.valid, sampler, training.eval_iters, vocab_size)
