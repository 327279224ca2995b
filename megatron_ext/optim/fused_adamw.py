"""torch's AdamW in one kernel, for runs without the distributed optimizer.

As it comes, torch updates weights on a GPU operation by operation: ten passes over the states in place of one, and a
copy of the second moment on the way, 25 GiB for Llama 2 7B. The factor of clipping goes into the same kernel.
"""

from typing import Any

import torch
from megatron.core import optimizer as megatron_optimizer


def install_fused_adamw() -> None:
    """Let megatron-core build it, wherever apex or Transformer Engine are installed too: checkpoints stay the same."""
    megatron_optimizer.USING_PYTORCH_OPTIMIZER = False  # then it takes the class of this name
    megatron_optimizer.Adam = FusedAdamW


class FusedAdamW(torch.optim.AdamW):
    """AdamW, fused whatever the state says that it is loaded from.

    Attributes:
        grad_factor: float32 [], multiplies the gradients of the next step; None: 1.
    """

    def __init__(self, params: Any, *, adam_w_mode: bool, **settings: Any) -> None:
        if not adam_w_mode:
            raise ValueError("weight decay is decoupled here; adam_w_mode=False asks for another optimizer")
        super().__init__(params, fused=True, **settings)
        self.grad_factor: torch.Tensor | None = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update everything once; the gradients are left multiplied."""
        # torch divides by what its own loss scaling puts here.
        self.grad_scale = None if self.grad_factor is None else self.grad_factor.reciprocal()
        super().step(closure)
        self.grad_factor = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states; how they are updated stays."""
        groups = [{**group, "fused": True, "foreach": None} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})
