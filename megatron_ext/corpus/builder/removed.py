"""Texts of documents that were removed as duplicates, for a look; the first step keeps those of its own rules."""

import json
from collections.abc import Sequence

import numpy as np

from megatron_ext.corpus.builder.decide import RULES, Candidate


def examples_of_duplicates(candidates: Sequence[Candidate], wanted: int) -> dict[str, list[str]]:
    """The first ``wanted`` documents of each of `RULES`, as lines of ``removed/RULE.jsonl``."""
    examples: dict[str, list[str]] = {}
    for candidate in candidates:
        if all(len(examples.get(rule, ())) >= wanted for rule in RULES.values()):
            break
        outcomes = np.load(candidate.outcomes)
        for segment in candidate.file.complete_index().segments:
            own = outcomes[segment.rows]
            if (own > 0).all():
                continue
            lines = candidate.file.lines(segment)
            for number, rule in RULES.items():
                found = examples.setdefault(rule, [])
                for row in np.flatnonzero(own == number)[: wanted - len(found)]:
                    found.append(
                        json.dumps(json.loads(lines[row]) | {"set": segment.set}, ensure_ascii=False)
                    )
    return {rule: lines for rule, lines in examples.items() if lines}
