"""``data.split``: which documents of a set are for training, validation and test, as megatron-core divides them."""

import itertools
import math

from megatron_ext.data.stages import normalised
from megatron_ext.errors import DataError


def split_boundaries(split: str, num_sequences: int) -> tuple[tuple[int, int], ...]:
    """First and end sequence of train, valid and test, rounded as megatron-core does.

    Args:
        split: up to three shares, such as ``98,1,1``; they need not add up to anything.
        num_sequences: of the set.

    Raises:
        DataError: the text is not a split.
    """
    ends = itertools.accumulate(split_shares(split), initial=0.0)  # one by one: megatron-core's rounding
    edges = [round(end * float(num_sequences)) for end in ends]
    return tuple(itertools.pairwise(edges))


def split_shares(split: str) -> list[float]:
    """Shares of train, valid and test, adding up to 1.

    Raises:
        DataError: the text is not a split.
    """
    try:
        shares = [float(part) for part in split.split(",")]
    except ValueError:
        shares = []
    usable = all(math.isfinite(share) and share >= 0 for share in shares)
    if not 1 <= len(shares) <= 3 or not usable or sum(shares) <= 0:
        raise DataError(f"data.split: {split!r} is not a split; write train,valid,test shares such as 98,1,1")
    return [float(share) for share in normalised(shares + [0.0] * (3 - len(shares)))]
