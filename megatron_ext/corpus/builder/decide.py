"""Behind the search for duplicates: which documents train, which validate, which are left out."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.builder.held_out import Hashes, HeldOut, among, union
from megatron_ext.corpus.builder.part_file import PartFile, writing
from megatron_ext.corpus.builder.shards import Decisions
from megatron_ext.corpus.manifest import ValidationConfig
from megatron_ext.utils.atomic import atomic_file

# Of a part's documents: how often each is kept, or the number of a rule in `RULES`.
Outcomes = NDArray[np.int8]
EXACT, NEAR = -1, -2
RULES = {EXACT: "exact_duplicate", NEAR: "near_duplicate"}
HELD_OUT = "validates_elsewhere"


class Candidate(NamedTuple):
    """A part behind the search for duplicates."""

    source: str
    file: PartFile
    outcomes: Path  # .npy: `Outcomes`
    decisions: Path  # .npy, to be written: `Decisions`


class Decided(NamedTuple):
    """What was decided in all parts."""

    sources: dict[str, Counter[str]]  # by set: documents that are kept, by source
    removed: Counter[str]  # documents, by rule; `HELD_OUT`: another set validates with the same text


def decide(candidates: Sequence[Candidate], config: ValidationConfig) -> Decided:
    """Write the decisions of every part. Memory is one part's records and the held-out hashes of all sets.

    Raises:
        CorpusError: they cannot be written.
    """
    held_out: dict[str, HeldOut] = defaultdict(lambda: HeldOut(config))
    for candidate in candidates:
        for name, rows, outcomes in sets_of(candidate):
            held_out[name].add(np.ascontiguousarray(rows["hash"])[outcomes > 0])
    chosen = {name: one.hashes() for name, one in held_out.items()}
    of_all = union(chosen.values())
    decided = Decided(defaultdict(Counter), Counter())
    for candidate in candidates:
        _write(candidate, chosen, of_all, decided)
    return decided


def sets_of(candidate: Candidate) -> Iterator[tuple[str, NDArray[Any], Outcomes]]:
    """Set, records and outcomes of each segment, in order."""
    index = candidate.file.complete_index()
    records, outcomes = candidate.file.records(), np.load(candidate.outcomes)
    for segment in index.segments:
        yield segment.set, records[segment.rows], outcomes[segment.rows]


def _write(candidate: Candidate, chosen: dict[str, Hashes], of_all: Hashes, decided: Decided) -> None:
    """Decide a part, and count."""
    decisions: list[Decisions] = [np.empty(0, np.int16)]
    for name, rows, outcomes in sets_of(candidate):
        hashes, kept = np.ascontiguousarray(rows["hash"]), outcomes > 0
        validates = kept & among(hashes, chosen[name])
        elsewhere = kept & ~validates & among(hashes, of_all)
        trains = np.where(kept & ~elsewhere, outcomes, 0).astype(np.int16)
        decisions.append(np.where(validates, np.int16(-1), trains))
        decided.sources[name][candidate.source] += int((kept & ~elsewhere).sum())
        decided.removed[HELD_OUT] += int(elsewhere.sum())
        for number, rule in RULES.items():
            decided.removed[rule] += int((outcomes == number).sum())
    with writing(candidate.decisions), atomic_file(candidate.decisions) as stream:
        np.save(stream, np.concatenate(decisions))
