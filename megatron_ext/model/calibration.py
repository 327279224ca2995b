"""The one constant of ``step_time.py`` that is fitted to published speeds, and how far it holds. No torch here.

An error on a row that the constant was fitted to flatters the model. ``held_out_error`` fits it anew to the rows of
other code bases on the same kind of GPU: that is what to expect of a run that nobody has published.

The errors have a pattern. Rows that recompute everything, all with large micro-batches, run faster than the model says;
those with few tokens a device at a time run slower. It takes overlapped traffic for free and knows no fixed cost of a
micro-batch. The worst is a single H200, which shares no rack's power and no network.
"""

from collections.abc import Sequence

from megatron_ext.model.hardware import GPUS
from megatron_ext.model.published import PUBLISHED, Published

LOWEST, HIGHEST, STEPS = 0.2, 1.5, 40
"""Bounds of the constant, and halvings of what lies between."""


def fitted(rows: Sequence[Published]) -> float:
    """``Gpu.sustained`` for which these rows, all of one kind of GPU, have no mean error."""
    low, high = LOWEST, HIGHEST
    for _ in range(STEPS):
        middle = (low + high) / 2
        too_fast = sum(row.error(middle) for row in rows) > 0
        low, high = (low, middle) if too_fast else (middle, high)
    return (low + high) / 2


def same_kind(row: Published) -> list[Published]:
    """All rows on GPUs with the same processor."""
    return [one for one in PUBLISHED if GPUS[one.gpu].peak_tflops == GPUS[row.gpu].peak_tflops]


def held_out_error(row: Published) -> float:
    """Relative error, with the constant fitted to the rows of other code bases only."""
    return row.error(fitted([one for one in same_kind(row) if one.code_base != row.code_base]))
