"""A Hugging Face folder read as a checkpoint is: canonical tensors, fused as they are read, slice by slice."""

from collections.abc import Sequence
from pathlib import Path

import torch

from megatron_ext.checkpoint.canonical import canonical_shapes
from megatron_ext.convert.from_hf import open_hf
from megatron_ext.convert.rules import Step
from megatron_ext.convert.streaming.rows import by_part, runs


class HFSlices:
    """What ``CanonicalReader`` gives of a checkpoint, of a Hugging Face folder: no checkpoint is made.

    Only the rows and columns of a slice are read, from mapped files.

    Args:
        folder: with ``config.json`` and weights; all but the values is checked here.

    Raises:
        ConversionError: the folder is not there, or is not understood in full.
    """

    def __init__(self, folder: Path) -> None:
        self.model, self._source, plan = open_hf(folder)
        self._steps = {(step.rule.canonical, step.layer): step for step in plan}
        self._shapes = canonical_shapes(self.model)

    def keys(self) -> list[str]:
        """Names of the canonical tensors."""
        return list(dict.fromkeys(key for key, _ in self._steps))

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of the whole tensor, layers stacked."""
        return self._shapes[key]

    def dtype(self, key: str) -> torch.dtype:
        """Element type of a tensor."""
        step = self._steps.get((key, None)) or self._steps[key, 0]
        return self._source.dtype(step.hf_names[0])

    def read_slice(self, key: str, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        """A box of a tensor, on the CPU.

        Args:
            key: one of ``keys``.
            offsets: first index on each axis.
            sizes: extent on each axis.
        """
        result = torch.empty(list(sizes), dtype=self.dtype(key))
        if (key, None) in self._steps:
            self._fill(result, self._steps[key, None], offsets)
        else:
            for index, layer in enumerate(range(offsets[0], offsets[0] + sizes[0])):
                self._fill(result[index], self._steps[key, layer], offsets[1:])
        return result

    def _fill(self, target: torch.Tensor, step: Step, offsets: Sequence[int]) -> None:
        columns = tuple(
            slice(start, start + size) for start, size in zip(offsets[1:], target.shape[1:], strict=True)
        )
        found = runs(self._source, step, self.model, offsets[0], target.shape[0])
        for part, of_part in by_part(found):
            tensor = self._source.read(step.hf_names[part])
            for run in of_part:
                rows = slice(run.source_row, run.source_row + run.num_rows)
                target[run.row : run.row + run.num_rows] = tensor[(rows, *columns)]
