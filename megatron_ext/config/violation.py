"""A broken rule between values, as rules report it."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from megatron_ext.config.sections import RunConfig


class Violation(NamedTuple):
    """A broken rule.

    Attributes:
        keys: the keys it concerns, the one to change first, such as ``data.train[0].weight``.
        text: what is wrong, why, and the nearest values that work.
    """

    keys: tuple[str, ...]
    text: str


Rule = Callable[[RunConfig], Iterator[Violation]]
