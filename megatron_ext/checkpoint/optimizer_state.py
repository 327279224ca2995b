"""Lets a run go on with the other kind of optimizer: from distributed to plain, or from plain to distributed.

megatron-core stores the moments of both alike, ``optimizer.state.exp_avg.<weight>`` in the shape of the weight. Master
weights are stored under two names, and not at all by the plain optimizer of fp32 training, whose weights are their own
masters. The tree around the tensors differs as well: from what was saved there, only the number of steps counts, for
the settings of parameter groups are the run's own.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.dict_utils import dict_list_map_inplace
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.optimizer import MegatronOptimizer

SHARDING_TYPE = "param_state_sharding_type"
FULLY_RESHARDABLE = "fully_reshardable"
"""The only sharding of a distributed optimizer's state that every other layout can read."""
MASTERS = ("optimizer.state.param.", "optimizer.state.fp32_param.")


def saved_by_other_kind(folder: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """What the other kind of optimizer saved beside its tensors; None if the kind is that of ``wanted``."""
    saved: dict[str, Any] = dist_checkpointing.load_common_state_dict(str(folder))["optimizer"]
    return saved if (SHARDING_TYPE in saved) != (SHARDING_TYPE in wanted) else None


def find_masters(folder: Path, wanted: dict[str, Any]) -> None:
    """Ask for master weights under the name that the file has for them, or not at all where it has none."""
    stored = dist_checkpointing.load_tensors_metadata(str(folder))

    def under_stored_name(part: Any) -> Any:
        if not isinstance(part, ShardedTensor | ShardedTensorFactory) or not part.key.startswith(MASTERS):
            return part
        weight = part.key.removeprefix(MASTERS[0]).removeprefix(MASTERS[1])
        names = [prefix + weight for prefix in MASTERS if prefix + weight in stored]
        return dataclasses.replace(part, key=names[0]) if names else None

    dict_list_map_inplace(under_stored_name, wanted)
    for tensors in wanted.get("param_state", {}).values():
        if tensors["param"] is None:
            del tensors["param"]


def converted(saved: dict[str, Any], loaded: dict[str, Any], optimizer: MegatronOptimizer) -> dict[str, Any]:
    """What ``optimizer`` takes.

    Args:
        saved: from :func:`saved_by_other_kind`.
        loaded: tensors as ``optimizer`` asked for them, among whatever else.
        optimizer: of this process, whose model is loaded already.
    """
    own = optimizer.state_dict()
    steps = float(_steps(saved))
    scaler = {"grad_scaler": saved["grad_scaler"]} if "grad_scaler" in saved else {}
    if "param_state" in loaded:
        (part,) = optimizer.chained_optimizers
        weights = [
            weight for buffer in part.buffers for weight in buffer.param_index_map
        ]  # megatron-core's numbers
        for number, weight in enumerate(weights):
            loaded["param_state"][number].setdefault("param", weight.detach())
        groups = [{**group, "step": steps} for group in own["optimizer"]["param_groups"]]
        tensors = {"param_state": loaded["param_state"], SHARDING_TYPE: FULLY_RESHARDABLE}
        return {**scaler, **tensors, "optimizer": {"param_groups": groups}}
    if "optimizer" not in own:  # of fp32 training
        return _inner(own, loaded, steps)
    masters = {"fp32_from_fp16_params": loaded["fp32_from_fp16_params"]}
    return {**scaler, **masters, "optimizer": _inner(own["optimizer"], loaded["optimizer"], steps)}


def _inner(own: dict[str, Any], loaded: dict[str, Any], steps: float) -> dict[str, Any]:
    state = {**loaded["state"], "common_step": torch.tensor(steps)}
    return {"state": state, "param_groups": own["param_groups"]}


def _steps(saved: dict[str, Any]) -> Any:
    """Updates so far, which one kind keeps beside the states and the other in its groups."""
    if SHARDING_TYPE in saved:
        return saved["optimizer"]["param_groups"][0]["step"]
    return saved.get("optimizer", saved)["state"].get("common_step", 0)
