"""Write a small, randomly initialised Llama in Hugging Face format: it stands in for Llama 2 7B.

    python examples/udhr/make_model.py --tokenizer tokenizer.model --output hf_base

The folder looks like a downloaded checkpoint: config.json, model.safetensors, tokenizer.model.
"""

import argparse
import shutil
from pathlib import Path

import torch
from sentencepiece import SentencePieceProcessor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from megatron_ext.utils.atomic import atomic_directory

SEED = 1234


def main() -> None:
    """Read the arguments, draw the weights, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tokenizer", type=Path, required=True, help="SentencePiece model, for its vocabulary size"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    if not arguments.tokenizer.is_file():
        parser.error(f"{arguments.tokenizer}: no such file")
    disable_progress_bar()
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config(SentencePieceProcessor(model_file=str(arguments.tokenizer)).vocab_size()))
    with atomic_directory(arguments.output) as folder:
        model.save_pretrained(folder)
        shutil.copyfile(arguments.tokenizer, folder / "tokenizer.model")
    print(f"wrote {arguments.output}: {model.num_parameters():,} parameters")


def config(vocab_size: int) -> LlamaConfig:
    """The shape of configs/models/tiny.yaml under Hugging Face's names."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        initializer_range=0.08,  # Llama's 0.02 belongs to a width of 4096; so narrow a model learns slowly from it
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    )


if __name__ == "__main__":
    main()
