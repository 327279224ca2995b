"""megatron-core's distributed optimizer on AdamW over flat buffers, in the precisions that the run names.

megatron-core cuts each gradient buffer into a contiguous shard for each data-parallel rank. The states of a shard
are flat tensors beside it, so a step is one kernel for each shard and parameter group. megatron-core has the rest:
reduction, gathering, and checkpoints without a topology. Those hold every state as fp32, so that a run may resume
with another choice than it was saved with; nothing is lost, for 16-bit values are fp32 values too.
"""

from typing import Any

import torch
from megatron.core import optimizer as megatron_optimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from megatron_ext.kernels.adamw import (
    AdamWStep,
    FlatParameters,
    Segments,
    adamw_,
    load_master,
    store_master,
    take_weights,
)

States = dict[str, torch.Tensor]


def install_flat_adamw() -> None:
    """Let megatron-core build its distributed optimizers as :class:`FlatDistributedOptimizer`."""
    megatron_optimizer.DistributedOptimizer = FlatDistributedOptimizer


class FlatAdamW(torch.optim.AdamW):
    """AdamW that updates shards of flat buffers. It is torch's by type because megatron-core insists on it.

    Attributes:
        shards: what it updates, with the segments of each parameter group, by its index.
        steps: updates so far.
        grad_factor: float32 [], multiplies the gradients of the next step; None: 1.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups)
        self.shards: list[tuple[FlatParameters, dict[int, Segments]]] = []
        self.steps = 0
        self.grad_factor: torch.Tensor | None = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update everything once."""
        del closure
        self.steps += 1
        for flat, segments_of_group in self.shards:
            for index, segments in segments_of_group.items():
                group = self.param_groups[index]
                beta1, beta2 = group["betas"]
                update = AdamWStep(group["lr"], group["weight_decay"], beta1, beta2, group["eps"], self.steps)
                adamw_(flat, segments, update, self.grad_factor)
        self.grad_factor = None


class FlatDistributedOptimizer(DistributedOptimizer):  # type: ignore[misc]
    """The distributed optimizer whose inner optimizer keeps the master weights, as with Transformer Engine's."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, config: Any, *arguments: Any, **keywords: Any
    ) -> None:
        # Set here, for the configuration itself accepts them only where Transformer Engine is installed.
        config.use_precision_aware_optimizer = True
        config.use_precision_aware_optimizer_no_fp8_or_ds_fp8 = True
        super().__init__(FlatAdamW(optimizer.param_groups), config, *arguments, **keywords)
        self._places: dict[torch.nn.Parameter, tuple[FlatParameters, slice]] = {}
        for buffer, ranges_by_dtype in zip(self.buffers, self.gbuf_ranges, strict=True):
            (ranges_of_buckets,) = ranges_by_dtype.values()
            for bucket, ranges in zip(buffer.buckets, ranges_of_buckets, strict=True):
                ranks = buffer.data_parallel_group
                self._add_shard(bucket, ranges["param_map"], ranks.rank(), ranks.size())

    def _add_shard(
        self, bucket: Any, ranges: dict[torch.nn.Parameter, dict[str, Any]], rank: int, ranks: int
    ) -> None:
        """Allocate the states of this rank's part of a bucket."""
        flat = self._allocate(bucket.param_data.chunk(ranks)[rank], bucket.grad_data.chunk(ranks)[rank])
        bounds: dict[int, list[tuple[int, int]]] = {}
        for parameter, place in ranges.items():
            start, end = place["gbuf_local"].start, place["gbuf_local"].end
            self._places[parameter] = flat, slice(start, end)
            group, _ = self.model_param_group_index_map[parameter]
            bounds.setdefault(group, []).append((start, end))
        self.optimizer.shards.append((flat, {group: Segments(parts) for group, parts in bounds.items()}))

    def _allocate(self, weights: torch.Tensor, gradients: torch.Tensor) -> FlatParameters:
        def zeros(dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(weights.numel(), dtype=dtype, device=weights.device)

        master = None
        if weights.dtype != torch.float32:
            master = zeros(torch.int16 if self.config.store_param_remainders else torch.float32)
        flat = FlatParameters(
            weights, gradients, master, zeros(self.config.exp_avg_dtype), zeros(self.config.exp_avg_sq_dtype)
        )
        take_weights(flat)
        return flat

    def _copy_model_params_to_main_params(self, state_dict: Any = None) -> None:
        """Take the model's weights, which were changed from outside, as the master weights."""
        del state_dict
        for flat, _ in self.optimizer.shards:
            take_weights(flat)

    def _get_main_param_and_optimizer_states(self, model_param: torch.nn.Parameter) -> States:
        flat, part = self._places[model_param]
        return {
            "param": load_master(flat, part),
            "exp_avg": flat.exp_avg[part],
            "exp_avg_sq": flat.exp_avg_sq[part],
        }

    def _set_main_param_and_optimizer_states(self, model_param: torch.nn.Parameter, tensors: States) -> None:
        flat, part = self._places[model_param]
        store_master(flat, part, tensors["param"].to(flat.weights.device, torch.float32))
        flat.exp_avg[part].copy_(tensors["exp_avg"])
        flat.exp_avg_sq[part].copy_(tensors["exp_avg_sq"])

    def state_dict(self) -> dict[str, Any]:
        """What ranks share: settings of the groups, and the number of steps in the place of apex's."""
        groups = [
            {**{key: value for key, value in group.items() if key != "params"}, "step": self.optimizer.steps}
            for group in self.optimizer.param_groups
        ]
        state: dict[str, Any] = {"optimizer": {"param_groups": groups}}
        if self.grad_scaler:
            state["grad_scaler"] = self.grad_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the steps and, where they come along, the states; settings of the groups are the run's own."""
        self.optimizer.steps = int(state_dict["optimizer"]["param_groups"][0]["step"])
        if self.grad_scaler and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
        if "param_state" not in state_dict:
            return
        self.load_parameter_state_from_fully_reshardable(state_dict["param_state"])
        # The other ranks' copies: a master weight half-way between two bf16 values may now round the other way.
        for chunk in self.model_chunks:
            chunk.start_param_sync(force_sync=True)
