"""Every family and variant, imported and run by megatron-core in each layout, gives the logits of transformers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from megatron_ext.convert.from_hf import import_hf

WORKER = Path(__file__).with_name("families_worker.py")
SEQ_LENGTH = 48
SHAPE = {
    "vocab_size": 67, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.05,
}  # fmt: skip
ORIGINAL = {"original_max_position_embeddings": 16}  # a third of the sequence
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL}
YARN = {"rope_type": "yarn", "factor": 4.0, **ORIGINAL}
CASES: dict[str, dict[str, Any]] = {
    "llama-mha-tied": {"model_type": "llama", "num_key_value_heads": 4, "tie_word_embeddings": True},
    "llama-mqa-head-size": {"model_type": "llama", "num_key_value_heads": 1, "head_dim": 12},
    "llama-linear": {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "llama-llama3": {"model_type": "llama", "rope_scaling": LLAMA3},
    "llama-yarn": {"model_type": "llama", "rope_scaling": YARN},
    "mistral-window": {"model_type": "mistral", "sliding_window": 7},
    "mistral-no-window": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "num_key_value_heads": 1},
    "qwen2-yarn": {"model_type": "qwen2", "rope_scaling": YARN | {"beta_fast": 8.0}},
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "num_key_value_heads": 1},
}
LAYOUTS = ("TP1-PP1", "TP2-PP1", "TP1-PP2", "TP2-PP2")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case: ``hf``, ``imported``, ``tokens.pt`` and what the processes leave."""
    folder = tmp_path_factory.mktemp("families")
    torch.manual_seed(0)
    for name, changes in CASES.items():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**SHAPE, **changes}))
        for key, weight in model.named_parameters():
            if weight.dim() == 1:  # fresh norms are ones and fresh biases zeros, which would hide a lost one
                torch.nn.init.normal_(weight, mean=float("norm" in key), std=0.3)
        model.save_pretrained(folder / name / "hf")
        import_hf(folder / name / "hf", folder / name / "imported")
        torch.save(torch.randint(0, SHAPE["vocab_size"], (2, SEQ_LENGTH)), folder / name / "tokens.pt")
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    for processes in (1, 2, 4):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={processes}",
        ]
        done = subprocess.run(
            [*command, str(WORKER), str(folder)], env={**inherited, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
    return folder


def _expected(case: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(case / "hf", dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.load(case / "tokens.pt")).logits


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(world: Path, name: str, layout: str) -> None:
    expected = _expected(world / name)
    assert expected.std() > 0.1
    logits = torch.load(world / name / f"logits-{layout}-fp32.pt")
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_logits_in_bf16(world: Path, name: str, layout: str) -> None:
    logits = torch.load(world / name / f"logits-{layout}-bf16.pt")
    torch.testing.assert_close(logits, _expected(world / name), rtol=0, atol=2e-2)
