"""The third step: what is kept becomes shards, planned from the records alone and then written side by side."""

import contextlib
import gzip
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.builder.part_file import PartFile, PartIndex, Segment, writing
from megatron_ext.corpus.counts import PartCounts
from megatron_ext.corpus.manifest import ShardsConfig
from megatron_ext.data.preprocess_open import zstd
from megatron_ext.utils.atomic import atomic_file

TRAIN, VALID = "train", "valid"
ZSTD_LEVEL, GZIP_LEVEL = 3, 6
ENDINGS = {"zst": ".zst", "gz": ".gz", "none": ""}

Decisions = NDArray[np.int16]  # of a part's documents: copies in training, or -1 for validation, or 0


class Take(NamedTuple):
    """Documents of a shard that lie in one segment: those of its side among some consecutive ones."""

    file: PartFile
    segment: Segment
    decisions: Path  # of the part
    start: int  # in the segment
    stop: int


@dataclass
class Shard:
    """A file of the corpus that is to be written.

    Attributes:
        set: ``category/label``.
        side: `TRAIN` or `VALID`.
        path: below the folder of text.
        takes: what it holds, in the order of the manifest.
        counts: of what it holds.
    """

    set: str
    side: str
    path: str
    takes: list[Take] = field(default_factory=list)
    counts: PartCounts = field(default_factory=PartCounts)

    @property
    def load(self) -> int:
        """Bytes of text, which is how long it takes."""
        return self.counts.bytes


def plan_shards(parts: Sequence[tuple[PartFile, PartIndex, Path]], config: ShardsConfig) -> list[Shard]:
    """Cut the kept documents of every set and side into shards of about ``config.max_bytes`` of text.

    Args:
        parts: in order, each with the file of its `Decisions`.
        config: sizes and compression.

    Returns:
        Shards by set and side, in the order of their text. No document lies in two.
    """
    cutters: dict[tuple[str, str], _Cutter] = {}
    for file, index, path in parts:
        records, decisions = file.records(), np.load(path)
        for segment in index.segments:
            decided = decisions[segment.rows]
            for side in (TRAIN, VALID):
                copies = copies_of(side, decided)
                if copies.any():
                    cutter = cutters.setdefault((segment.set, side), _Cutter(segment.set, side, config))
                    take = Take(file, segment, path, 0, segment.documents)
                    cutter.append(take, records[segment.rows], copies)
    return [shard for _, cutter in sorted(cutters.items()) for shard in cutter.shards]


def copies_of(side: str, decisions: Decisions) -> Decisions:
    """How often each document is written to one side."""
    return np.maximum(decisions if side == TRAIN else -decisions, 0)


@dataclass(frozen=True)
class ShardFolder:
    """Where shards are written, and how."""

    path: Path
    config: ShardsConfig

    def has(self, shard: Shard) -> bool:
        """Whether the shard is complete."""
        return (self.path / shard.path).exists()


def write_shard(folder: ShardFolder, shard: Shard, advance: Callable[[int, int], None]) -> None:
    """Write a shard, complete or not at all; memory is a segment.

    Raises:
        CorpusError: it cannot be written.
    """
    path = folder.path / shard.path
    with writing(path), atomic_file(path) as stream, _compressed(stream, folder.config) as output:
        for take in shard.takes:
            lines = take.file.lines(take.segment)
            copies = copies_of(shard.side, np.load(take.decisions)[take.segment.rows])
            rows = take.start + np.flatnonzero(copies[take.start : take.stop])
            output.write(b"".join(lines[row] * int(copies[row]) for row in rows))
            advance(int(take.file.records()["bytes"][take.segment.rows][rows] @ copies[rows]), len(rows))


def added(one: PartCounts, other: PartCounts) -> PartCounts:
    """The sum of both; files are of neither."""
    names = ("documents", "characters", "bytes", "whitespace_tokens")
    return PartCounts(**{name: getattr(one, name) + getattr(other, name) for name in names})


class _Cutter:
    """Cuts one side of a set."""

    def __init__(self, name: str, side: str, config: ShardsConfig) -> None:
        self._name, self._side, self._config = name, side, config
        self.shards: list[Shard] = []

    def append(self, take: Take, rows: NDArray[Any], copies: Decisions) -> None:
        """Put a segment's documents into the last shard as long as it has room, and then into new ones."""
        limit, kept = self._config.max_bytes, np.flatnonzero(copies)
        rows, copies = rows[kept], copies[kept]
        sizes = np.cumsum(rows["bytes"].astype(np.int64) * copies)
        start = before = 0
        while start < len(kept):
            room = limit - self.shards[-1].counts.bytes if self.shards else -1
            stop = int(np.searchsorted(sizes, before + room, side="right"))
            if stop <= start:  # a new one, which takes at least one document, however large that is
                self.shards.append(self._next())
                stop = max(int(np.searchsorted(sizes, before + limit, side="right")), start + 1)
            shard, taken = self.shards[-1], slice(start, stop)
            shard.takes.append(take._replace(start=int(kept[start]), stop=int(kept[stop - 1]) + 1))
            shard.counts = added(shard.counts, _counts(rows[taken], copies[taken]))
            start, before = stop, int(sizes[stop - 1])

    def _next(self) -> Shard:
        ending = ENDINGS[self._config.compression]
        return Shard(
            self._name, self._side, f"{self._side}/{self._name}-{len(self.shards):05d}.jsonl{ending}"
        )


def _counts(rows: NDArray[Any], copies: Decisions) -> PartCounts:
    def total(name: str) -> int:
        return int((rows[name].astype(np.int64) * copies).sum())

    return PartCounts(
        documents=int(copies.sum(dtype=np.int64)),
        characters=total("characters"),
        bytes=total("bytes"),
        whitespace_tokens=total("words"),
    )


@contextlib.contextmanager
def _compressed(stream: IO[bytes], config: ShardsConfig) -> Iterator[IO[bytes]]:
    """The stream behind the compression; the same bytes whenever they are written."""
    if config.compression == "zst":
        with zstd.ZstdFile(stream, "wb", level=ZSTD_LEVEL) as output:
            yield cast(IO[bytes], output)
    elif config.compression == "gz":
        with gzip.GzipFile("", "wb", GZIP_LEVEL, stream, mtime=0) as output:
            yield cast(IO[bytes], output)
    else:
        yield stream
