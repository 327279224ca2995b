"""Train a SentencePiece BPE tokenizer with Llama 2's settings on JSON Lines text.

    python examples/udhr/train_tokenizer.py --input runs/quickstart/data/text/train \
        --output runs/quickstart/data/tokenizer.model

Give it training text only. The same text gives the same file, byte for byte.
"""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

from sentencepiece import SentencePieceTrainer

from megatron_ext.data.preprocess_open import opened
from megatron_ext.utils.atomic import atomic_file

# Llama 2's, as its tokenizer.model records them. Ids: unknown 0, begin 1, end 2, no padding, then 256 bytes.
LLAMA_2_SETTINGS = {
    "model_type": "bpe",
    "normalization_rule_name": "identity",
    "byte_fallback": True,
    "split_digits": True,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
}
# Llama 2 covers 0.99995 of all characters; with 38 scripts in so little text that would spend most of a small
# vocabulary on single characters. The rest of the characters are written as bytes.
CHARACTER_COVERAGE = 0.9995
LONGEST_LINE_BYTES = 1 << 16  # longer lines are skipped; SentencePiece's own limit drops some preambles


def main() -> None:
    """Read the arguments, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input",
        type=Path,
        nargs="+",
        required=True,
        help="JSON Lines files, also compressed, or folders of *.jsonl",
    )
    parser.add_argument("--output", type=Path, required=True, help="the .model file to write")
    parser.add_argument("--vocab-size", type=int, default=8000, help="pieces in all (default: 8000)")
    parser.add_argument("--json-key", default="text", help="key that holds the text (default: text)")
    arguments = parser.parse_args()
    files = sorted(
        file for path in arguments.input for file in (path.glob("*.jsonl") if path.is_dir() else [path])
    )
    if not files:
        parser.error(f"no .jsonl file in {', '.join(map(str, arguments.input))}")

    model = train(lines_of(files, arguments.json_key), arguments.vocab_size)
    with atomic_file(arguments.output) as stream:
        stream.write(model)
    print(f"wrote {arguments.output}: {arguments.vocab_size:,} pieces from {len(files)} files")


def lines_of(files: list[Path], json_key: str) -> Iterator[str]:
    """Lines of the texts: a line break is then a byte token, never part of a piece, as in Llama 2."""
    for file in files:
        with opened(file) as (rows, _):
            for row in rows:
                yield from filter(None, json.loads(row)[json_key].split("\n"))


def train(lines: Iterator[str], vocab_size: int) -> bytes:
    """The serialized model; one thread, since SentencePiece's result may depend on their number."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        vocab_size=vocab_size,
        character_coverage=CHARACTER_COVERAGE,
        max_sentence_length=LONGEST_LINE_BYTES,
        num_threads=1,
        minloglevel=2,
        **LLAMA_2_SETTINGS,
    )
    return model.getvalue()


if __name__ == "__main__":
    main()
