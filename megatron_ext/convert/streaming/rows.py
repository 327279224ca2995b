"""Which rows of Hugging Face tensors make which rows of a canonical one, and filling one with them."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.hf_source import TensorSource
from megatron_ext.convert.rules import Step


class Run(NamedTuple):
    """Rows that stay together.

    Attributes:
        part: which of the step's Hugging Face tensors.
        source_row: the first, in it.
        row: the first, from where the runs begin.
        num_rows: how many.
    """

    part: int
    source_row: int
    row: int
    num_rows: int


def runs(source: TensorSource, step: Step, model: ModelConfig, first: int, count: int) -> list[Run]:
    """Where ``count`` rows of a fused tensor, from row ``first``, come from: by part, then by row.

    A rule only moves rows, so it is asked to fuse their numbers. Parts are numbered one apart, or the last row of
    one and the first of the next would pass for neighbours.
    """
    rows = [source.shape(name)[0] for name in step.hf_names]
    starts = [0, *itertools.accumulate(size + 1 for size in rows)]
    numbers = [torch.arange(start, start + size) for start, size in zip(starts, rows, strict=False)]
    wanted = step.rule.fuse(numbers, model)[first : first + count]
    breaks = ((wanted[1:] - wanted[:-1]) != 1).nonzero().flatten() + 1
    found = []
    for begin, end in itertools.pairwise([0, *breaks.tolist(), len(wanted)]):
        number = int(wanted[begin])
        part = max(index for index, start in enumerate(starts) if start <= number)
        found.append(Run(part, number - starts[part], begin, end - begin))
    return sorted(found)


def by_part(found: list[Run]) -> Iterator[tuple[int, list[Run]]]:
    """Each part with its runs."""
    for part, of_part in itertools.groupby(found, key=lambda run: run.part):
        yield part, list(of_part)


def fill(target: torch.Tensor, source: TensorSource, step: Step, model: ModelConfig) -> None:
    """Read a whole canonical tensor, or one layer of it, rounded to the dtype of ``target``."""
    for part, of_part in by_part(runs(source, step, model, 0, target.shape[0])):
        places = [(run.source_row, target[run.row : run.row + run.num_rows]) for run in of_part]
        source.read_rows(step.hf_names[part], places)
