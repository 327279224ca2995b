"""What is kept of a part between the steps: its documents as lines of a shard, by set, and facts of each.

A part has a few files. ``NAME.zst`` holds segments, each a zstd frame of the lines of one set. ``NAME.npy`` holds a
record of each document, in the same order. ``NAME.exact0`` and ``NAME.bands0`` hold the keys by which duplicates are
found, of so many documents as can be sorted at once, ``NAME.exact1`` and so on those of more. ``NAME.json`` says where
the segments are and what was counted; it is written last, so that a part with it is complete.
"""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_ext.corpus.duplicates.records import RecordFile, write_records
from megatron_ext.data.preprocess_open import zstd
from megatron_ext.data.preprocess_rows import Skipped
from megatron_ext.errors import CorpusError
from megatron_ext.utils.atomic import atomic_file, write_text

SEGMENT_BYTES = 32 << 20  # of lines in memory before they are written
DOCUMENTS_OF_KEYS = 1 << 18  # whose keys are sorted together; some 100 MB
LEVEL = 1  # of zstd: these files are read once or twice


RECORD = np.dtype(
    [
        ("place", "<u4"),  # of the document in its part, as it was read
        ("hash", "<u8"),  # of its text
        ("bytes", "<u4"),
        ("characters", "<u4"),
        ("words", "<u4"),  # between white space
    ]
)


class Keys(NamedTuple):
    """What duplicates have in common, of some documents.

    Attributes:
        exact: uint64 [documents].
        bands: uint64 [documents, bands]; no bands where near-duplicates are not looked for.
    """

    exact: NDArray[np.uint64]
    bands: NDArray[np.uint64]


class Segment(BaseModel):
    """Documents of one set, consecutive in the part's order.

    Attributes:
        set: ``category/label``.
        offset: of the frame in ``NAME.zst``.
        size: of the frame.
        first: number of the first of its records.
        documents: how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    set: str
    offset: int
    size: int
    first: int
    documents: int

    @property
    def rows(self) -> slice:
        """Its records."""
        return slice(self.first, self.first + self.documents)


class Tally(BaseModel):
    """What became of the documents of a part."""

    model_config = ConfigDict(extra="forbid")

    documents: int = 0
    text_bytes: int = 0  # of UTF-8, as it came
    skipped: Skipped = Field(default_factory=Skipped)  # bad rows
    removed: dict[str, int] = {}  # documents, by rule
    repaired: dict[str, int] = {}  # documents, by rule
    disagreements: dict[str, int] = {}  # documents, by "declared label, script seen"

    def add(self, later: "Tally") -> None:
        """Count what comes behind."""
        self.documents += later.documents
        self.text_bytes += later.text_bytes
        self.skipped.merge(later.skipped)
        for own, other in (
            (self.removed, later.removed),
            (self.repaired, later.repaired),
            (self.disagreements, later.disagreements),
        ):
            for name, count in other.items():
                own[name] = own.get(name, 0) + count


class PartIndex(BaseModel):
    """The content of ``NAME.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segments: tuple[Segment, ...]
    documents_of_keys: tuple[int, ...]  # of the first file of keys, and so on
    tally: Tally
    removed_examples: dict[str, tuple[str, ...]] = {}  # lines of removed/RULE.jsonl


@dataclass(frozen=True)
class PartFile:
    """A part on disk."""

    folder: Path
    name: str

    def path(self, suffix: str) -> Path:
        """One of its files."""
        return self.folder / f"{self.name}{suffix}"

    def index(self) -> PartIndex | None:
        """What it holds; None if it is not complete."""
        try:
            return PartIndex.model_validate_json(self.path(".json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def key_files(self, kind: str, first_document: int) -> list[RecordFile]:
        """Those of ``exact`` or of ``bands``.

        Args:
            kind: field of `Keys`.
            first_document: number of the first document of this part among all.
        """
        counts = self.complete_index().documents_of_keys
        firsts = itertools.accumulate(counts, initial=first_document)
        return [RecordFile(self.path(f".{kind}{number}"), next(firsts)) for number in range(len(counts))]

    def complete_index(self) -> PartIndex:
        """What it holds.

        Raises:
            CorpusError: it is not complete, though it was.
        """
        index = self.index()
        if index is None:
            raise CorpusError(f"{self.path('.json')}: gone or damaged; the same command makes it again")
        return index

    def records(self) -> NDArray[Any]:
        """Facts of its documents, mapped from the file: [documents]."""
        records: NDArray[Any] = np.load(self.path(".npy"), mmap_mode="r")
        return records

    def lines(self, segment: Segment) -> list[bytes]:
        """Lines of a segment, each with its end."""
        with self.path(".zst").open("rb") as stream:
            stream.seek(segment.offset)
            return zstd.decompress(stream.read(segment.size)).splitlines(keepends=True)


@dataclass
class _Pending:
    lines: list[bytes] = field(default_factory=list)
    records: list[NDArray[Any]] = field(default_factory=list)


class PartWriter:
    """Writes the files of a part; nothing of them stays after an error."""

    def __init__(self, file: PartFile) -> None:
        self._file = file
        self._pending: dict[str, _Pending] = {}
        self._pending_bytes = self._offset = self._rows = self._places = 0
        self._segments: list[Segment] = []
        self._records: list[NDArray[Any]] = []
        self._keys: list[Keys] = []
        self._documents_of_keys: list[int] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(writing(self._file.folder))
        self._stream = self._stack.enter_context(atomic_file(self._file.path(".zst")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, sets: Sequence[str], lines: Sequence[bytes], records: NDArray[Any], keys: Keys) -> None:
        """Append documents.

        Args:
            sets: of each, ``category/label``.
            lines: of each, in its shard.
            records: `RECORD` of each, without its place.
            keys: of each.
        """
        records["place"] = np.arange(self._places, self._places + len(records))
        self._places += len(records)
        self._keys.append(keys)
        if sum(len(some.exact) for some in self._keys) >= DOCUMENTS_OF_KEYS:
            self._flush_keys()
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(sets):
            rows_of[name].append(row)
        for name, rows in rows_of.items():
            pending = self._pending.setdefault(name, _Pending())
            pending.lines.extend(lines[row] for row in rows)
            pending.records.append(records[rows])
        self._pending_bytes += sum(map(len, lines))
        if self._pending_bytes >= SEGMENT_BYTES:
            self._flush()

    def finish(self, tally: Tally, removed_examples: dict[str, tuple[str, ...]]) -> PartIndex:
        """Write the rest; the index comes last, when all else has its name."""
        self._flush()
        self._flush_keys()
        self._stack.close()
        index = PartIndex(
            segments=tuple(self._segments),
            documents_of_keys=tuple(self._documents_of_keys),
            tally=tally,
            removed_examples=removed_examples,
        )
        with writing(self._file.folder):
            with atomic_file(self._file.path(".npy")) as stream:
                np.save(stream, np.concatenate([np.empty(0, RECORD), *self._records]))
            write_text(self._file.path(".json"), index.model_dump_json())
        return index

    def _flush_keys(self) -> None:
        if not self._keys:
            return
        number, keys = len(self._documents_of_keys), Keys(*map(np.concatenate, zip(*self._keys, strict=True)))
        for kind, column in keys._asdict().items():
            write_records(self._file.path(f".{kind}{number}"), column)
        self._documents_of_keys.append(len(keys.exact))
        self._keys = []

    def _flush(self) -> None:
        for name, pending in sorted(self._pending.items()):
            frame = zstd.compress(b"".join(pending.lines), LEVEL)
            self._stream.write(frame)
            documents = len(pending.lines)
            segment = Segment(
                set=name, offset=self._offset, size=len(frame), first=self._rows, documents=documents
            )
            self._segments.append(segment)
            self._records += pending.records
            self._offset += len(frame)
            self._rows += documents
        self._pending, self._pending_bytes = {}, 0


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system says inside the block, such as a full disk, into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise CorpusError(
            f"{folder}: cannot be written: {error.strerror or error}; what is complete is kept: the same command "
            "goes on when there is room"
        ) from error
