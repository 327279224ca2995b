"""The input in parts, each of which one worker makes in one go: what is remembered after a kill."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_ext.corpus.manifest import Manifest, SourceConfig
from megatron_ext.data.preprocess_open import COMPRESSIONS, STDIN
from megatron_ext.data.preprocess_plan import TEXT_IN_COMPRESSED, InputIdentity
from megatron_ext.data.preprocess_read import find_inputs, kind_of
from megatron_ext.errors import CorpusError, DataError

PART_BYTES = 32 << 20  # of text, roughly: seconds of work, so that a kill costs little and cores end together
VERSION = 1  # of what is made of a text; another makes every part anew


@dataclass(frozen=True)
class Piece:
    """A file, or the lines of one that begin in a range of its bytes."""

    identity: InputIdentity
    kind: str  # .jsonl, .txt, …, whatever the name ends in
    start: int
    end: int

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.identity.path)

    @property
    def load(self) -> int:
        """Bytes of text, roughly."""
        return (self.end - self.start) * (TEXT_IN_COMPRESSED if self.path.suffix in COMPRESSIONS else 1)


@dataclass(frozen=True)
class Part:
    """Some consecutive text of one source.

    Attributes:
        source: where it comes from.
        pieces: its files or their ranges, in order.
        name: of its files. A hash of all that they depend on, so a file of this name is right, and complete.
    """

    source: SourceConfig
    pieces: tuple[Piece, ...]
    name: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(piece.end - piece.start for piece in self.pieces)

    @property
    def load(self) -> int:
        """Bytes of text, roughly."""
        return sum(piece.load for piece in self.pieces)


def plan_parts(manifest: Manifest, settings: dict[str, Any]) -> list[Part]:
    """All parts in the order of the manifest; they depend on nothing but the files and ``settings``.

    Args:
        manifest: names the sources.
        settings: everything else that decides what becomes of a text, as JSON.

    Raises:
        CorpusError: a source has no files, or one that cannot be read; the text names the source.
        MissingDependencyError: pyarrow is needed and not there.
    """
    parts = []
    for source in manifest.sources:
        decisive = {"version": VERSION, "settings": settings, "source": source.model_dump(mode="json")}
        for pieces in _grouped(_pieces(source)):
            content = json.dumps([decisive, [_plain(piece) for piece in pieces]], sort_keys=True)
            name = hashlib.sha256(content.encode()).hexdigest()[:24]
            parts.append(Part(source, pieces, name))
    return parts


def _pieces(source: SourceConfig) -> Iterator[Piece]:
    """Uncompressed lines are cut where they are long; everything else has to be read from its beginning."""
    for path in _files(source):
        identity, kind = InputIdentity.of(path), kind_of(path, source.format)
        divisible = kind == ".jsonl" and path.suffix not in COMPRESSIONS
        step = PART_BYTES if divisible else max(identity.size, 1)
        for start in range(0, max(identity.size, 1), step):
            yield Piece(identity, kind, start, min(start + step, identity.size))


def _files(source: SourceConfig) -> list[Path]:
    paths = [Path(name) for name in source.files]
    if STDIN in paths:
        raise CorpusError(f"source {source.name}: standard input cannot be read twice; name files")
    try:
        files = find_inputs(paths, source.format)
    except DataError as error:
        raise CorpusError(f"source {source.name}: {error}") from error
    twice = (
        next((path for path in files if files.count(path) > 1), None)
        if len(set(files)) < len(files)
        else None
    )
    if twice is not None:
        raise CorpusError(f"source {source.name}: {twice} is named twice; name it once")
    keys = set(source.keys) - {"text"}
    plain = next((path for path in files if kind_of(path, source.format) == ".txt"), None)
    if plain is not None and (keys or source.text_key != ("text",)):
        named = ", ".join(sorted(keys)) or "several keys"
        raise CorpusError(
            f"source {source.name}: {plain} is plain text, which has no {named}; it is one document under the key text"
        )
    return files


def _grouped(pieces: Iterator[Piece]) -> Iterator[tuple[Piece, ...]]:
    """Consecutive pieces up to `PART_BYTES` of text together: many small files are few parts."""
    group: list[Piece] = []
    room = PART_BYTES
    for piece in pieces:
        if group and piece.load > room:
            yield tuple(group)
            group, room = [], PART_BYTES
        group.append(piece)
        room -= piece.load
    if group:
        yield tuple(group)


def _plain(piece: Piece) -> Sequence[object]:
    return piece.identity.model_dump(mode="json"), piece.kind, piece.start, piece.end
