"""Megatron-LM's ``tools/preprocess_data.py`` in its essentials, as the peer of ``benchmarks/preprocess.py``.

    python benchmarks/megatron_preprocess.py INPUT TOKENIZER.MODEL PREFIX --workers 2

A pool of processes takes lines, 32 at a time, through json.loads and sentencepiece; the parent writes what comes back,
document by document, with megatron-core's own builder. Ids travel as lists of int, as they do there.
"""

import argparse
import json
import multiprocessing
from pathlib import Path

from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from sentencepiece import SentencePieceProcessor

LINES_PER_TASK = 32

_processor: list[SentencePieceProcessor] = []  # one in each worker


def main() -> None:
    """Tokenize one file under the key ``text``, with an EOD behind each document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("prefix", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    vocab_size = SentencePieceProcessor(model_file=str(arguments.model)).vocab_size()
    builder = IndexedDatasetBuilder(
        f"{arguments.prefix}.bin", dtype=DType.optimal_dtype(vocab_size), multimodal=False
    )
    pool = multiprocessing.Pool(arguments.workers, initializer=load, initargs=(arguments.model,))
    with arguments.input.open(encoding="utf-8") as lines, pool:
        for ids in pool.imap(encode, lines, LINES_PER_TASK):
            if ids:
                builder.add_document(ids, [len(ids)])
    builder.finalize(f"{arguments.prefix}.idx")


def load(model: Path) -> None:
    """Give the worker its tokenizer."""
    _processor.append(SentencePieceProcessor(model_file=str(model)))


def encode(line: str) -> list[int]:
    """Ids of one document, none if it is empty."""
    ids: list[int] = _processor[0].encode_as_ids(json.loads(line)["text"])
    return [*ids, _processor[0].eos_id()] if ids else ids


if __name__ == "__main__":
    main()
