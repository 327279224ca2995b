"""The second step: of each cluster of duplicates one document is kept, or some copies of it."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.builder.decide import EXACT, NEAR, Candidate
from megatron_ext.corpus.builder.job import Job
from megatron_ext.corpus.builder.part_file import PartFile, writing
from megatron_ext.corpus.duplicates.clusters import DuplicateClusters
from megatron_ext.corpus.duplicates.records import RecordFile
from megatron_ext.corpus.manifest import DuplicatesConfig
from megatron_ext.utils.atomic import atomic_file


def find_duplicates(job: Job) -> list[Candidate]:
    """Write the outcome of every document, in one process.

    Memory is ``duplicates.memory_bytes`` and 9 bytes for each document of the corpus.

    Returns:
        All parts, in order.

    Raises:
        CorpusError: a file of a part is damaged, or one cannot be written.
    """
    files = [job.file(part) for part in job.parts]
    ends = [0, *itertools.accumulate(len(file.records()) for file in files)]
    outcomes = _outcomes(files, ends, job.manifest.duplicates)
    candidates = []
    for part, file, (start, end) in zip(job.parts, files, itertools.pairwise(ends), strict=True):
        candidate = Candidate(
            part.source.name,
            file,
            job.steps_folder / f"{part.name}.outcomes.npy",
            job.steps_folder / f"{part.name}.decisions.npy",
        )
        with writing(job.steps_folder), atomic_file(candidate.outcomes) as stream:
            np.save(stream, outcomes[start:end][file.records()["place"]])
        candidates.append(candidate)
    return candidates


def _outcomes(files: Sequence[PartFile], ends: Sequence[int], config: DuplicatesConfig) -> NDArray[np.int8]:
    """int8 of all documents, in the order in which they were read: `decide.Outcomes`."""

    def records(kind: str) -> list[RecordFile]:
        of_parts = (file.key_files(kind, first) for file, first in zip(files, ends, strict=False))
        return [one for of_part in of_parts for one in of_part]

    exact = records("exact") if config.exact != "off" else []
    unique = DuplicateClusters(ends[-1])
    unique.join(exact, config.memory_bytes)
    outcomes = unique.copies(rehydrate=config.rehydrate and config.minhash is None).astype(np.int8)
    outcomes[outcomes == 0] = EXACT
    if config.minhash is not None:
        unique.join(records("bands"), config.memory_bytes)
        copies = unique.copies(rehydrate=config.rehydrate).astype(np.int8)
        outcomes = np.where(copies > 0, copies, np.where(outcomes == EXACT, EXACT, NEAR)).astype(np.int8)
    return outcomes
