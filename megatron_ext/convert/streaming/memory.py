"""Memory that a conversion fills again and again: fresh pages cost as much as what is then read into them."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch

_ALIGNMENT = 64


class TwoTensors:
    """Room for any two tensors that follow each other, one that is used and one that is read ahead.

    One lies at the start and the next at the end, so that a large tensor takes its room from a small neighbour.

    Args:
        unfilled: of each tensor, in order, shape and dtype.
    """

    def __init__(self, unfilled: Sequence[torch.Tensor]) -> None:
        sizes = [0, *(tensor.nbytes for tensor in unfilled)]
        self._size = max(map(sum, itertools.pairwise(sizes))) + _ALIGNMENT
        self._memory = np.empty(self._size, np.uint8)
        self._is_at_start = False

    def like(self, unfilled: torch.Tensor) -> torch.Tensor:
        """The next tensor, in the place of the one before the last."""
        self._is_at_start = not self._is_at_start
        from_start = 0 if self._is_at_start else (self._size - unfilled.nbytes) // _ALIGNMENT * _ALIGNMENT
        # Its storage ends where it does, so that saving it saves no more.
        place = self._memory[from_start : from_start + unfilled.nbytes]
        return torch.frombuffer(place, dtype=unfilled.dtype).view(unfilled.shape)
