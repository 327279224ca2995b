"""``megatron-ext inspect``: describe an indexed dataset, decode a document of it, verify it."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from megatron_ext.data.indexed import DatasetStatistics, bin_path, dataset_prefix, idx_path, statistics_path
from megatron_ext.data.inspect import Description, describe, read_document, verify
from megatron_ext.errors import DataError
from megatron_ext.tokenizer.build import TOKENIZER_TYPES, Tokenizer, build_tokenizer
from megatron_ext.utils.console import get_logger

WIDTH = 120  # of the table where there is no terminal: a SHA-256 stays in one piece

logger = get_logger(__name__)

EPILOG = """\
example: what a dataset holds, and the text of its first document
  python tools/inspect_dataset.py data/corpus_text_document --document 0 \\
      --tokenizer-type SentencePieceTokenizer --tokenizer-model tokenizer.model

example: check a dataset after copying it
  python tools/inspect_dataset.py data/corpus_text_document --verify

Every length, offset and document index of the .idx is checked in any case; --verify also reads the tokens.
A damaged dataset is one message on standard error and exit code 2. Datasets of floats cannot be trained on;
their header is described.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options and the help."""
    parser.description = "Describe a .bin/.idx dataset (Megatron-LM's format), decode a document, verify it."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "prefix", type=Path, metavar="PREFIX", help="the dataset, without .bin and .idx or with one of them"
    )
    parser.add_argument(
        "--document",
        type=int,
        metavar="N",
        help="print document N, counted from 0: its text, or without a tokenizer its ids",
    )
    parser.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES, help="decode --document with it")
    parser.add_argument("--tokenizer-model", metavar="M", help="its file or folder; none for ByteTokenizer")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="also check ids and statistics, and print the SHA-256 of both files as sha256sum does",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the description, then what else is asked for."""
    prefix = dataset_prefix(arguments.prefix)
    tokenizer = _tokenizer(arguments)
    description = describe(prefix)
    wanted = "--verify" if arguments.verify else "--document" if arguments.document is not None else None
    if wanted and description.header.holds_floats:
        raise DataError(f"{bin_path(prefix)}: holds floats, not tokens; leave out {wanted} to see its header")
    # What can fail comes first: a damaged dataset is a message and nothing else.
    verified = verify(prefix) if arguments.verify else None
    document = None if arguments.document is None else _document(description, arguments.document, tokenizer)
    width = None if sys.stdout.isatty() else WIDTH
    Console(width=width, markup=False, highlight=False, emoji=False).print(_table(description))
    if verified is not None:
        ids = (
            "" if verified.highest_id is None else f", ids from {verified.lowest_id} to {verified.highest_id}"
        )
        print(f"verified: lengths, offsets, document indices and sizes of both files{ids}")
        print(f"{verified.bin_sha256}  {bin_path(prefix)}\n{verified.idx_sha256}  {idx_path(prefix)}")
    if document is not None:
        print(document)
    return 0


def _tokenizer(arguments: argparse.Namespace) -> Tokenizer | None:
    if arguments.tokenizer_type is None and arguments.tokenizer_model is None:
        return None
    if arguments.document is None:
        raise DataError("a tokenizer decodes a document; name one with --document N")
    if arguments.tokenizer_type is None:
        raise DataError(f"--tokenizer-model needs --tokenizer-type: {', '.join(TOKENIZER_TYPES)}")
    return build_tokenizer(arguments.tokenizer_type, arguments.tokenizer_model)


def _document(description: Description, document: int, tokenizer: Tokenizer | None) -> str:
    ids = read_document(description.prefix, document).tolist()
    title = f"document {document}: {len(ids):,} tokens"
    if tokenizer is None:
        return f"{title}\n{' '.join(map(str, ids))}"
    statistics = description.statistics
    if statistics is not None and statistics.tokenizer.sha256 != tokenizer.fingerprint:
        logger.warning(
            "%s: the ids were made with another tokenizer (%s) than the one that decodes them",
            statistics_path(description.prefix),
            statistics.tokenizer.type,
        )
    return f"{title}\n{tokenizer.decode(ids)}"


def _table(description: Description) -> Table:
    header = description.header
    rows = {
        "format version": str(header.version),
        "dtype": f"{description.dtype} (code {header.code})",
        "sequences": f"{header.num_sequences:,}",
        "documents": f"{header.num_document_indices - 1:,}",
    }
    rows["values" if header.holds_floats else "tokens"] = f"{description.num_tokens:,}"
    rows[".bin"] = f"{description.bin_bytes:,} bytes"
    rows[".idx"] = f"{description.idx_bytes:,} bytes"
    if lengths := description.lengths:
        rows["tokens a document"] = (
            f"{lengths.minimum:,} minimum, {lengths.median:,.1f} median, {lengths.mean:,.1f} mean, "
            f"{lengths.maximum:,} maximum"
        )
        rows["empty documents"] = f"{lengths.empty:,}"
    if header.holds_floats:
        rows["usable"] = "no: floats are not tokens, and training refuses them"
    rows |= _statistics_rows(description.statistics)
    table = Table(title=str(description.prefix), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _statistics_rows(statistics: DatasetStatistics | None) -> dict[str, str]:
    if statistics is None:
        return {"statistics (.json)": "none: written by another tool, or merged from sets without"}
    tokenizer = statistics.tokenizer
    rate = f", {statistics.bytes / statistics.tokens:.2f} a token" if statistics.tokens else ""
    marks = [name for name in ("append_eod", "prepend_bos") if getattr(statistics, name)]
    return {
        "statistics (.json)": f"{statistics.tokens:,} tokens, {statistics.documents:,} documents",
        "bytes of text": f"{statistics.bytes:,}{rate}",
        "tokenizer": f"{tokenizer.type}, vocabulary {tokenizer.vocab_size:,}",
        "its SHA-256": tokenizer.sha256,
        "options": ", ".join(marks) or "neither append_eod nor prepend_bos",
        "EOD id": "none" if statistics.eod_id is None else str(statistics.eod_id),
    }
