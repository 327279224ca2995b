"""Weights read by slices from a Hugging Face folder are, bit for bit, those of its import, in every layout."""

import json
from pathlib import Path

import torch
from load_layouts import LAYOUTS, MODEL, MODELS
from transformers import LlamaConfig, LlamaForCausalLM
from worker_processes import run_worker

from megatron_ext.convert.from_hf import import_hf

WORKER = Path(__file__).with_name("slices_worker.py")


def test_every_process_gets_what_it_would_load_from_the_import(tmp_path: Path) -> None:
    """37 tokens: TP pads the vocabulary; padding too is equal. Master weights follow the weights."""
    torch.manual_seed(0)
    for kind in MODELS:
        config = LlamaConfig(
            vocab_size=MODEL["vocab_size"], hidden_size=MODEL["hidden_size"],
            intermediate_size=MODEL["ffn_hidden_size"], num_hidden_layers=MODEL["num_layers"],
            num_attention_heads=MODEL["num_attention_heads"],
            num_key_value_heads=MODEL["num_query_groups"], tie_word_embeddings=kind == "tied",
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(tmp_path / kind / "hf")
        import_hf(tmp_path / kind / "hf", tmp_path / kind / "imported")
    run_worker(WORKER, tmp_path, 4, timeout_s=300)
    expected = {f"{kind} {layout}" for kind in MODELS for layout in LAYOUTS}
    for rank in range(4):
        equal = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert equal.keys() == expected
        assert [name for name, count in equal.items() if count == 0] == []
