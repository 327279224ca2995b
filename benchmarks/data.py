"""The data path beside megatron-core's, in one run: blending order and gathering of samples.

    python benchmarks/data.py [--output benchmarks/results/data.json]

Each figure is the best of a few repetitions, ours and megatron-core's in turn, and their ratio. Samples are what each
hands to training: rows of uint16 in batches here, which the device widens and splits into labels; there int64
tokens, labels and masks, one sample at a time.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from megatron.core.datasets import helpers_cpp
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset as MegatronIndexedDataset
from megatron.core.datasets.utils import Split
from rich.console import Console
from rich.table import Table

from megatron_ext import _C
from megatron_ext.data.blend import BlendedDataset
from megatron_ext.data.indexed import IndexedDataset, IndexedDatasetWriter
from megatron_ext.data.samples import DocumentRules, TokenSet
from megatron_ext.utils.atomic import write_text

REPEATS = 3
NUM_SETS, DRAWS = 546, 1_000_000
SEQ_LENGTH, NUM_SAMPLES, DOCUMENTS, DOCUMENT_TOKENS = 4096, 2000, 20_000, 800
BATCH = 8


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/data.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = blend() | {
            f"samples of {SEQ_LENGTH} tokens, samples/s": gather(Path(folder)),
        }
    table = Table("", "megatron_ext", "megatron-core", "ratio")
    for name, (ours, theirs) in figures.items():
        table.add_row(name, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.1f}")
    Console().print(table)
    packages = ("megatron-ext", "megatron-core", "numpy")
    record = {
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in packages},
        "figures": {
            name: {"megatron_ext": ours, "megatron_core": theirs} for name, (ours, theirs) in figures.items()
        },
    }
    write_text(arguments.output, json.dumps(record, indent=2) + "\n")
    print(f"wrote {arguments.output}")


def rates(amount: int, ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float]:
    """Amount per second of both, the best of ``REPEATS`` runs in turn."""
    best = [0.0, 0.0]
    for _ in range(REPEATS):
        for index, work in enumerate((ours, theirs)):
            start = time.perf_counter()
            work()
            best[index] = max(best[index], amount / (time.perf_counter() - start))
    return best[0], best[1]


def blend() -> dict[str, tuple[float, float]]:
    """The same greedy order, streamed in chunks and built as a whole; for each instruction set of this machine."""
    weights = np.random.default_rng(0).lognormal(sigma=2.0, size=NUM_SETS)
    weights /= weights.sum()
    sets, samples = np.zeros(DRAWS, dtype=np.int16), np.zeros(DRAWS, dtype=np.int64)

    def ours(instruction_set: str) -> None:
        stream = _C.Blend(weights, instruction_set)
        for _ in range(DRAWS // 1000):
            stream.draw(1000)

    def theirs() -> None:
        helpers_cpp.build_blending_indices(sets, samples, weights, NUM_SETS, DRAWS, False)

    return {
        f"blend of {NUM_SETS} sets, draws/s, {name}": rates(DRAWS, partial(ours, name), theirs)
        for name in _C.blend_instruction_sets()
    }


def gather(folder: Path) -> tuple[float, float]:
    """Random samples out of the page cache, in batches and one by one."""
    prefix = folder / "corpus"
    tokens = np.random.default_rng(0).integers(0, 32000, DOCUMENTS * DOCUMENT_TOKENS, dtype=np.uint16)
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        writer.add_documents(tokens, np.full(DOCUMENTS, DOCUMENT_TOKENS))
    dataset = IndexedDataset(prefix)
    blended = BlendedDataset(
        [TokenSet("corpus", dataset, 0, DOCUMENTS, None)], np.ones(1), order="permuted", seq_length=SEQ_LENGTH,
        seed=0, train_samples=NUM_SAMPLES, rules=DocumentRules(None, False, False),
    )  # fmt: skip
    peer = megatron_dataset(prefix)

    def ours() -> None:
        stream = blended.blend()
        for _ in range(NUM_SAMPLES // BATCH):
            blended.gather(*stream.draw(BATCH))

    def theirs() -> None:
        for index in range(NUM_SAMPLES):
            peer[index]

    return rates(NUM_SAMPLES, ours, theirs)


def megatron_dataset(prefix: Path) -> GPTDataset:
    """megatron-core's dataset over the same file, with its masks computed once as in training."""
    config = GPTDatasetConfig(
        random_seed=0, sequence_length=SEQ_LENGTH, split="1", reset_position_ids=False, reset_attention_mask=False,
        eod_mask_loss=False, create_attention_mask=False, tokenizer=_Tokenizer(), mid_level_dataset_surplus=0.005,
    )  # fmt: skip
    indexed = MegatronIndexedDataset(str(prefix))
    return GPTDataset(
        indexed, str(prefix), np.arange(DOCUMENTS, dtype=np.int32), NUM_SAMPLES, Split.train, config
    )


class _Tokenizer:
    """What megatron-core asks of one."""

    eod = 2
    vocab_size = 32000
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012 - megatron-core's own form


if __name__ == "__main__":
    main()
