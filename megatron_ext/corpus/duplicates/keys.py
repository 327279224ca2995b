"""Keys: 64-bit hashes by which documents are found to be duplicates of each other."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NO_KEY = np.uint64(0)  # in the place of a key that a document does not have


def scoped(keys: NDArray[np.uint64], scopes: Sequence[str]) -> NDArray[np.uint64]:
    """Keys that are equal only within one scope, such as a label: documents of two scopes never share one.

    Args:
        keys: uint64 ``[n]`` or ``[n, columns]``, well mixed.
        scopes: one for each row.

    Returns:
        uint64 of the shape of ``keys``; ``NO_KEY`` stays what it is.
    """
    salts = {
        scope: int.from_bytes(hashlib.blake2b(scope.encode(), digest_size=8).digest(), "little")
        for scope in set(scopes)
    }
    row_salts = np.array([salts[scope] for scope in scopes], dtype=np.uint64)
    salted = keys ^ row_salts.reshape(-1, *(1 for _ in keys.shape[1:]))
    return np.where(keys == NO_KEY, keys, salted)
