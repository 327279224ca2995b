"""``megatron-ext merge``: one indexed dataset out of many."""

import argparse
from pathlib import Path

from megatron_ext.data.merge import MergeResult, merge_datasets

EPILOG = """\
example: the shards of a folder become one dataset, in the order of their names
  python tools/merge_datasets.py --input data/shards/*.idx --output-prefix data/corpus_text_document

The result is what megatron-core's IndexedDatasetBuilder.add_index writes. Its statistics (.json) add up those
of the inputs, and are left out if an input has none. Datasets of other tokenizers or dtypes are refused.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options and the help."""
    parser.description = "Append .bin/.idx datasets to one another, without reading their tokens."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        required=True,
        metavar="PREFIX",
        help="datasets, without .bin and .idx or with one of the two",
    )
    parser.add_argument(
        "--output-prefix", type=Path, required=True, metavar="P", help="writes P.bin, P.idx and P.json"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset that exists")


def run(arguments: argparse.Namespace) -> int:
    """Merge and say what was written."""
    result = merge_datasets(arguments.input, arguments.output_prefix, overwrite=arguments.overwrite)
    print(_summary(result, len(arguments.input)))
    return 0


def _summary(result: MergeResult, num_inputs: int) -> str:
    text = (
        f"{result.prefix}: {result.num_tokens:,} tokens, {result.num_documents:,} documents "
        f"of {num_inputs:,} datasets"
    )
    if missing := result.without_statistics:
        text += (
            f"\nno statistics written, so no bits per byte: {len(missing):,} of the datasets have none, "
            f"{missing[0]} the first of them"
        )
    return text
