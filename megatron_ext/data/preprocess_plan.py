"""Which inputs become which datasets, and the parts in which the work is done and resumed."""

import dataclasses
import hashlib
import heapq
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from megatron_ext.data.preprocess_open import COMPRESSIONS, STDIN
from megatron_ext.data.preprocess_read import label, shard_name
from megatron_ext.errors import DataError

SMALL_BYTES = 4 << 20  # inputs in a row share a part up to this size: a part costs some 10 ms
# How files are called where they are made, and in the end, in the order in which they take their names. While
# they are made, statistics do not look like an input, which a .json without .idx does.
SUFFIXES = {".bin": ".bin", ".idx": ".idx", ".statistics": ".json"}
TEXT_IN_COMPRESSED = 4  # bytes of text for one of a compressed file, roughly: it only balances the load


class InputIdentity(BaseModel):
    """An input as it was when the work was planned: another size or time of change is another text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "InputIdentity":
        """Look at the file; standard input is never the same twice."""
        if path == STDIN:
            return cls(path=str(path), size=0, mtime_ns=time.time_ns())
        status = path.stat()
        return cls(path=str(path.absolute()), size=status.st_size, mtime_ns=status.st_mtime_ns)


@dataclass(frozen=True)
class Part:
    """Tokens of an input, of some small ones, or of all inputs of a dataset, under every JSON key.

    Its files are made in a hidden folder. Those of a part with outputs move to them when they are complete.
    """

    folder: Path
    name: str
    inputs: tuple[Path, ...]
    identities: tuple[InputIdentity, ...]
    keys: int  # number of JSON keys
    outputs: tuple[Path, ...]  # prefixes of the datasets that it is, by JSON key; none for a piece of them

    @property
    def size(self) -> int:
        """Bytes of its inputs on disk."""
        return sum(identity.size for identity in self.identities)

    @property
    def load(self) -> int:
        """Bytes of text, roughly."""
        factors = (TEXT_IN_COMPRESSED if path.suffix in COMPRESSIONS else 1 for path in self.inputs)
        return sum(factor * identity.size for factor, identity in zip(factors, self.identities, strict=True))

    def prefix(self, key: int) -> Path:
        """Where its dataset for the JSON key of this number is made."""
        return self.folder / f"{self.name}_{key}"

    def statistics(self, key: int) -> Path:
        """Where the statistics of that dataset are made."""
        return Path(f"{self.prefix(key)}.statistics")

    def files(self, key: int) -> Iterator[tuple[Path, Path | None]]:
        """Those for a JSON key: where each is made, and the name that it takes in the end."""
        for made, final in SUFFIXES.items():
            output = Path(f"{self.outputs[key]}{final}") if self.outputs else None
            yield Path(f"{self.prefix(key)}{made}"), output

    def all_files(self) -> Iterator[tuple[Path, Path | None]]:
        """Those for all JSON keys."""
        for key in range(self.keys):
            yield from self.files(key)

    def __str__(self) -> str:
        more = f" and {len(self.inputs) - 1} more" if len(self.inputs) > 1 else ""
        return f"{label(self.inputs[0])}{more}"


class Loaded(Protocol):
    """A part of any work."""

    @property
    def load(self) -> int:
        """How much there is to do."""


AnyPart = TypeVar("AnyPart", bound=Loaded)


@dataclass(frozen=True)
class Job:
    """Inputs that become one dataset for each JSON key."""

    parts: tuple[Part, ...]  # in the order of the inputs; one part twice, if inputs are named twice
    whole: Part  # the datasets: the only part, or all parts one behind the other

    @property
    def folder(self) -> Path:
        """Where parts are made and remembered until the work is done."""
        return self.whole.folder


def plan_jobs(
    inputs: Sequence[Path], output_prefix: str, keys: Sequence[str], shard_per_input: bool
) -> list[Job]:
    """Name the outputs.

    Raises:
        DataError: a name is impossible, or two inputs would have one output.
    """
    _check_keys(keys)
    if not shard_per_input:
        if output_prefix.endswith("/") or Path(output_prefix).is_dir():
            raise DataError(
                f"{output_prefix}: a folder, not a prefix; add a name to it or use --shard-per-input"
            )
        return [_job(inputs, tuple(Path(f"{output_prefix}_{key}_document") for key in keys))]
    owners: dict[str, Path] = {}
    for path in inputs:
        name = shard_name(path)
        if name in owners:
            raise DataError(f"{label(owners[name])} and {label(path)} would both become {name}; rename one")
        owners[name] = path
    return [
        _job([path], tuple(Path(output_prefix) / f"{name}_{key}_document" for key in keys))
        for name, path in owners.items()
    ]


def share_parts(parts: Sequence[AnyPart], num_ranks: int) -> list[list[AnyPart]]:
    """Spread parts over ranks, the largest first, each to the rank with the least to do; in order for each."""
    shares: list[list[int]] = [[] for _ in range(num_ranks)]
    loads = [(0, rank) for rank in range(num_ranks)]  # a heap: the least load first
    for index in sorted(range(len(parts)), key=lambda index: -parts[index].load):
        load, rank = loads[0]
        heapq.heapreplace(loads, (load + parts[index].load, rank))
        shares[rank].append(index)
    return [[parts[index] for index in sorted(share)] for share in shares]


def _check_keys(keys: Sequence[str]) -> None:
    for key in keys:
        if "/" in key or not key:
            raise DataError(f"JSON key {key!r} cannot be part of a file name; rename it in the text files")
    if len(set(keys)) != len(keys):
        raise DataError(f"a JSON key is named twice: {', '.join(keys)}")


def _job(inputs: Sequence[Path], outputs: tuple[Path, ...]) -> Job:
    folder = outputs[0].with_name(f".{outputs[0].name}.parts")

    def part(paths: Sequence[Path], outputs: tuple[Path, ...]) -> Part:
        own = tuple(identities[path] for path in paths)
        return Part(folder, _part_name(own), tuple(paths), own, keys, outputs)

    keys, identities = len(outputs), {path: InputIdentity.of(path) for path in inputs}
    groups = _groups(inputs, identities)
    if len(groups) == 1:
        whole = part(inputs, outputs)
        return Job((whole,), whole)
    whole = dataclasses.replace(
        part(inputs, outputs), name=f"whole-{_hash(os.fsencode(outputs[0].absolute()))}"
    )
    return Job(tuple(part(group, ()) for group in groups), whole)


def _groups(inputs: Sequence[Path], identities: Mapping[Path, InputIdentity]) -> list[list[Path]]:
    """Inputs by part, in order; standard input is alone, since its part cannot be used again."""
    groups: list[list[Path]] = []
    room = 0
    for path in inputs:
        room -= identities[path].size
        if not groups or room < 0 or STDIN in (path, groups[-1][-1]):
            groups.append([])
            room = SMALL_BYTES - identities[path].size
        groups[-1].append(path)
    return groups


def _part_name(identities: Sequence[InputIdentity]) -> str:
    """The same for files wherever they stand among the inputs."""
    return _hash(b"\0".join(os.fsencode(one.path) for one in identities))


def _hash(name: bytes) -> str:
    return hashlib.sha256(name).hexdigest()[:16]
