"""Root-mean-square normalisation (Zhang and Sennrich, 2019, arXiv 1910.07467)."""

from typing import Any

import torch


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm with megatron-core's constructor and its mark for sequence parallelism.

    Each sequence-parallel rank normalises its own part of the sequence, so the weight's gradient is a partial sum:
    ``sequence_parallel`` on the weight tells megatron-core to add them up. Its own wrapper refuses instead.
    """

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_unused: Any) -> None:
        super().__init__(hidden_size, eps=eps, dtype=config.params_dtype)
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
