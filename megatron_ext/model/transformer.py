"""The Llama decoder on megatron-core's GPTModel: its TransformerConfig, its layer, and this process's part of it."""

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt import GPTModel
from megatron.core.transformer.attention import SelfAttentionSubmodules
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import Float16Module
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules, get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayerSubmodules

from megatron_ext.config.sections import ParallelConfig, RunConfig
from megatron_ext.kernels.attention.base import AttentionBackend, AttentionNeeds
from megatron_ext.kernels.attention.choice import choose_attention
from megatron_ext.kernels.attention.context_parallel import ContextParallelAttention
from megatron_ext.kernels.attention.core import DotProductAttention
from megatron_ext.kernels.rms_norm import RMSNorm
from megatron_ext.kernels.weight_gradient import install_weight_gradient_accumulation
from megatron_ext.model.modules import PLAIN_MODULES, LayerModules, choose_modules
from megatron_ext.model.rotary import rotary_frequencies, softmax_scale
from megatron_ext.model.vocabulary import mask_padded_logits, padded_vocab_size

PARAMS_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

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
    interleaved = parallel.virtual_pipeline_model_parallel_size is not None
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
        softmax_scale=softmax_scale(model),
        init_method_std=model.init_method_std,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=model.add_qkv_bias,
        qk_layernorm=model.qk_layernorm,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        fp8=run.training.fp8,
        fp8_recipe="tensorwise",  # scales come from the tensor at hand: no history, so nothing to save
        params_dtype=dtype,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=parallel.tensor_model_parallel_size,
        pipeline_model_parallel_size=parallel.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=parallel.virtual_pipeline_model_parallel_size,
        num_layers_in_first_pipeline_stage=parallel.num_layers_in_first_pipeline_stage,
        num_layers_in_last_pipeline_stage=parallel.num_layers_in_last_pipeline_stage,
        context_parallel_size=parallel.context_parallel_size,
        sequence_parallel=parallel.sequence_parallel,
        **_recompute(parallel),
        calculate_per_token_loss=True,  # gradients of Σ loss / Σ tokens: the same for any micro-batch and DP size
        use_cpu_initialization=not fused_kernels,
        bias_activation_fusion=fused_kernels,
        bias_dropout_fusion=fused_kernels,
        # Interleaved stages trade several tensors at once. Batched, two stages mix them up without an error; and an
        # output that is freed once sent is sent empty.
        overlap_p2p_comm=interleaved,
        batch_p2p_comm=fused_kernels and not interleaved,
        deallocate_pipeline_outputs=False,
        batch_p2p_sync=False,
        gradient_accumulation_fusion=run.training.gradient_accumulation_fusion,
        apply_rope_fusion=False,  # needs apex or Transformer Engine
        masked_softmax_fusion=False,  # attention is not megatron-core's
        persist_layer_norm=False,
    )


def _recompute(parallel: ParallelConfig) -> dict[str, Any]:
    """What the backward pass computes again, in megatron-core's terms."""
    if parallel.recompute_granularity == "none":
        return {}
    if parallel.recompute_granularity == "selective":
        modules = list(parallel.recompute_modules or ["core_attn"])
        return {"recompute_granularity": "selective", "recompute_modules": modules}
    return {
        "recompute_granularity": "full",
        "recompute_method": parallel.recompute_method or "uniform",
        "recompute_num_layers": parallel.recompute_num_layers or 1,
    }


def attention_window(run: RunConfig) -> int | None:
    """Keys a query sees; None where no row is longer than that, which every back end serves."""
    window = run.model.window_size
    return window if window is not None and window < run.training.seq_length else None


def attention_backend(run: RunConfig, config: TransformerConfig) -> AttentionBackend:
    """The one that ``kernels.attention_backend`` asks for on this device.

    Raises:
        ConfigError: it cannot serve this run.
    """
    on_cpu = config.use_cpu_initialization
    needs = AttentionNeeds(
        capability=None if on_cpu else torch.cuda.get_device_capability(),
        dtype=config.params_dtype,
        head_size=config.kv_channels,
        documents=run.data.reset_attention_mask,
        longer_keys=config.context_parallel_size > 1,
        window=attention_window(run) is not None,
    )
    return choose_attention(run.kernels.attention_backend, needs)


def layer_spec(
    backend: AttentionBackend,
    modules: LayerModules = PLAIN_MODULES,
    *,
    context_parallel: bool = False,
    window: int | None = None,
    qk_layernorm: bool = False,
) -> ModuleSpec:
    """One decoder layer: RMSNorm, attention with RoPE, RMSNorm, SwiGLU."""
    core = ContextParallelAttention if context_parallel else DotProductAttention
    core_attention = ModuleSpec(module=core, params={"backend": backend, "window": window})
    attention = ModuleSpec(
        module=modules.attention,
        params={"attn_mask_type": AttnMaskType.causal},
        submodules=SelfAttentionSubmodules(
            linear_qkv=modules.column,
            core_attention=core_attention,
            linear_proj=modules.row,
            q_layernorm=RMSNorm if qk_layernorm else None,
            k_layernorm=RMSNorm if qk_layernorm else None,
        ),
    )
    return ModuleSpec(
        module=modules.layer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=modules.norm,
            self_attention=attention,
            self_attn_bda=get_bias_dropout_add,
            pre_mlp_layernorm=modules.norm,
            mlp=modules.mlp,
            mlp_bda=get_bias_dropout_add,
            sharded_state_dict_keys_map=CANONICAL_NORM_NAMES,
        ),
    )


def build_model(run: RunConfig, config: TransformerConfig) -> list[GPTModel]:
    """This process's tensor-parallel part of its pipeline stage: one model, or one a chunk where stages interleave."""
    if config.gradient_accumulation_fusion:
        install_weight_gradient_accumulation()
    chunks = config.virtual_pipeline_model_parallel_size
    return [_build_chunk(run, config, chunk) for chunk in ([None] if chunks is None else range(chunks))]


def _build_chunk(run: RunConfig, config: TransformerConfig, chunk: int | None) -> GPTModel:
    """The layers of a stage, with what comes before the first of all or after the last."""
    layers_here = get_num_layers_to_build(config, chunk, parallel_state.get_pipeline_model_parallel_rank())
    modules = choose_modules(
        run.kernels.fused,
        on_cpu=config.use_cpu_initialization,
        fp8=config.fp8 is not None,
        qk_layernorm=config.qk_layernorm,
    )
    layer = layer_spec(
        attention_backend(run, config),
        modules,
        context_parallel=config.context_parallel_size > 1,
        window=attention_window(run),
        qk_layernorm=config.qk_layernorm,
    )
    block = TransformerBlockSubmodules(layer_specs=[layer] * layers_here, layer_norm=modules.norm)
    model = modules.model(
        config,
        block,
        padded_vocab_size(run.model.vocab_size, config.tensor_model_parallel_size),
        run.training.seq_length,
        pre_process=parallel_state.is_pipeline_first_stage(ignore_virtual=False, vp_stage=chunk),
        post_process=parallel_state.is_pipeline_last_stage(ignore_virtual=False, vp_stage=chunk),
        parallel_output=True,
        share_embeddings_and_output_weights=not run.model.untie_embeddings_and_output_weights,
        position_embedding_type="rope",
        rotary_base=run.model.rotary_base,
        vp_stage=chunk,
    )
    if modules.rotary is not None:
        model.rotary_pos_emb = modules.rotary(
            config.kv_channels,
            rotary_percent=1.0,
            rotary_base=run.model.rotary_base,
            use_cpu_initialization=config.use_cpu_initialization,
            cp_group=model.pg_collection.cp,
        )
    if run.model.rope_scaling is not None:
        rotary = model.rotary_pos_emb
        rotary.inv_freq = rotary_frequencies(run.model).to(rotary.inv_freq.device)
    if modules.model is GPTModel:
        mask_padded_logits(model, run.model.vocab_size)
    else:
        model.set_loss(run.model.vocab_size, run.kernels.loss_chunk_tokens)
    return model


def to_training_precision(
    chunks: list[GPTModel], config: TransformerConfig, device: torch.device
) -> list[Any]:
    """Move the model to its device and, for 16 bits, behind the wrapper that casts inputs and outputs."""
    placed = [chunk.to(device) for chunk in chunks]
    return [Float16Module(config, chunk) for chunk in placed] if config.bf16 or config.fp16 else placed
