"""Text files to indexed datasets: what ``tools/preprocess_data.py`` does."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megatron_ext.data.indexed import DatasetStatistics
from megatron_ext.data.preprocess_encode import Encoder, EncodeSettings
from megatron_ext.data.preprocess_open import STDIN
from megatron_ext.data.preprocess_parts import (
    Encoding,
    Marker,
    allow_replacement,
    check_outputs,
    completed_inputs,
    discard,
    publish,
)
from megatron_ext.data.preprocess_plan import Job, Part, plan_jobs, share_parts
from megatron_ext.data.preprocess_ranks import Progress, Ranks, first, join_ranks
from megatron_ext.data.preprocess_read import find_inputs
from megatron_ext.data.preprocess_rows import Skipped
from megatron_ext.data.preprocess_write import join_parts, tokenize_parts
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
    inputs: int = 0
    resumed: int = 0  # inputs that an earlier run had done
    file_bytes: int = 0  # size of the inputs that this call read, as they lie on disk
    seconds: float = 0.0


@dataclass(frozen=True)
class _Work:
    jobs: list[Job]
    todo: list[Part]  # to tokenize: what an earlier run did not complete
    markers: dict[str, Marker]  # of complete parts, by name

    @property
    def parts(self) -> list[Part]:
        """All that are tokenized, each once."""
        return list({part.name: part for job in self.jobs for part in job.parts}.values())

    @property
    def inputs(self) -> int:
        """Number of all inputs."""
        return sum(len(part.inputs) for part in self.parts)

    @property
    def resumed(self) -> int:
        """Number of those that an earlier run completed."""
        return self.inputs - sum(len(part.inputs) for part in self.todo)


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

    A dataset appears when it is complete or not at all. What is done is remembered in a hidden folder beside it
    until all outputs stand: after an error or a kill, the same call goes on with the rest. Ids depend on nothing
    but text and tokenizer: not on workers, interruptions, or the number of MPI's processes, which all call this.

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
        workers: threads, or processes where the tokenizer has no encoder in C++, fewer where there is little to do;
            default: all cores.
        overwrite: start anew, and replace datasets that exist.
        shard_per_input: one dataset for each input, ``<output_prefix>/<name of the input>_<key>_document``.
        on_error: whether a bad line (not UTF-8, no JSON object, a key missing or no string) ends the call or is
            left out, under every key, and counted. A file that cannot be read to its end always ends the call.

    Returns:
        The datasets, and what was skipped.

    Raises:
        DataError: an input is missing or broken, has no documents, or an output exists or cannot be written.
        LaunchError, MissingDependencyError: pyarrow or, with several processes, MPI is needed and not there.
        TokenizerError: the tokenizer cannot be loaded or lacks a token that is asked for.
        EndedByAnotherRankError: on ranks other than 0, where one of these was raised on rank 0.
    """
    keys = tuple(json_keys)
    settings = EncodeSettings(
        tokenizer_type, tokenizer_model, keys, append_eod, prepend_bos, skip_bad_rows=on_error == "skip"
    )
    return _preprocess(
        lambda ranks: plan_jobs(_find(inputs, workers, ranks), output_prefix, keys, shard_per_input),
        settings,
        workers,
        overwrite,
    )


def preprocess_sets(
    sets: Mapping[str, Sequence[Path]],
    settings: EncodeSettings,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> PreprocessReport:
    """As `preprocess`, into many datasets of one tokenizer, each of its own inputs.

    Args:
        sets: by prefix, as ``output_prefix``, the files of the dataset.
        settings: how text becomes ids.
        workers: as in `preprocess`.
        overwrite: as in `preprocess`.

    Returns:
        The datasets, in the order of ``sets``, each under every key of the settings.

    Raises:
        As `preprocess`.
    """
    return _preprocess(
        lambda ranks: [
            job
            for prefix, inputs in sets.items()
            for job in plan_jobs(_find(inputs, workers, ranks), prefix, settings.json_keys, False)
        ],
        settings,
        workers,
        overwrite,
    )


def _preprocess(
    plan: Callable[[Ranks], list[Job]], settings: EncodeSettings, workers: int | None, overwrite: bool
) -> PreprocessReport:
    started = time.monotonic()
    with join_ranks() as ranks:
        jobs = first(ranks, lambda: plan(ranks))
        if not overwrite:
            first(ranks, lambda: check_outputs(job.whole for job in jobs))
        encoder = ranks.each(lambda: Encoder(settings))
        encoding = Encoding.of(encoder)
        work = first(ranks, lambda: _begin(jobs, encoding, settings.skip_bad_rows, overwrite))
        with _saying_how_to_go_on(jobs, overwrite, ranks):
            work.markers.update(_tokenize(work, encoder, workers, ranks))
            work.markers.update(first(ranks, lambda: _finish(work, encoder)))
    return _report(work, time.monotonic() - started)


def _find(inputs: Sequence[Path], workers: int | None, ranks: Ranks) -> list[Path]:
    if workers is not None and workers < 1:
        raise DataError(f"--workers must be at least 1, not {workers}")
    files = find_inputs(inputs)
    if STDIN in files and ranks.size > 1:
        raise DataError(
            f"- (standard input) can be read by one process, not by {ranks.size}; start one, or name files"
        )
    return files


def _begin(jobs: list[Job], encoding: Encoding, skips: bool, overwrite: bool) -> _Work:
    """Find what an earlier run completed, and what of it cannot be used; with ``overwrite``, nothing can."""
    if overwrite:
        if lost := sum(map(completed_inputs, jobs)):
            logger.info("--overwrite: %d inputs that an earlier run completed are tokenized again", lost)
        for job in jobs:
            discard(job)
    markers: dict[str, Marker] = {}
    unusable: dict[str, list[Part]] = {}
    for part in {part.name: part for job in jobs for part in (*job.parts, job.whole)}.values():
        marker = Marker.read(part)
        reason = marker and marker.why_unusable(part, encoding, skips)
        if reason:
            unusable.setdefault(reason, []).append(part)
        elif marker:
            markers[part.name] = marker
    for reason, parts in unusable.items():
        more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
        logger.info("tokenized again, though an earlier run did: %s%s (%s)", parts[0], more, reason)
    unfinished = [job for job in jobs if job.whole.name not in markers]
    for job in unfinished:
        allow_replacement(job.whole)
    missing = {part.name: part for job in unfinished for part in job.parts if part.name not in markers}
    return _Work(jobs, list(missing.values()), markers)


def _tokenize(work: _Work, encoder: Encoder, workers: int | None, ranks: Ranks) -> dict[str, Marker]:
    """Let each rank tokenize its share, while rank 0 shows how far all are."""
    if work.resumed:
        logger.info("%d of %d inputs were done by an earlier run", work.resumed, work.inputs)
    streamed = any(STDIN in part.inputs for part in work.todo)
    share = share_parts(work.todo, ranks.size)[ranks.rank]
    num_workers = _useful_workers(workers or ranks.cores, None if streamed else _size(share))
    total = _size(work.parts)
    with progress(
        "tokenizing", None if streamed else total, "bytes", done=total - _size(work.todo)
    ) as advance:
        meter = _Meter(advance)
        markers = ranks.each(
            lambda: tokenize_parts(
                share, encoder, num_workers, lambda done, name: meter.show(ranks.add(done), name)
            ),
            meter.show,
        )
    return {name: marker for of_rank in ranks.gather(markers) for name, marker in of_rank.items()}


def _size(parts: Sequence[Part]) -> int:
    return sum(part.size for part in parts)


class _Meter:
    """Moves the progress bar to what all ranks have done."""

    def __init__(self, advance: Callable[[int, str], None]) -> None:
        self._advance, self._shown, self._started, self._name = advance, 0, time.monotonic(), ""

    def show(self, done: Progress, name: str | None = None) -> None:
        self._name = name or self._name
        rate = done.tokens / max(time.monotonic() - self._started, 1e-9)
        note = f"{rate:,.0f} tokens/s, {done.documents:,} documents, {self._name}"
        self._advance(done.file_bytes - self._shown, note)
        self._shown = done.file_bytes


def _useful_workers(wanted: int, total_bytes: int | None) -> int:
    return wanted if total_bytes is None else min(wanted, 1 + total_bytes // BYTES_PER_WORKER)


def _finish(work: _Work, encoder: Encoder) -> dict[str, Marker]:
    """Put all outputs in place, then forget how they were made."""
    joined: dict[str, Marker] = {}
    for job in work.jobs:
        if job.whole.name not in work.markers:
            joined[job.whole.name] = join_parts(job, work.markers, encoder)
        publish(job.whole)
    for job in work.jobs:  # a kill between two of them leaves a job that is done, whose outputs are refused
        discard(job)
    return joined


@contextlib.contextmanager
def _saying_how_to_go_on(jobs: Sequence[Job], overwrite: bool, ranks: Ranks) -> Iterator[None]:
    """After an error or an interruption, say what is kept; if that is nothing, leave no trace."""
    try:
        yield
    except BaseException:
        if ranks.rank == 0:
            done, total = sum(map(completed_inputs, jobs)), sum(len(job.whole.inputs) for job in jobs)
            if done:
                again = "the same command without --overwrite" if overwrite else "the same command"
                logger.info("%d of %d inputs are done and kept: %s goes on with the rest", done, total, again)
            for job in jobs:
                if completed_inputs(job) == 0:
                    with contextlib.suppress(
                        DataError
                    ):  # what led here is told, not that its traces cannot go
                        discard(job)
        raise


def _report(work: _Work, seconds: float) -> PreprocessReport:
    report = PreprocessReport(
        inputs=work.inputs,
        resumed=work.resumed,
        file_bytes=_size(work.todo),
        seconds=seconds,
    )
    for job in work.jobs:
        marker = work.markers[job.whole.name]
        report.skipped.merge(marker.skipped)
        report.datasets.extend(
            PreprocessResult(prefix, count.statistics(marker.encoding), count.empty)
            for prefix, count in zip(job.whole.outputs, marker.counts, strict=True)
        )
    return report
