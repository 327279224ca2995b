"""A model of another framework seen as Hugging Face tensors: each one made of stored parts when it is read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron_ext.checkpoint.canonical import DTYPES
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.dtypes import copy_rows
from megatron_ext.convert.llama import LLAMA
from megatron_ext.convert.rules import Shape, Step, steps
from megatron_ext.errors import ConversionError

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
_SHOWN = 12


@dataclass(frozen=True)
class Part:
    """A stored tensor; ``read`` brings its values."""

    shape: Shape
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Part":
        """A tensor that is mapped from a file."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)


Make = Callable[[Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How one tensor is made; ``make`` only reshapes, so that it also tells the shape, without values."""

    parts: tuple[Part, ...]
    make: Make


class Recipes:
    """A ``TensorSource`` made of recipes.

    Args:
        recipes: Hugging Face name to recipe.
    """

    def __init__(self, recipes: Mapping[str, Recipe]) -> None:
        self._recipes = recipes

    def names(self) -> set[str]:
        """Every tensor there is a recipe for."""
        return set(self._recipes)

    def shape(self, name: str) -> Shape:
        """Shape of what the recipe makes.

        Raises:
            ConversionError: the stored parts do not go together.
        """
        recipe = self._recipes[name]
        try:
            return tuple(recipe.make([torch.empty(part.shape, device="meta") for part in recipe.parts]).shape)
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = ", ".join(str(part.shape) for part in recipe.parts)
            raise ConversionError(f"{name}: parts of shapes {shapes} do not make it: {error}") from error

    def dtype(self, name: str) -> torch.dtype:
        """Element type of a tensor.

        Raises:
            ConversionError: it is none that can be trained, or the parts disagree.
        """
        dtypes = {part.dtype for part in self._recipes[name].parts}
        if len(dtypes) > 1 or not dtypes <= set(DTYPES.values()):
            found = ", ".join(sorted(map(str, dtypes)))
            raise ConversionError(f"{name} is stored as {found}; supported: one of {', '.join(DTYPES)}")
        return dtypes.pop()

    def read(self, name: str) -> torch.Tensor:
        """Read the parts and make the tensor."""
        recipe = self._recipes[name]
        return recipe.make([part.read() for part in recipe.parts])

    def read_rows(self, name: str, places: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Fill each place with rows of a tensor, from the given one, rounded to the place's dtype."""
        copy_rows(name, self.read(name), places)

    def are_same(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same values."""
        return self.shape(one) == self.shape(other) and torch.equal(self.read(one), self.read(other))


def rows(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts of a column-parallel matrix (PyTorch stores it output first), or of the vocabulary."""
    return torch.cat(list(parts))


def columns(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts of a row-parallel matrix."""
    return torch.cat(list(parts), dim=1)


def whole(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """What every rank has."""
    return parts[0]


def first_rows(count: int) -> Make:
    """Parts of the vocabulary, without the rows that pad it."""
    return lambda parts: torch.cat(list(parts))[:count]


def halves(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Each rank holds its part of two matrices, one above the other: all of the first, then of the second."""
    return torch.cat([part.chunk(2)[half] for half in range(2) for part in parts])


class Shards:
    """The tensors of tensor-parallel ranks, each to be taken once.

    Args:
        ranks: of each rank, name to mapped tensor.
        origin: how messages call them.

    Raises:
        ConversionError: the ranks do not hold the same names.
    """

    def __init__(self, ranks: Sequence[Mapping[str, torch.Tensor]], origin: str) -> None:
        self._origin = origin
        self._ranks = [dict(rank) for rank in ranks]
        different = {name for rank in ranks for name in rank.keys() ^ ranks[0].keys()}
        if different:
            raise ConversionError(f"{origin}: only some ranks hold {listed(different)}")

    @property
    def num_ranks(self) -> int:
        """Number of tensor-parallel ranks."""
        return len(self._ranks)

    def __contains__(self, name: str) -> bool:
        return name in self._ranks[0]

    def take(self, name: str) -> tuple[Part, ...]:
        """One part from each rank.

        Raises:
            ConversionError: there is none of that name, or it was taken.
        """
        if name not in self:
            raise ConversionError(f"{self._origin}: {name} is missing")
        if not all(rank[name].ndim for rank in self._ranks):
            raise ConversionError(f"{self._origin}: {name} is a single number")
        return tuple(Part.of(rank.pop(name)) for rank in self._ranks)

    def take_same(self, name: str, copies: int | None = None) -> tuple[Part, ...]:
        """What every ``copies`` neighbouring ranks have a copy of, or all ranks, once.

        Raises:
            ConversionError: the copies differ.
        """
        parts = self.take(name)
        copies = copies or len(parts)
        for rank, part in enumerate(parts):
            if rank % copies and not torch.equal(part.read(), parts[rank - rank % copies].read()):
                ranks = "all ranks" if copies == len(parts) else f"each {copies} neighbouring ranks"
                raise ConversionError(f"{self._origin}: {name} should be the same on {ranks}, and is not")
        return parts[::copies]

    def drop(self, ending: str) -> None:
        """Leave out what is computed, or belongs to no model."""
        for rank in self._ranks:
            for name in [name for name in rank if name.endswith(ending)]:
                del rank[name]

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            ConversionError: names what is.
        """
        if self._ranks[0]:
            raise ConversionError(f"{self._origin}: not expected in a Llama model: {listed(self._ranks[0])}")


def from_canonical(model: ModelConfig, stored: Callable[[Step], Recipe]) -> dict[str, Recipe]:
    """Recipes by Hugging Face name, where ``stored`` knows how to make one layer of a canonical tensor."""
    recipes: dict[str, Recipe] = {}
    for step in steps(LLAMA.rules(model), model.num_layers):
        recipe = stored(step)
        for number, name in enumerate(step.hf_names):
            recipes[name] = Recipe(recipe.parts, _pick(step, recipe.make, number, model))
    return recipes


def _pick(step: Step, make: Make, number: int, model: ModelConfig) -> Make:
    return lambda parts: step.rule.split(make(parts), model)[number]


def checked_vocab_size(origin: Path, padded: int, given: object) -> int:
    """The number of tokens, where an embedding has ``padded`` rows.

    Args:
        origin: what was read, for messages.
        padded: rows of the embedding.
        given: what the user, or else the checkpoint, says.

    Raises:
        ConversionError: nobody says it, or it does not fit.
    """
    if not isinstance(given, int):
        raise ConversionError(
            f"{origin}: the embedding has {padded:,} rows, and nothing says how many are tokens and how many "
            f"padding; add --vocab-size (--vocab-size {padded} keeps all)"
        )
    if not 0 < given <= padded:
        raise ConversionError(
            f"{origin}: a vocabulary of {given:,} does not fit an embedding of {padded:,} rows"
        )
    return given


def listed(names: Iterable[str]) -> str:
    """Some of the names, and how many there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more
