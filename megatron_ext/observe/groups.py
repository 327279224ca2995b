"""Sets by what they have in common: the groups that metrics count loss and tokens under."""

from collections.abc import Mapping, Sequence

LABEL = "label"
"""The dimension that every set has a value of: its name, unless its ``groups`` say another."""

Groups = Mapping[str, Mapping[str, Sequence[int]]]
"""By dimension, such as ``tier``, and value, such as ``high``: positions of the sets that have it."""


def group_sets(
    names: Sequence[str], groups: Sequence[Mapping[str, str]], *, per_label: bool | None
) -> Groups:
    """The sets of each group, in the order of their first mention; a set without a dimension is in none of its groups.

    Args:
        names: of the sets.
        groups: value by dimension, of each set.
        per_label: whether labels are a dimension; None: if any set has groups.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for position, (name, own) in enumerate(zip(names, groups, strict=True)):
        for dimension, value in {LABEL: name, **own}.items():
            found.setdefault(dimension, {}).setdefault(value, []).append(position)
    if not (any(groups) if per_label is None else per_label):
        found.pop(LABEL, None)
    return found
