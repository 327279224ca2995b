"""Names that a mixture gives and the corpus does not have."""

import difflib
from collections.abc import Sequence

SHOWN = 3


def unknown(key: str, name: str, names: Sequence[str]) -> str:
    """A line that refuses a name, with the nearest of those there are."""
    nearest = difflib.get_close_matches(name, names, n=SHOWN)
    if nearest:
        return f"{key}: there is no {name}; did you mean {', '.join(nearest)}?"
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{key}: there is no {name}; there are {shown or 'none'}"
