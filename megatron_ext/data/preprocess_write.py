"""Making parts: inputs are tokenized into one, and many are joined into the whole."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from megatron_ext.data.indexed import IndexedDatasetWriter
from megatron_ext.data.merge import Source, concatenate
from megatron_ext.data.preprocess_encode import Encoded, EncodedChunk, Encoder, encode_chunks
from megatron_ext.data.preprocess_parts import Encoding, KeyCounts, Marker, finish_part, making, publish
from megatron_ext.data.preprocess_plan import Job, Part
from megatron_ext.data.preprocess_ranks import Progress
from megatron_ext.data.preprocess_read import Chunk, label, read_chunks
from megatron_ext.data.preprocess_rows import Skipped, json_row
from megatron_ext.errors import DataError
from megatron_ext.utils.console import progress

Report = Callable[[Progress, str], None]  # what was done since the last call, and in which file


def tokenize_parts(
    parts: Sequence[Part], encoder: Encoder, workers: int, report: Report
) -> dict[str, Marker]:
    """Make parts out of their inputs, and the outputs of those that are whole datasets.

    Returns:
        Their markers, by name.

    Raises:
        DataError: an input is broken, a dataset has no documents, or a file cannot be written.
    """
    markers: dict[str, Marker] = {}
    chunks = _chunks(parts, encoder.settings.json_keys)
    with contextlib.closing(encode_chunks(chunks, encoder, workers)) as encoded:
        for part in parts:
            own = itertools.takewhile(lambda chunk: not chunk.ends_dataset, encoded)
            markers[part.name] = _tokenize(part, own, encoder, report)
            if part.outputs:
                publish(part)
    return markers


def join_parts(job: Job, markers: Mapping[str, Marker], encoder: Encoder) -> Marker:
    """Make the whole of a job out of its parts, whose tokens are not read into Python.

    Raises:
        DataError: the dataset has no documents, or a file cannot be read or written.
    """
    made = [markers[part.name] for part in job.parts]
    counts = [sum(keys, KeyCounts()) for keys in zip(*(marker.counts for marker in made), strict=True)]
    skipped = Skipped()
    for marker in made:
        skipped.merge(marker.skipped)
    _check_documents(job.whole, counts, skipped)
    total = encoder.dtype.itemsize * sum(count.tokens for count in counts)
    with making(job.whole), progress("joining", total, "bytes") as advance:
        for key in range(job.whole.keys):
            sources = [
                Source(part.prefix(key), encoder.dtype, count.documents, count.documents, count.tokens, None)
                for part, count in ((part, markers[part.name].counts[key]) for part in job.parts)
            ]
            concatenate(sources, job.whole.prefix(key), advance)
        return finish_part(job.whole, Encoding.of(encoder), counts, skipped)


def _check_documents(part: Part, counts: Sequence[KeyCounts], skipped: Skipped) -> None:
    """Refuse to make an empty dataset.

    Raises:
        DataError: says what the input has instead of documents.
    """
    for output, count in zip(part.outputs, counts, strict=True):
        if count.documents == 0:
            bad = f", {skipped.total} bad lines, such as {next(iter(skipped.firsts.values()), '')}"
            raise DataError(
                f"{part}: no documents for {output.name} ({count.empty} empty texts"
                f"{bad if skipped.total else ''})"
            )


def _chunks(parts: Sequence[Part], keys: Sequence[str]) -> Iterator[Chunk]:
    """Chunks of all parts in order, so that workers never wait where one part ends and the next begins."""
    for part in parts:
        for path in part.inputs:
            empty = True
            for chunk in read_chunks(path, keys):
                empty = False
                yield chunk
            if empty:
                raise DataError(f"{label(path)}: the input is empty")
        yield Chunk(part.inputs[-1], 0, [], 0, json_row, ends_dataset=True)


def _tokenize(part: Part, chunks: Iterator[EncodedChunk], encoder: Encoder, report: Report) -> Marker:
    counts, skipped = [KeyCounts()] * part.keys, Skipped()
    with making(part):
        with contextlib.ExitStack() as stack:
            writers = [
                stack.enter_context(IndexedDatasetWriter(part.prefix(key), encoder.dtype))
                for key in range(part.keys)
            ]
            for chunk in chunks:
                for writer, encoded in zip(writers, chunk.keys, strict=True):
                    writer.add_documents(encoded.tokens, encoded.lengths)
                found = [_counts(encoded) for encoded in chunk.keys]
                counts = [before + more for before, more in zip(counts, found, strict=True)]
                skipped.merge(chunk.skipped)
                tokens, documents = (
                    sum(getattr(one, name) for one in found) for name in ("tokens", "documents")
                )
                report(Progress(chunk.file_bytes, tokens, documents), str(part))
            if part.outputs:
                _check_documents(part, counts, skipped)
        return finish_part(part, Encoding.of(encoder), counts, skipped)


def _counts(encoded: Encoded) -> KeyCounts:
    return KeyCounts(
        documents=len(encoded.lengths),
        tokens=len(encoded.tokens),
        bytes=encoded.text_bytes,
        empty=encoded.empty,
    )
