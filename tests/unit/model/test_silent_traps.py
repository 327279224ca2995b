"""Settings of megatron-core that train wrong, or hang, without an error: those of a GPU, which no run here reaches."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from megatron_ext.config.sections import RunConfig
from megatron_ext.model.transformer import transformer_config

ROOT = Path(__file__).parents[3]


def run_with(**parallel: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "model": {
                "num_layers": 8,
                "hidden_size": 16,
                "ffn_hidden_size": 32,
                "num_attention_heads": 4,
                "vocab_size": 9,
            },
            "parallel": parallel,
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {"micro_batch_size": 1, "global_batch_size": 4, "seq_length": 8, "train_iters": 1},
            "optimizer": {"lr": 1e-2},
            "launch": {"nproc_per_node": 4},
        }
    )


@pytest.mark.parametrize("fused_kernels", [False, True], ids=["CPU", "GPU"])
@pytest.mark.parametrize("stages", [2, 4])
def test_interleaved_stages_send_each_tensor_by_itself_and_free_none(
    stages: int, fused_kernels: bool
) -> None:
    """Batched between two stages, or freed once sent, activations arrive wrong: the loss goes on falling, elsewhere."""
    run = run_with(pipeline_model_parallel_size=stages, virtual_pipeline_model_parallel_size=2)
    config = transformer_config(run, fused_kernels=fused_kernels)
    assert config.overlap_p2p_comm
    assert not config.batch_p2p_comm
    assert not config.deallocate_pipeline_outputs
    assert config.microbatch_group_size_per_vp_stage == stages


def test_the_loss_is_not_averaged_by_megatron_core() -> None:
    """It would divide the tensor that is reported, and weigh ranks with fewer tokens as much as others."""
    assert transformer_config(run_with(), fused_kernels=True).calculate_per_token_loss


def test_what_megatron_core_needs_to_save_is_required() -> None:
    """It does not declare psutil, and without it hangs in its first save."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert any(requirement.startswith("psutil") for requirement in project["dependencies"])
