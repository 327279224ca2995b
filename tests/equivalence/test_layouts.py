"""The same run on any layout: equal losses and gradient norms, from one imported checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from comparable_runs import TRAIN_ITERS, Finished, World, launch, llama_config
from transformers import LlamaForCausalLM

from megatron_ext.convert.from_hf import import_hf

TENSOR, PIPELINE = "parallel.tensor_model_parallel_size=2", "parallel.pipeline_model_parallel_size=2"
LAYOUTS = {
    "TP2": (2, [TENSOR]),
    "PP2": (2, [PIPELINE]),
    "TP2 PP2": (4, [TENSOR, PIPELINE]),
    "TP2 SP": (2, [TENSOR, "parallel.sequence_parallel=true"]),
    "DP2": (2, []),
    "DP2 distributed optimizer, overlapped": (
        2,
        [
            "parallel.use_distributed_optimizer=true",
            "parallel.overlap_grad_reduce=true",
            "parallel.overlap_param_gather=true",
        ],
    ),
    "full recompute, another micro-batch": (
        1,
        ["parallel.recompute_granularity=full", "training.micro_batch_size=8"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_nothing(world: World, single: Finished, tmp_path: Path, layout: str) -> None:
    processes, overrides = LAYOUTS[layout]
    run = launch(world, tmp_path, *overrides, processes=processes)
    assert len(single.train) == TRAIN_ITERS
    np.testing.assert_allclose(run.column("lm_loss"), single.column("lm_loss"), rtol=0, atol=1e-5)
    # A rank that counts its part of a gradient twice, or not at all, shows here long before it shows in the loss.
    np.testing.assert_allclose(run.column("grad_norm"), single.column("grad_norm"), rtol=1e-4)
    assert run.validation[-1]["lm_loss"] == pytest.approx(single.validation[-1]["lm_loss"], abs=1e-5)


def test_tied_embeddings_on_two_stages(world: World, tmp_path: Path) -> None:
    """The first stage's table and the last stage's copy of it get one gradient, and stay equal."""
    torch.manual_seed(1)
    config = llama_config()
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "imported")
    tied = ["model.untie_embeddings_and_output_weights=false", f"checkpoint.load={tmp_path / 'imported'}"]
    one = launch(world, tmp_path / "one", *tied)
    four = launch(world, tmp_path / "four", *tied, TENSOR, PIPELINE, processes=4)
    np.testing.assert_allclose(four.column("lm_loss"), one.column("lm_loss"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(four.column("grad_norm"), one.column("grad_norm"), rtol=1e-4)


def test_training_learns(single: Finished) -> None:
    losses = single.column("lm_loss")
    assert losses[-1] < losses[0] - 1.0
    assert single.validation[-1]["lm_loss"] < single.validation[0]["lm_loss"] - 1.0


def test_bf16_follows_fp32(world: World, single: Finished, tmp_path: Path) -> None:
    """Fp32 main weights and gradients behind bf16: the same run but for rounding (2⁻⁸ a value)."""
    run = launch(world, tmp_path, "training.precision=bf16", TENSOR, processes=2)
    np.testing.assert_allclose(run.column("lm_loss"), single.column("lm_loss"), rtol=0, atol=3e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_follows_the_cpu(world: World, single: Finished, tmp_path: Path) -> None:
    run = launch(world, tmp_path, "device=cuda")
    np.testing.assert_allclose(run.column("lm_loss"), single.column("lm_loss"), rtol=0, atol=1e-3)
