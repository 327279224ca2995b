"""Which module computes which part of the decoder: megatron-core's, or its subclass on our Triton kernels."""

from typing import Literal, NamedTuple

from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_layer import TransformerLayer

from megatron_ext.kernels.choice import use_fused_kernels
from megatron_ext.kernels.rms_norm import RMSNorm
from megatron_ext.model.rotary import RotaryTable


def dense_mlp(column: type, row: type) -> ModuleSpec:
    """megatron-core's MLP on these linear layers."""
    return ModuleSpec(module=MLP, submodules=MLPSubmodules(linear_fc1=column, linear_fc2=row))


class LayerModules(NamedTuple):
    """The parts that there is a choice of; all hold the same weights under the same names."""

    layer: type = TransformerLayer
    attention: type = SelfAttention
    column: type = ColumnParallelLinear
    row: type = RowParallelLinear
    mlp: ModuleSpec | type = dense_mlp(ColumnParallelLinear, RowParallelLinear)
    norm: type = RMSNorm
    model: type = GPTModel
    rotary: type | None = None
    """What ``attention`` takes in the place of the model's rotary embedding."""


PLAIN_MODULES = LayerModules()


def choose_modules(
    fused: Literal["auto"] | bool, *, on_cpu: bool, fp8: bool, qk_layernorm: bool = False
) -> LayerModules:
    """Those that ``kernels.fused`` asks for on this device, with products in FP8 if ``training.fp8`` says so.

    Raises:
        ConfigError: the kernels are asked for and cannot run here.
    """
    modules = _fp8_modules() if fp8 else PLAIN_MODULES
    if not use_fused_kernels(fused, on_cpu=on_cpu):
        return modules
    # Here, because they import Triton, which need not be installed.
    from megatron_ext.model import fused_layer, fused_loss  # noqa: PLC0415

    if not qk_layernorm:
        # Goes from the projection to turned queries and keys in one kernel, with no place for a norm between.
        modules = modules._replace(attention=fused_layer.FusedSelfAttention, rotary=RotaryTable)
    return modules._replace(
        layer=fused_layer.FusedTransformerLayer,
        # Transformer Engine keeps its own copy of what enters a product, so there is nothing to compute again.
        mlp=modules.mlp if fp8 else fused_layer.FusedMLP,
        norm=fused_layer.FusedRMSNorm,
        model=fused_loss.FusedLossModel,
    )


def _fp8_modules() -> LayerModules:
    """megatron-core knows FP8 in Transformer Engine's linear layers only."""
    from megatron.core.extensions.transformer_engine import (  # noqa: PLC0415 - an optional package
        TEColumnParallelLinear,
        TERowParallelLinear,
    )

    mlp = dense_mlp(TEColumnParallelLinear, TERowParallelLinear)
    return LayerModules(column=TEColumnParallelLinear, row=TERowParallelLinear, mlp=mlp)
