"""Which layers the plan says that a process holds: those that megatron-core builds there."""

import pytest
import torch
from megatron.core.transformer.transformer_block import get_num_layers_to_build
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import get_transformer_layer_offset

from megatron_ext.config.sections import ParallelConfig


@pytest.mark.parametrize(
    ("stages", "chunks", "first", "last"),
    [
        (1, None, None, None),
        (4, None, None, None),
        (4, 3, None, None),
        (4, 2, 2, 6),
        (3, None, 2, None),
        (2, 2, None, 4),
    ],
)
def test_layers_lie_where_megatron_core_builds_them(
    stages: int, chunks: int | None, first: int | None, last: int | None
) -> None:
    num_layers = 24 if last is None else 16
    sizes = {
        "pipeline_model_parallel_size": stages,
        "virtual_pipeline_model_parallel_size": chunks,
        "num_layers_in_first_pipeline_stage": first,
        "num_layers_in_last_pipeline_stage": last,
    }
    config = TransformerConfig(
        num_layers=num_layers,
        hidden_size=64,
        num_attention_heads=4,
        pipeline_dtype=torch.float32,
        overlap_p2p_comm=True,
        batch_p2p_comm=False,
        **sizes,
    )
    layers = ParallelConfig(**sizes).chunk_layers(num_layers)
    assert sorted(layer for stage in layers for chunk in stage for layer in chunk) == list(range(num_layers))
    for stage, parts in enumerate(layers):
        for chunk, part in enumerate(parts):
            number = None if chunks is None else chunk
            offset = get_transformer_layer_offset(config, number, stage)
            assert part == range(offset, offset + get_num_layers_to_build(config, number, stage))
