"""Which texts are one and the same: a hash of each text's content."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def content_hashes(texts: Sequence[str]) -> NDArray[np.uint64]:
    """128 bits of each text, for finding exact duplicates and for deciding on which side of a split a text is.

    Texts are the same if they are equal without the white space around them. Nothing else is normalized: what is
    trained on is the text itself (cleaning has composed it), and a hash that knows no table of Unicode stays the
    same with every version of Python and on every machine. BLAKE2b (RFC 7693) of the UTF-8, little endian.

    Returns:
        uint64 ``[len(texts), 2]``.
    """
    digests = b"".join(
        hashlib.blake2b(text.strip().encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for text in texts
    )
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2).astype(np.uint64)
