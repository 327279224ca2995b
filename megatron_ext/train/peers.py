"""The same model trained by others, to time beside ours: one function a peer, each giving one that does a step.

Weights and update of transformers and Liger are what their users run: bf16 weights without fp32 master copies or main
gradients, torch's fused AdamW. That is less work and memory than ours does.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_ext.backend.device import Backend
from megatron_ext.config.sections import RunConfig
from megatron_ext.convert.llama import LLAMA
from megatron_ext.data.loader import MicroBatch
from megatron_ext.errors import ConfigError, MegatronExtError
from megatron_ext.kernels.rms_norm import RMSNorm
from megatron_ext.model.transformer import PARAMS_DTYPE
from megatron_ext.train.benchmark import Step, training_step


def megatron_core(run: RunConfig, backend: Backend, micro_batches: list[MicroBatch]) -> Step:
    """Plain megatron-core: its local layer with its own attention, which keeps all scores; one pipeline stage."""
    return training_step(run, backend, micro_batches, _local_model)


def _check_family(run: RunConfig) -> None:
    if not LLAMA.holds(run.model):
        raise ConfigError(
            "peers are Llama models: without model.add_qkv_bias, model.qk_layernorm, model.window_size"
        )


def _local_model(run: RunConfig, config: TransformerConfig) -> list[GPTModel]:
    _check_family(run)
    layer = get_gpt_layer_local_spec(normalization="RMSNorm")
    for norm in ("input_layernorm", "pre_mlp_layernorm"):
        setattr(layer.submodules, norm, RMSNorm)  # its own needs apex, or refuses sequence parallelism
    block = TransformerBlockSubmodules(layer_specs=[layer] * config.num_layers, layer_norm=RMSNorm)
    return [
        GPTModel(
            config,
            block,
            run.model.vocab_size,
            run.training.seq_length,
            pre_process=parallel_state.is_pipeline_first_stage(),
            post_process=parallel_state.is_pipeline_last_stage(),
            share_embeddings_and_output_weights=not run.model.untie_embeddings_and_output_weights,
            position_embedding_type="rope",
            rotary_base=run.model.rotary_base,
        )
    ]


def transformers(run: RunConfig, backend: Backend, micro_batches: list[MicroBatch]) -> Step:
    """Hugging Face transformers with SDPA, as it comes."""
    return _hugging_face_step(_hugging_face_model(run, backend), backend, micro_batches)


def transformers_compiled(run: RunConfig, backend: Backend, micro_batches: list[MicroBatch]) -> Step:
    """The same through ``torch.compile``."""
    return _hugging_face_step(torch.compile(_hugging_face_model(run, backend)), backend, micro_batches)


def liger(run: RunConfig, backend: Backend, micro_batches: list[MicroBatch]) -> Step:
    """Transformers with Liger's kernels, its linear layer fused with the loss among them."""
    from liger_kernel.transformers import apply_liger_kernel_to_llama  # noqa: PLC0415 - optional, patches globally

    apply_liger_kernel_to_llama()
    return _hugging_face_step(_hugging_face_model(run, backend), backend, micro_batches)


def _hugging_face_model(run: RunConfig, backend: Backend) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - optional, and seconds to import

    _check_family(run)
    model = run.model
    config = LlamaConfig(
        num_hidden_layers=model.num_layers,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.query_groups,
        head_dim=model.head_size,
        vocab_size=model.vocab_size,
        max_position_embeddings=model.max_position_embeddings,
        tie_word_embeddings=not model.untie_embeddings_and_output_weights,
        attn_implementation="sdpa",
        dtype=PARAMS_DTYPE[run.training.precision],
    )
    with backend.device:
        return LlamaForCausalLM(config).to(PARAMS_DTYPE[run.training.precision])


def _hugging_face_step(model: Any, backend: Backend, micro_batches: list[MicroBatch]) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> object:
        for batch in micro_batches:
            tokens = torch.from_numpy(batch.tokens[:, :-1]).to(backend.device).long()
            (model(input_ids=tokens, labels=tokens, use_cache=False).loss / len(micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return None

    return step


PEERS: dict[str, Callable[[RunConfig, Backend, list[MicroBatch]], Step]] = {
    "megatron-core": megatron_core,
    "transformers": transformers,
    "transformers-compiled": transformers_compiled,
    "liger": liger,  # last: it patches transformers for the rest of the process
}
NEEDS = {"transformers": "transformers", "transformers-compiled": "transformers", "liger": "liger_kernel"}


FAILURES = (MegatronExtError, RuntimeError, ImportError, AttributeError, TypeError, ValueError)
"""What other people's code raises where memory, a version or a shape does not fit; torch's own are RuntimeErrors."""


def obstacle(peer: str, run: RunConfig) -> str | None:
    """Why a peer cannot be timed here, known before it is tried; the run names its device."""
    package = NEEDS.get(peer)
    if package is not None and importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if peer == "liger" and run.device == "cpu":
        return "its Triton kernels need a GPU"
    return "peers run in one process" if run.launch.world_size > 1 else None
