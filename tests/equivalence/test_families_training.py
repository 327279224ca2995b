"""Families other than Llama, trained by two processes, score in transformers as they did here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparable_runs import SEQ_LENGTH, World, launch, llama_config
from transformers import AutoConfig, AutoModelForCausalLM

from megatron_ext.config.dump import load_resolved
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.train.inputs import open_inputs

FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "mistral": ({"sliding_window": 9}, "model.window_size=9"),
    "qwen2": ({}, "model.add_qkv_bias=true"),
    "qwen3": ({"head_dim": 16}, "model.qk_layernorm=true"),
}
SHAPE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "initializer_range",
)  # fmt: skip
TWO_PROCESSES = ("parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true")
SHORT = ("training.train_iters=6", "optimizer.lr_warmup_iters=0", "optimizer.lr=1e-2")


@pytest.mark.parametrize("model_type", FAMILIES)
def test_training_and_its_export(world: World, tmp_path: Path, model_type: str) -> None:
    changes, override = FAMILIES[model_type]
    shape = {key: value for key, value in llama_config().to_dict().items() if key in SHAPE}
    torch.manual_seed(1)
    config = AutoConfig.for_model(model_type, **{**shape, **changes})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "imported")
    overrides = (override, f"checkpoint.load={tmp_path}/imported", *SHORT)
    run = launch(world, tmp_path / "run", *overrides, *TWO_PROCESSES, processes=2)
    assert run.column("lm_loss")[-1] < run.column("lm_loss")[0] - 0.5
    export_hf(run.folder / "checkpoints", tmp_path / "out")
    assert run.validation[-1]["lm_loss"] == pytest.approx(_loss(run.folder, tmp_path / "out"), abs=1e-4)


def _loss(run: Path, hf: Path) -> float:
    """Mean loss of the validation tokens, by transformers."""
    valid = open_inputs(load_resolved(run / "run.yaml")).datasets.valid
    assert valid is not None
    tokens, lengths, _ = valid.gather(np.arange(valid.num_windows))
    rows = torch.from_numpy(tokens.astype(np.int64))
    padding = torch.arange(SEQ_LENGTH) >= torch.from_numpy(lengths)[:, None] - 1
    labels = rows[:, 1:].masked_fill(padding, -100)
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(hf).eval()(rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
