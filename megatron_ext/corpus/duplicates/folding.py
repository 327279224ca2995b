"""What MinHash does not look at: case, accents, digits, punctuation and white space, as in FineWeb2."""

import functools
import sys
import unicodedata

import numpy as np

from megatron_ext._C import Folding

_SEPARATING = {"P", "S", "Z"}
_DROPPED = {"Mn", "Cf"}
_PRIVATE_OR_NOT_ASSIGNED = {"Cn", "Co", "Cs"}


@functools.cache
def folding() -> Folding:
    """The table for every code point, made once a process.

    It follows ``simplify_text`` of datatrove, which FineWeb2 used: lower case, canonical decomposition without
    nonspacing marks, digits as one 0. Three things differ, each so that it holds in every script: case is folded
    (so that ß is ss, and a final sigma any sigma), the punctuation is Unicode's (P and S) instead of a list, and
    it ends a word instead of vanishing. Format characters (Cf, such as a soft hyphen) vanish.
    """
    folds = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    expansions: list[int] = []
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        category = unicodedata.category(character)
        if category in _PRIVATE_OR_NOT_ASSIGNED:
            continue
        if category in _DROPPED:
            folds[code] = Folding.DROPPED
        elif category[0] in _SEPARATING or category == "Cc":
            folds[code] = Folding.SEPARATOR
        elif category == "Nd":
            folds[code] = Folding.DIGIT
        else:
            folded = _folded(character)
            if len(folded) == 1:
                folds[code] = ord(folded)
            else:
                folds[code] = Folding.EXPANSION + 16 * len(expansions) + len(folded)
                expansions += map(ord, folded)
    return Folding(folds, np.array(expansions, dtype=np.uint32))


def _folded(character: str) -> str:
    decomposed = unicodedata.normalize("NFD", character.casefold())
    return "".join(one for one in decomposed if unicodedata.category(one) not in _DROPPED)
