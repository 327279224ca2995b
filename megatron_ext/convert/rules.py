"""The rules that relate Hugging Face tensors to canonical ones; each holds for both directions.

A family of models is a table of rules. ``{layer}`` in a Hugging Face name stands for the layer number; such a
rule holds for every layer of a canonical tensor that is stacked on axis 0.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from megatron_ext.config.sections import ModelConfig

Shape = tuple[int, ...]
LAYER = "{layer}"
FEATURES = ("add_qkv_bias", "qk_layernorm", "window_size")
"""Keys of the ``model:`` section in which families differ."""


@dataclass(frozen=True)
class Rename:
    """The same tensor under another name."""

    canonical: str
    hf: str

    @property
    def hf_names(self) -> tuple[str, ...]:
        """Names on the Hugging Face side."""
        return (self.hf,)

    def hf_shapes(self, shape: Shape, _model: ModelConfig) -> tuple[Shape, ...]:
        """Shapes of ``hf_names``, from that of the canonical tensor (one layer of it)."""
        return (shape,)

    def fuse(self, parts: Sequence[torch.Tensor], _model: ModelConfig) -> torch.Tensor:
        """The canonical tensor made of ``hf_names``."""
        return parts[0]

    def split(self, whole: torch.Tensor, _model: ModelConfig) -> tuple[torch.Tensor, ...]:
        """``hf_names`` taken from the canonical tensor."""
        return (whole,)


@dataclass(frozen=True)
class FuseQKV:
    """Query, key and value rows by KV head: its queries, its key, its value, then the next KV head's."""

    canonical: str
    query: str
    key: str
    value: str

    @property
    def hf_names(self) -> tuple[str, ...]:
        """Names on the Hugging Face side."""
        return (self.query, self.key, self.value)

    def hf_shapes(self, shape: Shape, model: ModelConfig) -> tuple[Shape, ...]:
        """Shapes of ``hf_names``, from that of the canonical tensor (one layer of it)."""
        queries, keys = model.num_attention_heads * model.head_size, model.query_groups * model.head_size
        return ((queries, *shape[1:]), (keys, *shape[1:]), (keys, *shape[1:]))

    def fuse(self, parts: Sequence[torch.Tensor], model: ModelConfig) -> torch.Tensor:
        """The canonical tensor made of ``hf_names``."""
        grouped = [part.reshape(model.query_groups, -1, *part.shape[1:]) for part in parts]
        return torch.cat(grouped, dim=1).flatten(0, 1)

    def split(self, whole: torch.Tensor, model: ModelConfig) -> tuple[torch.Tensor, ...]:
        """``hf_names`` taken from the canonical tensor."""
        queries_per_group = model.num_attention_heads // model.query_groups
        grouped = whole.reshape(model.query_groups, -1, *whole.shape[1:])
        sizes = [queries_per_group * model.head_size, model.head_size, model.head_size]
        return tuple(part.flatten(0, 1) for part in torch.split(grouped, sizes, dim=1))


@dataclass(frozen=True)
class FuseGateUp:
    """The two input matrices of a gated MLP: all of gate, then all of up."""

    canonical: str
    gate: str
    up: str

    @property
    def hf_names(self) -> tuple[str, ...]:
        """Names on the Hugging Face side."""
        return (self.gate, self.up)

    def hf_shapes(self, shape: Shape, _model: ModelConfig) -> tuple[Shape, ...]:
        """Shapes of ``hf_names``, from that of the canonical tensor (one layer of it)."""
        half = (shape[0] // 2, *shape[1:])
        return (half, half)

    def fuse(self, parts: Sequence[torch.Tensor], _model: ModelConfig) -> torch.Tensor:
        """The canonical tensor made of ``hf_names``."""
        return torch.cat(list(parts))

    def split(self, whole: torch.Tensor, _model: ModelConfig) -> tuple[torch.Tensor, ...]:
        """``hf_names`` taken from the canonical tensor."""
        return whole.chunk(2)


@dataclass(frozen=True)
class Tied:
    """Another name of a tensor: may be in a file, where it must hold the same values; never written."""

    hf: str
    same_as: str


@dataclass(frozen=True)
class Drop:
    """A tensor that some files hold and no model needs, being computed: ignored, and never written."""

    hf: str


TensorRule = Rename | FuseQKV | FuseGateUp
Rule = TensorRule | Tied | Drop


@dataclass(frozen=True)
class Family:
    """What there is to know about one Hugging Face ``model_type``.

    Attributes:
        model_type: the name in ``config.json``.
        rules: the table for one model.
        model_config: our ``model:`` section from a ``config.json``; refuses what is not handled.
        hf_config: the other way: the keys of a ``config.json`` that follow from the ``model:`` section.
        always: those of ``FEATURES`` that each of its models has.
        sometimes: those that some of them have.
    """

    model_type: str
    rules: Callable[[ModelConfig], tuple[Rule, ...]]
    model_config: Callable[[Mapping[str, Any]], ModelConfig]
    hf_config: Callable[[ModelConfig], dict[str, Any]]
    always: frozenset[str] = frozenset()
    sometimes: frozenset[str] = frozenset()

    def holds(self, model: ModelConfig) -> bool:
        """Whether the family has such models."""
        features = {name for name in FEATURES if getattr(model, name)}
        return self.always <= features <= self.always | self.sometimes


@dataclass(frozen=True)
class Step:
    """A rule for one layer, or for a tensor that belongs to none."""

    rule: TensorRule
    layer: int | None

    @property
    def hf_names(self) -> tuple[str, ...]:
        """The rule's Hugging Face names for this layer."""
        return tuple(name.replace(LAYER, str(self.layer)) for name in self.rule.hf_names)


def steps(rules: Sequence[Rule], num_layers: int) -> Iterator[Step]:
    """Every step of a conversion, in the table's order, the layers one after the other."""
    tensor_rules = [rule for rule in rules if not isinstance(rule, Tied | Drop)]
    for layered, group in itertools.groupby(tensor_rules, key=lambda rule: LAYER in rule.hf_names[0]):
        together = list(group)
        for layer in range(num_layers) if layered else [None]:
            yield from (Step(rule, layer) for rule in together)
