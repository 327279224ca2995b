"""From paths and patterns of the ``data`` section to open sets with names of their own."""

import glob
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from megatron_ext.config.section_data import DatasetConfig
from megatron_ext.data.indexed import DatasetStatistics, IndexedDataset, bin_path, idx_path
from megatron_ext.data.samples import TokenSet
from megatron_ext.data.split import split_boundaries
from megatron_ext.errors import DataError

NAME_SUFFIX = "_text_document"


@dataclass(frozen=True)
class Entry:
    """The sets that one item of a list, such as ``data.train``, names."""

    key: str
    config: DatasetConfig
    sets: tuple[TokenSet, ...]

    def part(self, split: str | None, part: int) -> "Entry":
        """The entry with only the documents that ``data.split`` gives to part 0, 1 or 2 (all without one)."""
        if split is None:
            return self
        return replace(self, sets=tuple(part_of_split(tokens, split, part) for tokens in self.sets))


@dataclass
class SetOpener:
    """Opens each set once, however many lists name it.

    Two maps a set, and no descriptors: Linux allows a process 65,530 maps, so about 32,000 sets.
    """

    opened: dict[Path, IndexedDataset] = field(default_factory=dict)
    statistics: dict[Path, DatasetStatistics | None] = field(default_factory=dict)

    def open(self, lists: Mapping[str, Sequence[DatasetConfig]]) -> dict[str, list[Entry]]:
        """Open all sets that lists of entries name; those that are in one list twice are refused.

        Args:
            lists: by key, such as ``data.train``. Names tell all their sets apart.

        Raises:
            DataError: a path names nothing, or a set is damaged or comes twice in its list.
        """
        prefixes = {key: _prefixes(key, entries) for key, entries in lists.items()}
        names = _names(dict.fromkeys(p for found in prefixes.values() for one in found for p in one))
        return {
            key: [
                Entry(
                    f"{key}[{i}]",
                    entry,
                    tuple(self._open(prefix, names[prefix], entry.groups) for prefix in found),
                )
                for i, (entry, found) in enumerate(zip(entries, prefixes[key], strict=True))
            ]
            for key, entries in lists.items()
        }

    def _open(self, prefix: Path, name: str, groups: Mapping[str, str]) -> TokenSet:
        if prefix not in self.opened:
            if not bin_path(prefix).exists():
                raise DataError(
                    f"{bin_path(prefix)}: missing beside {idx_path(prefix)}; preprocess the text again"
                )
            self.opened[prefix] = IndexedDataset(prefix)
            self.statistics[prefix] = DatasetStatistics.read(prefix)
        dataset = self.opened[prefix]
        return TokenSet(name, dataset, 0, dataset.num_sequences, self.statistics[prefix], groups)


def sets_of(entries: Iterable[Entry]) -> list[TokenSet]:
    """All sets of a list, entry by entry."""
    return [tokens for entry in entries for tokens in entry.sets]


def _prefixes(key: str, entries: Sequence[DatasetConfig]) -> list[list[Path]]:
    """Prefixes of each entry."""
    owners: dict[Path, str] = {}
    found = []
    for index, entry in enumerate(entries):
        entry_key = f"{key}[{index}]"
        found.append(_expand(entry_key, entry.path))
        for prefix in found[-1]:
            if prefix in owners:
                raise DataError(f"{prefix}: named by {owners[prefix]} and by {entry_key}; name each set once")
            owners[prefix] = entry_key
    return found


def _expand(key: str, path: str) -> list[Path]:
    """Prefixes that a path or pattern names, sorted."""
    if path.endswith((".bin", ".idx")):
        raise DataError(f"{key}: {path}: give the prefix, without {path[-4:]}")
    if idx_path(Path(path)).exists():  # a literal name may hold brackets
        return [Path(path)]
    # Path.glob takes no absolute pattern.
    matches = sorted(glob.glob(f"{path}.idx", recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207
    if not matches:
        raise DataError(
            f"{key}: no dataset matches {path} (looked for {path}.idx); tools/preprocess_data.py makes them"
        )
    return [Path(match.removesuffix(".idx")) for match in matches]


def _names(prefixes: Iterable[Path]) -> dict[Path, str]:
    """File stems; where two are equal, as many folders before them as tell them apart."""
    names = {path: path.name.removesuffix(NAME_SUFFIX) for path in prefixes}
    depth = 0
    while alike := _alike(names, depth := depth + 1):
        for path in alike:
            names[path] = f"{path.parts[-1 - depth]}/{names[path]}"
    return names


def _alike(names: Mapping[Path, str], depth: int) -> list[Path]:
    """Paths that share a name with another and have a folder more than ``depth - 1`` to add."""
    counts = Counter(names.values())
    return [path for path, name in names.items() if counts[name] > 1 and depth < len(path.parts)]


def part_of_split(tokens: TokenSet, split: str, part: int) -> TokenSet:
    """Only the documents that ``data.split`` gives to training (0), validation (1) or test (2)."""
    first, end = split_boundaries(split, tokens.dataset.num_sequences)[part]
    return replace(tokens, first_sequence=first, end_sequence=end)
