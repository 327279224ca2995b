"""Weight gradients added to the main gradient in the layers, or by autograd and then added: the same training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from comparable_runs import World, launch, llama_config
from transformers import LlamaForCausalLM

from megatron_ext.convert.from_hf import import_hf

OFF = "training.gradient_accumulation_fusion=false"
OVERLAPPED = [
    f"parallel.{key}=true" for key in ("use_distributed_optimizer", "overlap_grad_reduce", "overlap_param_gather")
]  # fmt: skip
ITERS = "training.train_iters=8"


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_on_equals_off(world: World, tmp_path: Path, precision: str, tolerance: float) -> None:
    """With tied embeddings too, whose one gradient comes from both ways and must be counted once each."""
    torch.manual_seed(3)
    settings = llama_config()
    settings.tie_word_embeddings = True
    LlamaForCausalLM(settings).save_pretrained(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "imported")
    tied = ["model.untie_embeddings_and_output_weights=false", f"checkpoint.load={tmp_path / 'imported'}"]
    common = [*tied, *OVERLAPPED, ITERS, f"training.precision={precision}"]
    on = launch(world, tmp_path / "on", *common, processes=2)
    off = launch(world, tmp_path / "off", *common, OFF, processes=2)
    np.testing.assert_allclose(on.column("lm_loss"), off.column("lm_loss"), rtol=0, atol=tolerance)
    np.testing.assert_allclose(on.column("grad_norm"), off.column("grad_norm"), rtol=10 * tolerance)
