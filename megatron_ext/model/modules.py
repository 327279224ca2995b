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

DENSE_MLP = ModuleSpec(
    module=MLP, submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
)


class LayerModules(NamedTuple):
    """The parts that have both; all hold the same weights under the same names."""

    layer: type = TransformerLayer
    attention: type = SelfAttention
    mlp: ModuleSpec | type = DENSE_MLP
    norm: type = RMSNorm
    model: type = GPTModel


PLAIN_MODULES = LayerModules()


def choose_modules(fused: Literal["auto"] | bool, *, on_cpu: bool) -> LayerModules:
    """Those that ``kernels.fused`` asks for on this device.

    Raises:
        ConfigError: the kernels are asked for and cannot run here.
    """
    if not use_fused_kernels(fused, on_cpu=on_cpu):
        return PLAIN_MODULES
    # Here, because they import Triton, which need not be installed.
    from megatron_ext.model import fused_layer, fused_loss  # noqa: PLC0415

    return LayerModules(
        layer=fused_layer.FusedTransformerLayer,
        attention=fused_layer.FusedSelfAttention,
        mlp=fused_layer.FusedMLP,
        norm=fused_layer.FusedRMSNorm,
        model=fused_loss.FusedLossModel,
    )
