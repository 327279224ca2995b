"""The first step: rows of a part become labelled, clean documents with hashes and sizes, one chunk after the other."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.builder.labelling import Declared, Labeller
from megatron_ext.corpus.builder.part_file import RECORD, Keys, PartFile, PartWriter, Tally
from megatron_ext.corpus.builder.parts import Part
from megatron_ext.corpus.builder.read import read_piece
from megatron_ext.corpus.builder.rows import Rows, SourceRows
from megatron_ext.corpus.builder.workers import Advance
from megatron_ext.corpus.cleaning.cleaner import Cleaner
from megatron_ext.corpus.duplicates.content import content_hashes
from megatron_ext.corpus.duplicates.keys import scoped
from megatron_ext.corpus.duplicates.minhash import signatures
from megatron_ext.corpus.labels.detect import scripts_of
from megatron_ext.corpus.manifest import Manifest
from megatron_ext.errors import CorpusError, DataError

UNIDENTIFIED = "language_unidentified"
OTHER_SCRIPT = "script_disagreement"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Settings:
    """What every worker needs."""

    manifest: Manifest
    folder: Path  # of parts


@dataclass
class Account:
    """What became of a part's documents so far, and the first that each rule removed."""

    examples_wanted: int
    tally: Tally = field(default_factory=Tally)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def remove(self, rule: str, text: str, source: str) -> None:
        """Count a document that a rule removed, and keep the text of some."""
        removed = self.tally.removed
        removed[rule] = removed.get(rule, 0) + 1
        if removed[rule] <= self.examples_wanted:
            self.examples.setdefault(rule, []).append(_encode({"text": text, "source": source}))


@dataclass
class Document:
    """One that is still in."""

    text: str
    category: str
    declared: Declared | None  # None: to be identified
    script: str | None  # that is seen: ISO 15924
    label: str = ""


class PartMaker:
    """Makes parts; holds the tables and models for it."""

    def __init__(self, settings: Settings) -> None:
        """Load tables and models.

        Raises:
            CorpusError, ConfigError, MissingDependencyError: one of them is missing or wrong.
        """
        self.manifest, self.folder = settings.manifest, settings.folder
        self.labeller = Labeller(self.manifest)
        self.cleaner = Cleaner(self.manifest.cleaning)

    def fingerprint(self) -> dict[str, Any]:
        """All that decides what becomes of a text, besides its source; as JSON."""
        whole = dict.fromkeys(("labels", "cleaning", "max_document_bytes", "removed_examples"), True)
        decisive = whole | {"duplicates": {"exact", "minhash"}}
        return {
            "manifest": self.manifest.model_dump(mode="json", include=decisive),
            "labels": self.labeller.fingerprint(),
        }

    def make(self, part: Part, advance: Advance) -> None:
        """Write the files of a part.

        Raises:
            CorpusError: a row is bad and is not to be skipped, or a file cannot be read or written.
        """
        source, account = part.source, Account(self.manifest.removed_examples)
        rows_of = SourceRows(source, self.labeller, account.tally, self.manifest.max_document_bytes)
        try:
            with PartWriter(PartFile(self.folder, part.name)) as writer:
                for piece in part.pieces:
                    for chunk in read_piece(piece, source.keys, self.manifest.max_document_bytes):
                        rows = rows_of.take(chunk, piece)
                        self._write(self._kept(rows, source.name, account), source.name, writer)
                        advance(chunk.file_bytes, len(rows.texts))
                writer.finish(account.tally, {rule: tuple(lines) for rule, lines in account.examples.items()})
        except (DataError, CorpusError) as error:
            raise CorpusError(f"source {source.name}: {error}") from error

    def _kept(self, rows: Rows, source: str, account: Account) -> list[Document]:
        """Documents that pass all rules, with their labels."""
        account.tally.documents += len(rows.texts)
        scripts = scripts_of(rows.texts)
        documents = [
            Document(*row) for row in zip(rows.texts, rows.categories, rows.declared, scripts, strict=True)
        ]
        cleaned = [one for group in _by_category(documents) for one in self._clean(group, source, account)]
        self._identify([one for one in cleaned if one.declared is None])
        return [one for one in cleaned if self._label(one, source, account)]

    def _clean(self, documents: list[Document], source: str, account: Account) -> list[Document]:
        scripts = [self.labeller.script_of(one.declared, one.script) for one in documents]
        results = self.cleaner.clean([one.text for one in documents], scripts, documents[0].category)
        kept, repaired = [], account.tally.repaired
        for document, result in zip(documents, results, strict=True):
            for repair in result.repairs:
                repaired[repair] = repaired.get(repair, 0) + 1
            if result.text is None:
                account.remove(result.removed_by or "", document.text, source)
            else:
                document.text = result.text
                kept.append(document)
        return kept

    def _identify(self, documents: list[Document]) -> None:
        if documents:
            found = self.labeller.identify([one.text for one in documents])
            for document, declared in zip(documents, found, strict=True):
                document.declared = declared

    def _label(self, document: Document, source: str, account: Account) -> bool:
        """Whether the document gets a label and stays."""
        if document.declared is None:
            account.remove(UNIDENTIFIED, document.text, source)
            return False
        labelled = self.labeller.label(document.declared, document.script)
        if labelled.disagreement is not None:
            counts = account.tally.disagreements
            counts[labelled.disagreement] = counts.get(labelled.disagreement, 0) + 1
        if labelled.label is None:
            account.remove(OTHER_SCRIPT, document.text, source)
            return False
        document.label = labelled.label
        return True

    def _write(self, documents: Sequence[Document], source: str, writer: PartWriter) -> None:
        if not documents:
            return
        texts, labels = [one.text for one in documents], [one.label for one in documents]
        hashes = content_hashes(texts)[:, 0]
        records = np.zeros(len(documents), RECORD)
        records["hash"] = hashes
        records["characters"] = [len(text) for text in texts]
        records["bytes"] = [len(text.encode()) for text in texts]
        records["words"] = [len(text.split()) for text in texts]
        writer.add(
            [f"{one.category}/{one.label}" for one in documents],
            [f"{_encode({'text': text, 'source': source})}\n".encode() for text in texts],
            records,
            self._keys(texts, [one.script for one in documents], labels, hashes),
        )

    def _keys(
        self, texts: list[str], scripts: list[str | None], labels: list[str], hashes: NDArray[np.uint64]
    ) -> Keys:
        """What duplicates share; near-duplicates are those of one label, whatever their category."""
        config = self.manifest.duplicates
        exact = scoped(hashes, labels) if config.exact == "label" else hashes
        if config.minhash is None:
            return Keys(exact, np.empty((len(texts), 0), np.uint64))
        return Keys(exact, scoped(signatures(texts, scripts, config.minhash), labels))


def make_part(maker: PartMaker, part: Part, advance: Advance) -> None:
    """`PartMaker.make`, as workers call it."""
    maker.make(part, advance)


def _by_category(documents: Sequence[Document]) -> list[list[Document]]:
    groups: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        groups[document.category].append(document)
    return list(groups.values())
