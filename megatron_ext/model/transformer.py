"""The Llama decoder on megatron-core's GPTModel: its TransformerConfig, its layer, and this process's part of it."""

from typing import Any, NamedTuple

import torch
from megatron.core import parallel_state
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer.attention import SelfAttention, SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer, TransformerLayerSubmodules

from megatron_ext.config.sections import RunConfig
from megatron_ext.kernels.attention import DotProductAttention
from megatron_ext.kernels.choice import use_fused_kernels
from megatron_ext.kernels.rms_norm import RMSNorm
from megatron_ext.model.vocabulary import mask_padded_logits, padded_vocab_size

PARAMS_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}

# Checkpoints keep each norm beside the matrix it feeds, as Transformer Engine's fused layers name it.
CANONICAL_NORM_NAMES = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}


def transformer_config(run: RunConfig, *, fused_kernels: bool) -> TransformerConfig:
    """megatron-core's settings for this run.

    Args:
        run: the checked run.
        fused_kernels: whether megatron-core's compiled and CUDA-only paths can run here.
    """
    model, parallel = run.model, run.parallel
    full_recompute = parallel.recompute_granularity == "full"
    dtype = PARAMS_DTYPE[run.training.precision]
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.query_groups,
        kv_channels=model.head_size,
        normalization="RMSNorm",
        layernorm_epsilon=model.layernorm_epsilon,
        init_method_std=model.init_method_std,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bf16=dtype == torch.bfloat16,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        sequence_parallel=parallel.sequence_parallel,
        recompute_granularity="full" if full_recompute else None,
        recompute_method="uniform" if full_recompute else None,
        recompute_num_layers=1 if full_recompute else None,
        calculate_per_token_loss=True,  # gradients of Σ loss / Σ tokens: the same for any micro-batch and DP size
        use_cpu_initialization=not fused_kernels,
        bias_activation_fusion=fused_kernels,
        bias_dropout_fusion=fused_kernels,
        batch_p2p_comm=fused_kernels,
        batch_p2p_sync=False,
        gradient_accumulation_fusion=False,  # needs apex or Transformer Engine
        apply_rope_fusion=False,  # likewise
        masked_softmax_fusion=False,  # attention is not megatron-core's
        persist_layer_norm=False,
    )


class LayerModules(NamedTuple):
    """The modules that have a fused variant."""

    layer: type = TransformerLayer
    attention: type = SelfAttention
    mlp: type = MLP
    norm: type = RMSNorm
    model: type = GPTModel


def choose_modules(run: RunConfig, config: TransformerConfig) -> LayerModules:
    """megatron-core's modules, or their subclasses on Triton kernels.

    Raises:
        ConfigError: the kernels are asked for and cannot run here.
    """
    if not use_fused_kernels(run.kernels.fused, on_cpu=config.use_cpu_initialization):
        return LayerModules()
    # Here, because they import Triton, which need not be installed.
    from megatron_ext.model import fused_layer, fused_loss  # noqa: PLC0415

    return LayerModules(
        layer=fused_layer.FusedTransformerLayer,
        attention=fused_layer.FusedSelfAttention,
        mlp=fused_layer.FusedMLP,
        norm=fused_layer.FusedRMSNorm,
        model=fused_loss.FusedLossModel,
    )


def layer_spec(modules: LayerModules) -> ModuleSpec:
    """One decoder layer: RMSNorm, attention with RoPE, RMSNorm, SwiGLU; no biases."""
    attention = ModuleSpec(
        module=modules.attention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=ColumnParallelLinear, core_attention=DotProductAttention, linear_proj=RowParallelLinear
        ),
    )
    mlp = ModuleSpec(
        module=modules.mlp,
        submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear),
    )
    return ModuleSpec(
        module=modules.layer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=modules.norm,
            self_attention=attention,
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=modules.norm,
            mlp=mlp,
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=CANONICAL_NORM_NAMES,
        ),
    )


def build_model(run: RunConfig, config: TransformerConfig) -> GPTModel:
    """This process's pipeline stage and tensor-parallel part, on the CPU or the current GPU."""
    modules = choose_modules(run, config)
    layers_here = config.num_layers // config.pipeline_model_parallel_size
    block = TransformerBlockSubmodules(
        layer_specs=[layer_spec(modules)] * layers_here, layer_norm=modules.norm
    )
    model = modules.model(
        config,
        block,
        padded_vocab_size(run.model.vocab_size, config.tensor_model_parallel_size),
        run.training.seq_length,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        parallel_output=True,
        share_embeddings_and_output_weights=not run.model.untie_embeddings_and_output_weights,
        position_embedding_type="rope",
        rotary_base=run.model.rotary_base,
    )
    if modules.model is GPTModel:
        mask_padded_logits(model, run.model.vocab_size)
    else:
        model.set_loss(run.model.vocab_size, run.kernels.loss_chunk_tokens)
    return model


def to_training_precision(model: GPTModel, config: TransformerConfig, device: torch.device) -> Any:
    """Move the model to its device and, for bf16, behind the wrapper that casts inputs and outputs."""
    model = model.to(device)
    return Float16Module(config, model) if config.bf16 else model
