"""Where the tensors of a model come from: what an import asks of them."""

from typing import Protocol

import torch

from megatron_ext.convert.rules import Shape


class TensorSource(Protocol):
    """Tensors by their Hugging Face names; shapes and dtypes are known without reading values."""

    def names(self) -> set[str]:
        """Every tensor there is."""
        ...

    def shape(self, name: str) -> Shape:
        """Shape of a tensor."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """Element type of a tensor; raises ConversionError where it is none that can be trained."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        ...
