"""``megatron-ext preprocess``: text files to indexed datasets."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.filesize import decimal

from megatron_ext.cli.termination import run_resumable
from megatron_ext.data.preprocess import PreprocessReport, PreprocessResult, preprocess
from megatron_ext.data.preprocess_read import KINDS
from megatron_ext.tokenizer.build import TOKENIZER_TYPES

DATASETS_SHOWN = 5

EPILOG = f"""\
example: two files become one dataset, corpus_text_document.bin and .idx, with statistics in .json
  python tools/preprocess_data.py --input a.jsonl b.jsonl.gz --output-prefix corpus \\
      --tokenizer-type SentencePieceTokenizer --tokenizer-model tokenizer.model --append-eod

example: each file becomes a dataset of its own, data/a_text_document and data/b_text_document
  python tools/preprocess_data.py --input a.jsonl b.jsonl.gz --output-prefix data/ --shard-per-input \\
      --tokenizer-type HuggingFaceTokenizer --tokenizer-model folder/ --append-eod

example: the inputs are spread over 16 processes of MPI (pip install 'megatron-ext[launchers]'); the same bytes
  mpirun -n 16 python tools/preprocess_data.py --input 'text/*.jsonl.zst' --output-prefix corpus …

Kinds of input:
  {KINDS}
.jsonl and .json hold one JSON object a line: {{"text": "a whole document"}}. A .txt is one document, under the
key text. In Parquet and Arrow files (pip install 'megatron-ext[parquet]') the keys are columns. All is UTF-8.

After a stop, a kill or an error the same command goes on: what was tokenized is not read again, unless the file,
the tokenizer or an option changed since. Until all outputs stand, this is remembered in hidden folders beside
them (.NAME.parts), which also tell this job's outputs from others. Those of others, and all once the job is
done, are replaced with --overwrite only, which starts anew.

Empty texts become no document. Half a surrogate pair in a JSON string becomes U+FFFD. Text never becomes a
control token, not even "<s>".
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options and the help."""
    parser.description = (
        "Tokenize text (JSON Lines, plain, Parquet, Arrow) into the .bin/.idx files that training reads "
        "(Megatron-LM's format)."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    text = parser.add_argument_group("text")
    text.add_argument(
        "--input",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="files, quoted globs, folders (every file below of a kind that is read, sorted), - for stdin",
    )
    text.add_argument(
        "--json-keys", nargs="+", default=["text"], metavar="KEY", help="keys that hold text (default: text)"
    )
    text.add_argument(
        "--on-error",
        choices=("fail", "skip"),
        default="fail",
        help="stop at a bad line (default), or leave bad lines out and count them",
    )
    tokenizer = parser.add_argument_group("tokenizer")
    tokenizer.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES, required=True)
    tokenizer.add_argument(
        "--tokenizer-model",
        metavar="M",
        help="a .model file for SentencePieceTokenizer; tokenizer.json or its folder for "
        "HuggingFaceTokenizer; none for ByteTokenizer",
    )
    tokenizer.add_argument(
        "--append-eod", action="store_true", help="end each document with the tokenizer's EOS"
    )
    tokenizer.add_argument(
        "--prepend-bos", action="store_true", help="begin each document with the tokenizer's BOS"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output-prefix",
        required=True,
        metavar="P",
        help="writes P_KEY_document.bin, .idx and .json for each key",
    )
    output.add_argument(
        "--shard-per-input",
        action="store_true",
        help="one dataset for each FILE, named after it, in folder P",
    )
    output.add_argument("--overwrite", action="store_true", help="start anew, replacing what exists")
    output.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="threads or processes in each rank, fewer for little text (default: one a core)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Preprocess and say what was written."""

    def work() -> Callable[[], str]:
        report = preprocess(
            arguments.input,
            arguments.output_prefix,
            tokenizer_type=arguments.tokenizer_type,
            tokenizer_model=arguments.tokenizer_model,
            json_keys=arguments.json_keys,
            append_eod=arguments.append_eod,
            prepend_bos=arguments.prepend_bos,
            workers=arguments.workers,
            overwrite=arguments.overwrite,
            shard_per_input=arguments.shard_per_input,
            on_error=arguments.on_error,
        )
        return lambda: summary(report, arguments)

    return run_resumable(work)


def summary(report: PreprocessReport, arguments: argparse.Namespace) -> str:
    """What was written, and the lines of a run configuration that read it."""
    results = report.datasets
    lines = [_dataset_line(result.prefix.as_posix(), [result]) for result in results[:DATASETS_SHOWN]]
    if len(results) > DATASETS_SHOWN:
        lines.append(f"… {len(results) - DATASETS_SHOWN} more datasets")
    if len(results) > 1:
        lines.append(_dataset_line(f"{len(results)} datasets", results))
    if empty := sum(result.empty for result in results):
        lines.append(f"{empty:,} empty texts became no document")
    for reason, count in report.skipped.counts.items():
        lines.append(f"skipped bad lines, {reason}: {count:,}; the first: {report.skipped.firsts[reason]}")
    lines.append(_effort_line(report))
    return "\n".join([*lines, *_next_lines(results, arguments)])


def _effort_line(report: PreprocessReport) -> str:
    read = report.inputs - report.resumed
    speed = decimal(int(report.file_bytes / max(report.seconds, 1e-9)))
    earlier = f"; {report.resumed:,} were done by an earlier run" if report.resumed else ""
    return (
        f"{read:,} of {report.inputs:,} inputs, {decimal(report.file_bytes)}, tokenized in "
        f"{report.seconds:,.1f} s: {speed}/s{earlier}"
    )


def _next_lines(results: Sequence[PreprocessResult], arguments: argparse.Namespace) -> list[str]:
    paths = [result.prefix.as_posix() for result in results]
    if len(paths) > 1 and arguments.shard_per_input:
        paths = [
            f"{Path(arguments.output_prefix).as_posix()}/*_{key}_document" for key in arguments.json_keys
        ]
    return [
        f"next: check it with python tools/inspect_dataset.py {shlex.quote(results[0].prefix.as_posix())} --verify",
        "then put this into a run's YAML and start it with ./launch.sh RUN.yaml",
        "data:",
        "  train:",
        *(f'    - path: "{path}"' for path in paths),
        "tokenizer:",
        f"  type: {arguments.tokenizer_type}",
        *([f'  model: "{arguments.tokenizer_model}"'] if arguments.tokenizer_model else []),
    ]


def _dataset_line(name: str, results: Sequence[PreprocessResult]) -> str:
    documents = sum(result.statistics.documents for result in results)
    tokens = sum(result.statistics.tokens for result in results)
    text_bytes = sum(result.statistics.bytes for result in results)
    return f"{name}: {tokens:,} tokens, {documents:,} documents, {text_bytes / tokens:.2f} bytes a token"
