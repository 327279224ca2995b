import numpy as np

from megatron_ext.corpus.builder.decide import Candidate
from megatron_ext.data.preprocess_ranks import first
from megatron_ext.utils.atomic import atomic_file


def find_duplicates(job, ranks, workers):
    return first(ranks, lambda: _find(job))


def _find(job):
    seen = set()
    out = []
    folder = job.steps_folder
    for n, part in enumerate(job.parts):
        file = job.file(part)
        rec = file.records()
        oc = np.ones(len(rec), np.int16)
        for i, h in enumerate(map(tuple, rec["hash"].tolist())):
            if h in seen:
                oc[i] = -1
            seen.add(h)
        p = folder / f"{part.name}.outcomes.npy"
        with atomic_file(p) as s:
            np.save(s, oc)
        out.append(Candidate(part.source.name, file, p, folder / f"{part.name}.decisions.npy"))
    return out
