"""Text files to indexed datasets: what ``tools/preprocess_data.py`` does."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megatron_ext.data.indexed import (
    DatasetStatistics,
    IndexedDatasetWriter,
    TokenizerIdentity,
    bin_path,
    idx_path,
    statistics_path,
    writing_dataset,
)
from megatron_ext.data.preprocess_encode import Encoded, EncodedChunk, Encoder, EncodeSettings, encode_chunks
from megatron_ext.data.preprocess_open import STDIN
from megatron_ext.data.preprocess_read import Chunk, find_inputs, label, read_chunks, shard_name
from megatron_ext.data.preprocess_rows import Skipped, json_row
from megatron_ext.errors import DataError
from megatron_ext.utils.console import get_logger, progress

BYTES_PER_WORKER = 4 << 20  # a process takes longer to start than to encode less than this

logger = get_logger(__name__)


@dataclass(frozen=True)
class PreprocessResult:
    """One dataset that was written."""

    prefix: Path
    statistics: DatasetStatistics
    empty: int  # texts left out because they have no tokens


@dataclass(frozen=True)
class PreprocessReport:
    """What a call did."""

    datasets: list[PreprocessResult] = field(default_factory=list)  # input by input, then key by key
    skipped: Skipped = field(default_factory=Skipped)  # bad lines that were left out, of all inputs


@dataclass(frozen=True)
class _Job:
    """Inputs that become one dataset for each JSON key."""

    inputs: tuple[Path, ...]
    prefixes: tuple[Path, ...]


@dataclass
class _Counts:
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    empty: int = 0

    def add(self, encoded: Encoded) -> None:
        self.documents += len(encoded.lengths)
        self.tokens += len(encoded.tokens)
        self.text_bytes += encoded.text_bytes
        self.empty += encoded.empty


def preprocess(
    inputs: Sequence[Path],
    output_prefix: str,
    *,
    tokenizer_type: str,
    tokenizer_model: str | None = None,
    json_keys: Sequence[str] = ("text",),
    append_eod: bool = False,
    prepend_bos: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    shard_per_input: bool = False,
    on_error: Literal["fail", "skip"] = "fail",
) -> PreprocessReport:
    """Tokenize files of text into indexed datasets, document by document in the order of the inputs.

    A dataset appears when it is complete or not at all; of several, those complete before an error stay.
    The ids depend on nothing but text and tokenizer: not on the number of workers.

    Args:
        inputs: files, globs, folders (every file of a kind that is read, sorted) or ``-``, standard input.
            JSON Lines hold one object a line, and blank lines count for nothing; a ``.txt`` is one document
            under the key ``text``; in Parquet and Arrow files the keys are columns. All text is UTF-8.
        output_prefix: datasets are ``<output_prefix>_<key>_document``; a folder with ``shard_per_input``.
        tokenizer_type: see `megatron_ext.tokenizer.build`.
        tokenizer_model: its file or folder.
        json_keys: keys whose strings are text, one dataset for each.
        append_eod: end each document with the tokenizer's EOS.
        prepend_bos: begin each document with the tokenizer's BOS.
        workers: processes that tokenize, fewer where there is little to do; default: all cores.
        overwrite: replace datasets that exist.
        shard_per_input: one dataset for each input, ``<output_prefix>/<name of the input>_<key>_document``.
        on_error: whether a bad line (not UTF-8, no JSON object, a key missing or no string) ends the call or is
            left out, under every key, and counted. A file that cannot be read to its end always ends the call.

    Returns:
        The datasets, and what was skipped.

    Raises:
        DataError: an input is missing or broken, has no documents, or an output exists or cannot be written.
        MissingDependencyError: an input needs pyarrow, which is not installed.
        TokenizerError: the tokenizer cannot be loaded or lacks a token that is asked for.
    """
    files = find_inputs(inputs)
    jobs = _plan(files, output_prefix, _checked_keys(json_keys), shard_per_input)
    _check_outputs([prefix for job in jobs for prefix in job.prefixes], overwrite)
    settings = EncodeSettings(
        tokenizer_type, tokenizer_model, tuple(json_keys), append_eod, prepend_bos, on_error == "skip"
    )
    encoder = Encoder(settings)
    total_bytes = None if STDIN in files else sum(path.stat().st_size for path in files)
    encoded = encode_chunks(_chunks(jobs, json_keys), encoder, _useful_workers(workers, total_bytes))
    with contextlib.closing(encoded), progress("tokenizing", total_bytes, "bytes") as advance:
        return _write_jobs(jobs, encoded, encoder, advance)


def _checked_keys(json_keys: Sequence[str]) -> Sequence[str]:
    for key in json_keys:
        if "/" in key or not key:
            raise DataError(f"JSON key {key!r} cannot be part of a file name; rename it in the text files")
    if len(set(json_keys)) != len(json_keys):
        raise DataError(f"a JSON key is named twice: {', '.join(json_keys)}")
    return json_keys


def _plan(
    inputs: Sequence[Path], output_prefix: str, keys: Sequence[str], shard_per_input: bool
) -> list[_Job]:
    if not shard_per_input:
        if output_prefix.endswith("/") or Path(output_prefix).is_dir():
            raise DataError(
                f"{output_prefix}: a folder, not a prefix; add a name to it or use --shard-per-input"
            )
        return [_Job(tuple(inputs), tuple(Path(f"{output_prefix}_{key}_document") for key in keys))]
    jobs: dict[str, _Job] = {}
    for path in inputs:
        name = shard_name(path)
        if name in jobs:
            raise DataError(
                f"{label(jobs[name].inputs[0])} and {label(path)} would both become {name}; rename one"
            )
        prefixes = tuple(Path(output_prefix) / f"{name}_{key}_document" for key in keys)
        jobs[name] = _Job((path,), prefixes)
    return list(jobs.values())


def _check_outputs(prefixes: Sequence[Path], overwrite: bool) -> None:
    there = [
        path
        for prefix in prefixes
        for path in (bin_path(prefix), idx_path(prefix), statistics_path(prefix))
        if path.exists()
    ]
    if there and not overwrite:
        more = f" (and {len(there) - 1} more files)" if len(there) > 1 else ""
        raise DataError(
            f"{there[0]}{more} exists already; choose another --output-prefix or pass --overwrite"
        )


def _useful_workers(wanted: int | None, total_bytes: int | None) -> int:
    available = len(os.sched_getaffinity(0)) if wanted is None else wanted
    if available < 1:
        raise DataError(f"--workers must be at least 1, not {available}")
    return available if total_bytes is None else min(available, 1 + total_bytes // BYTES_PER_WORKER)


def _chunks(jobs: Sequence[_Job], keys: Sequence[str]) -> Iterator[Chunk]:
    """Chunks of all jobs in order, so that workers never wait where one job ends and the next begins."""
    for job in jobs:
        for path in job.inputs:
            empty = True
            for chunk in read_chunks(path, keys):
                empty = False
                yield chunk
            if empty:
                raise DataError(f"{label(path)}: the input is empty")
        yield Chunk(job.inputs[-1], 0, [], 0, json_row, ends_dataset=True)


def _write_jobs(
    jobs: Sequence[_Job],
    encoded: Iterator[EncodedChunk],
    encoder: Encoder,
    advance: Callable[[int, str], None],
) -> PreprocessReport:
    report = PreprocessReport()
    try:
        for job in jobs:
            chunks = itertools.takewhile(lambda chunk: not chunk.ends_dataset, encoded)
            written, skipped = _write_job(job, chunks, encoder, advance)
            report.datasets.extend(written)
            report.skipped.merge(skipped)
    except BaseException:
        if report.datasets:
            logger.info("%d datasets were complete before the error and stay", len(report.datasets))
        raise
    return report


def _write_job(
    job: _Job, chunks: Iterator[EncodedChunk], encoder: Encoder, advance: Callable[[int, str], None]
) -> tuple[list[PreprocessResult], Skipped]:
    """Write one dataset for each key; all of them appear together, after the last chunk."""
    counts, skipped = [_Counts() for _ in job.prefixes], Skipped()
    with writing_dataset(job.prefixes[0]):
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(IndexedDatasetWriter(path, encoder.dtype)) for path in job.prefixes
            ]
            for chunk in chunks:
                for writer, count, encoded in zip(writers, counts, chunk.keys, strict=True):
                    writer.add_documents(encoded.tokens, encoded.lengths)
                    count.add(encoded)
                skipped.merge(chunk.skipped)
                advance(chunk.file_bytes, job.prefixes[0].name)
            _check_documents(job, counts, skipped)
            for prefix in job.prefixes:  # a sidecar must not outlive the dataset that is being replaced
                statistics_path(prefix).unlink(missing_ok=True)
        results = [
            _write_statistics(path, count, encoder) for path, count in zip(job.prefixes, counts, strict=True)
        ]
    return results, skipped


def _check_documents(job: _Job, counts: Sequence[_Counts], skipped: Skipped) -> None:
    for prefix, count in zip(job.prefixes, counts, strict=True):
        if count.documents == 0:
            more = f" and {len(job.inputs) - 1} more" if len(job.inputs) > 1 else ""
            first = next(iter(skipped.firsts.values()), "")
            bad = f", {skipped.total} bad lines, such as {first}"
            raise DataError(
                f"{label(job.inputs[0])}{more}: no documents for {prefix.name} ({count.empty} empty texts"
                f"{bad if skipped.total else ''})"
            )


def _write_statistics(prefix: Path, count: _Counts, encoder: Encoder) -> PreprocessResult:
    settings, tokenizer = encoder.settings, encoder.tokenizer
    statistics = DatasetStatistics(
        tokens=count.tokens,
        documents=count.documents,
        bytes=count.text_bytes,
        tokenizer=TokenizerIdentity(
            type=settings.tokenizer_type, vocab_size=tokenizer.vocab_size, sha256=tokenizer.fingerprint
        ),
        append_eod=settings.append_eod,
        prepend_bos=settings.prepend_bos,
        eod_id=tokenizer.eos_id,
    )
    statistics.write(prefix)
    return PreprocessResult(prefix, statistics, count.empty)
