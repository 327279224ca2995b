"""One process (gloo) in which megatron-core itself reads what we wrote and writes what we read.

Run by test_canonical_megatron.py: megatron-core's patches and groups belong in a process of their own.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_ext.backend.megatron_on_cpu import patch_megatron_core
from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.sections import ModelConfig

LAYER_KEYS = {
    # key: axis of one layer's matrix that tensor parallelism divides
    "decoder.layers.self_attention.linear_qkv.weight": 0,
    "decoder.layers.self_attention.linear_proj.weight": 1,
    "decoder.layers.mlp.linear_fc2.weight": 1,
}


def build(model: ModelConfig) -> GPTModel:
    """megatron-core's own model with its own local layers."""
    config = TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        ffn_hidden_size=model.ffn_hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_query_groups=model.query_groups,
        kv_channels=model.head_size,
        normalization="RMSNorm",
        layernorm_epsilon=model.layernorm_epsilon,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cpu_initialization=True,
        gradient_accumulation_fusion=False,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        apply_rope_fusion=False,
        persist_layer_norm=False,
    )
    return GPTModel(
        config,
        get_gpt_layer_local_spec(normalization="RMSNorm"),
        model.vocab_size,
        model.max_position_embeddings,
        share_embeddings_and_output_weights=not model.untie_embeddings_and_output_weights,
        position_embedding_type="rope",
        rotary_base=int(model.rotary_base),
    )


def tensors_only(state: dict[str, Any]) -> dict[str, Any]:
    """Without pickled objects, as trust.verify asks."""
    return {key: part for key, part in state.items() if not isinstance(part, ShardedObject)}


def logits(gpt: GPTModel, tokens: torch.Tensor) -> torch.Tensor:
    """[batch, sequence, vocabulary]."""
    length = tokens.shape[1]
    mask = torch.triu(torch.ones(1, 1, length, length, dtype=torch.bool), 1)
    positions = torch.arange(length).expand_as(tokens)
    with torch.no_grad():
        output: torch.Tensor = gpt.eval()(tokens, positions, mask)
    return output


def tensor_parallel_request(model: ModelConfig, size: int) -> dict[str, ShardedTensor]:
    """What the ranks of a tensor-parallel group would ask for, each layer on a pipeline stage of its own."""
    sizes = {
        "decoder.layers.self_attention.linear_qkv.weight": (
            (model.num_attention_heads + 2 * model.query_groups) * model.head_size,
            model.hidden_size,
        ),
        "decoder.layers.self_attention.linear_proj.weight": (
            model.hidden_size,
            model.num_attention_heads * model.head_size,
        ),
        "decoder.layers.mlp.linear_fc2.weight": (model.hidden_size, model.ffn_hidden_size),
    }
    request = {}
    for key, axis in LAYER_KEYS.items():
        for layer in range(model.num_layers):
            for rank in range(size):
                shape = list(sizes[key])
                shape[axis] //= size
                request[f"{key}/{layer}/{rank}"] = ShardedTensor.from_rank_offsets(
                    key,
                    torch.full(shape, torch.nan),
                    (0, layer, model.num_layers),
                    (axis + 1, rank, size),
                    prepend_axis_num=1,
                )
    return request


def exchange(folder: Path) -> None:
    """Load ``folder/imported`` in two ways, compute logits, and save it with megatron-core's writer."""
    checkpoint = CheckpointStore.resolve(folder / "imported")
    model = Manifest.read(checkpoint).model
    gpt = build(model)
    loaded = dist_checkpointing.load(tensors_only(gpt.sharded_state_dict()), str(checkpoint))
    problems = gpt.load_state_dict(loaded, strict=False)
    shards = dist_checkpointing.load(tensor_parallel_request(model, 2), str(checkpoint))
    result = {
        "logits": logits(gpt, torch.load(folder / "tokens.pt", weights_only=True)),
        "missing": [key for key in problems.missing_keys if not key.endswith("_extra_state")],
        "unexpected": list(problems.unexpected_keys),
        "shards": {key: value for key, value in shards.items() if isinstance(value, torch.Tensor)},
    }
    (folder / "saved").mkdir()
    dist_checkpointing.save(gpt.sharded_state_dict(), str(folder / "saved"))
    torch.save(result, folder / "result.pt")


def main(folders: Sequence[str]) -> None:
    """Exchange each folder's checkpoint."""
    patch_megatron_core()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    model_parallel_cuda_manual_seed(1)
    for folder in folders:
        exchange(Path(folder))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
