"""Mends megatron-core 0.16's DistributedOptimizer where it runs on torch's AdamW (no apex, no Transformer Engine).

torch keeps one ``step`` tensor per parameter, apex one per group. The distributed optimizer expects the latter: it
fails on an optimizer without state, loses ``step`` on loading, and then lets all parameters share one tensor, which
torch increases once per parameter - training drifts without an error.
"""

from typing import Any

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

_original_state_dict = DistributedOptimizer.state_dict
_original_set_states = DistributedOptimizer._set_main_param_and_optimizer_states
_original_load_state_dict = DistributedOptimizer.load_state_dict


def mend_distributed_optimizer() -> None:
    """Replace the three methods; calling it again changes nothing."""
    DistributedOptimizer.state_dict = _state_dict
    DistributedOptimizer._set_main_param_and_optimizer_states = _set_main_param_and_optimizer_states
    DistributedOptimizer.load_state_dict = _load_state_dict


def _state_dict(self: Any) -> Any:
    """Give parameters that no step has touched their zero state first: megatron-core reads their common step."""
    for group in self.optimizer.param_groups:
        for parameter in group["params"]:
            state = self.optimizer.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
    return _original_state_dict(self)


def _set_main_param_and_optimizer_states(self: Any, model_param: Any, tensors: dict[str, Any]) -> None:
    """Keep the step that the loaded group carries."""
    group, index = self.model_param_group_index_map[model_param]
    state = self.optimizer.state[self.optimizer.param_groups[group]["params"][index]]
    if "step" in state and "step" not in tensors:
        tensors = {**tensors, "step": state["step"]}
    _original_set_states(self, model_param, tensors)


def _load_state_dict(self: Any, state_dict: Any) -> None:
    """Give every parameter a step tensor of its own again."""
    _original_load_state_dict(self, state_dict)
    for state in self.optimizer.state.values():
        if "step" in state:
            state["step"] = state["step"].clone()
