"""Kernels read where their arguments say; shapes that do not fit must not get so far."""


def check(*, fits: bool, what: str) -> None:
    """Refuse shapes.

    Raises:
        ValueError: ``fits`` is false; its text is ``what``.
    """
    if not fits:
        raise ValueError(what)
