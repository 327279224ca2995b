"""Model and optimizer to and from megatron-core's ``torch_dist`` files, from any layout to any other."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.core import CheckpointingException
from megatron.core.dist_checkpointing.dict_utils import nested_values
from megatron.core.dist_checkpointing.mapping import ShardedObject, apply_factories
from megatron.core.dist_checkpointing.strategies import torch as megatron_torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.utils import unwrap_model
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from megatron_ext.checkpoint.optimizer_state import (
    FULLY_RESHARDABLE,
    converted,
    find_masters,
    saved_by_other_kind,
)
from megatron_ext.checkpoint.trust import verify
from megatron_ext.errors import CheckpointError

# Its memory-hungry form fails on 0.16.
OPTIMIZER_SHARDING = {
    "distrib_optim_sharding_type": FULLY_RESHARDABLE,
    "distrib_optim_fully_reshardable_mem_efficient": True,
}


class SliceReader(Protocol):
    """Canonical tensors (see ``checkpoint/canonical.py``) from wherever they are."""

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of the whole tensor, layers stacked."""
        ...

    def read_slice(self, key: str, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        """A box of a tensor, on the CPU."""
        ...


class InProcessStrategy(megatron_torch.TorchDistSaveShardedStrategy):  # type: ignore[misc]
    """megatron-core's format through torch's own writer.

    megatron-core's writer hands its tensors to processes it starts for each save: seconds for a small model, and a hang
    wherever processes cannot be started.
    """

    def save(self, sharded_state_dict: dict[str, Any], checkpoint_dir: str | Path) -> None:
        """Write this rank's shards, one file per rank, and on rank 0 the index of all."""
        by_key, _, _ = megatron_torch._replace_state_dict_keys_with_sharded_keys(sharded_state_dict, True)
        save_shards(
            megatron_torch.mcore_to_pyt_state_dict(by_key, False),
            storage_writer=FileSystemWriter(checkpoint_dir, single_file_per_rank=True),
            planner=megatron_torch.MCoreSavePlanner(dedup_replicated_tensors=False, flatten_state_dict=False),
        )


def save_distributed(folder: Path, model: list[Any], optimizer: MegatronOptimizer) -> None:
    """Write the shards of every rank into the existing, empty ``folder``; all ranks call it.

    Where the gathering of parameters is overlapped, the next forward pass would fetch what other ranks have updated:
    it is fetched here, or each rank's file would hold the others' weights of one step before.
    """
    for chunk in model:
        if chunk.ddp_config.overlap_param_gather:
            chunk.start_param_sync(force_sync=True)
    state = _sharded_state(model, optimizer, is_loading=False)
    dist_checkpointing.save(
        state,
        str(folder),
        InProcessStrategy("torch_dist", 1),
        preprocess_common_before_consistancy_check=_without_shared_state,
    )


def _without_shared_state(common: dict[str, Any]) -> dict[str, Any]:
    """What must be equal on all ranks: a distributed optimizer gathers its state on some of them, as tensors."""
    optimizer = {name: part for name, part in common["optimizer"].items() if name != "param_state"}
    return {**common, "optimizer": optimizer}


def load_slices(source: SliceReader, model: list[Any], optimizer: MegatronOptimizer) -> None:
    """Fill the model, and the optimizer's master weights, each process reading only the slices that it owns.

    Rows that pad the vocabulary, which ``source`` does not have, become zeros, as on loading a checkpoint.
    """
    state = _sharded_state(model, None, is_loading=True)
    apply_factories(state)
    with torch.no_grad():
        for part in nested_values(state):  # each one's data is a view of the model's own memory
            offsets, sizes = list(part.global_offset), [1] * part.prepend_axis_num + list(part.local_shape)
            if part.allow_shape_mismatch:
                sizes[0] = max(0, min(sizes[0], source.shape(part.key)[0] - offsets[0]))
                part.data[sizes[0] :] = 0
            kept = sizes[part.prepend_axis_num :]
            if kept[0] > 0:
                part.data[: kept[0]] = source.read_slice(part.key, offsets, sizes).reshape(kept)
    optimizer.reload_model_params()


def load_distributed(
    folder: Path, model: list[Any], optimizer: MegatronOptimizer, *, with_optimizer: bool
) -> None:
    """Fill the model, and the optimizer if asked, from a checkpoint of any layout; all ranks call it.

    Raises:
        CheckpointError: the files are unsafe, damaged, or lack a tensor of this model.
    """
    verify(folder)
    wanted = _sharded_state(model, optimizer if with_optimizer else None, is_loading=True)
    saved = None
    try:
        if with_optimizer:
            saved = saved_by_other_kind(folder, wanted["optimizer"])
        if saved is not None:
            find_masters(folder, wanted["optimizer"])
        loaded = dist_checkpointing.load(wanted, str(folder))
    except (CheckpointingException, KeyError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot load this model from it: {error}") from error
    except CheckpointException as error:  # what any rank met while reading; torch hands it to all of them
        rank, (cause, _) = next(iter(error.failures.items()))
        raise CheckpointError(
            f"{folder}: damaged, its tensors cannot be read ({type(cause).__name__} on rank {rank}); "
            "start from another checkpoint"
        ) from error
    for name, chunk in _by_name(model).items():
        chunk.load_state_dict(loaded[name], strict=False)
    if with_optimizer:
        state = loaded["optimizer"]
        optimizer.load_state_dict(state if saved is None else converted(saved, state, optimizer))
    else:
        optimizer.reload_model_params()


def load_weights(folder: Path, model: list[Any]) -> None:
    """Fill a model that has no optimizer; see ``load_distributed``."""
    verify(folder)
    try:
        loaded = dist_checkpointing.load(_sharded_state(model, None, is_loading=True), str(folder))
    except (CheckpointingException, CheckpointException, KeyError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot load this model from it: {error}") from error
    for name, chunk in _by_name(model).items():
        chunk.load_state_dict(loaded[name], strict=False)


def _sharded_state(
    model: list[Any], optimizer: MegatronOptimizer | None, *, is_loading: bool
) -> dict[str, Any]:
    """Tensors with their place in the whole, named as in ``checkpoint/canonical.py``."""
    state: dict[str, Any] = {
        name: {
            key: part
            for key, part in chunk.sharded_state_dict().items()
            # Pickled FP8 state of Transformer Engine, empty here; a checkpoint of ours holds tensors only.
            if not isinstance(part, ShardedObject)
        }
        for name, chunk in _by_name(model).items()
    }
    if optimizer is not None:
        state["optimizer"] = optimizer.sharded_state_dict(
            {name: dict(part) for name, part in state.items()},
            is_loading=is_loading,
            metadata=OPTIMIZER_SHARDING,
        )
    return state


def _by_name(model: list[Any]) -> dict[str, Any]:
    """The bare chunks under names of their own; in the files a tensor's place is that in the whole model."""
    return {f"model{index}": chunk for index, chunk in enumerate(unwrap_model(model))}
