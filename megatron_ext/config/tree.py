"""YAML files and overrides as one tree in which every value knows the line it came from."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

DEFAULTS_KEY = "defaults"


@dataclass(frozen=True)
class Entry:
    """A value and where it was written.

    Attributes:
        value: ``dict[str, Entry]``, ``list[Entry]`` or a scalar.
        origin: ``file:line``, or ``override section.key=value``.
    """

    value: Any
    origin: str

    def plain(self) -> Any:
        """The value without origins."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain() for entry in self.value]
        return self.value

    def find(self, keys: tuple[str | int, ...]) -> "Entry | None":
        """The entry that ``keys`` lead to, or None where nobody wrote one."""
        entry = self
        for key in keys:
            named = isinstance(entry.value, dict) and key in entry.value
            numbered = isinstance(entry.value, list) and isinstance(key, int) and key < len(entry.value)
            if not (named or numbered):
                return None
            entry = entry.value[key]
        return entry


def merge(base: Entry, top: Entry) -> Entry:
    """``top`` over ``base``: mappings key by key, everything else (lists too) replaced whole."""
    if isinstance(base.value, dict) and top.value is None:
        return base  # a section whose lines are all commented out says nothing
    if not (isinstance(base.value, dict) and isinstance(top.value, dict)):
        return top
    merged = dict(base.value)
    for key, entry in top.value.items():
        merged[key] = merge(merged[key], entry) if key in merged else entry
    return Entry(merged, top.origin)


@dataclass
class Reading:
    """Reads files and overrides, and goes on after an error to find the others.

    Attributes:
        problems: one line for each error.
        complete: False after a file that could not be read at all, so that keys may seem to be missing.
    """

    problems: list[str] = field(default_factory=list)
    complete: bool = True

    def file(self, path: Path, including: tuple[Path, ...] = ()) -> Entry:
        """One YAML file over the files that it names under ``defaults:``, which are read the same way."""
        name = os.path.normpath(path)
        tree = Entry({}, name)
        try:
            content = path.read_bytes()
        except OSError as error:
            self._unreadable(f"{name}: cannot be read: {error.strerror}")
            return tree
        own = self._compose(content, name, lambda line: f"{name}:{line}")
        if own is None:
            return tree
        if not isinstance(own.value, dict):
            self._unreadable(f"{own.origin}: a configuration holds `section:` keys, not a {_kind(own)}")
            return tree
        defaults = own.value.pop(DEFAULTS_KEY, None)
        if defaults is not None:
            for include in self._includes(defaults, path, (*including, path)):
                tree = merge(tree, include)
        return merge(tree, own)

    def override(self, text: str) -> Entry:
        """``section.key=value`` as a tree; the value is YAML."""
        origin = f"override {text}"
        dotted, equals, content = text.partition("=")
        keys = dotted.split(".")
        if not equals or not all(keys):
            self.problems.append(f"{origin}: an override looks like section.key=value")
            return Entry({}, origin)
        entry = self._compose(content, origin, lambda _line: origin)
        entry = Entry(None, origin) if entry is None else entry
        for key in reversed(keys):
            entry = Entry({key: entry}, origin)
        return entry

    def _includes(self, defaults: Entry, path: Path, including: tuple[Path, ...]) -> list[Entry]:
        entries = []
        names = defaults.value if isinstance(defaults.value, list) else [defaults]
        for item in names:
            if not isinstance(item.value, str):
                self._unreadable(f"{item.origin}: {DEFAULTS_KEY}: must be a list of file names")
                continue
            included = path.parent / item.value
            chain = [*including, included]
            if included.resolve() in {one.resolve() for one in including}:
                names_of_chain = " → ".join(os.path.normpath(one) for one in chain)
                self._unreadable(f"{item.origin}: {DEFAULTS_KEY}: files include each other: {names_of_chain}")
            elif not included.is_file():
                missing = os.path.normpath(included)
                self._unreadable(f"{item.origin}: {DEFAULTS_KEY}: there is no file {missing}")
            else:
                entries.append(self.file(included, including))
        return entries

    def _compose(self, content: bytes | str, name: str, locate: Callable[[int], str]) -> Entry | None:
        """The tree of one document, or None for an empty or a broken one."""
        try:
            loader = _Loader(content)
            node = loader.get_single_node()
            if node is None:
                return None
            return _Composer(loader, locate, self.problems).entry(node, locate(node.start_mark.line + 1))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = locate(mark.line + 1) if mark else name
            self._unreadable(f"{where}: not valid YAML: {error.problem or error.context}")
        except yaml.YAMLError as error:
            self._unreadable(f"{name}: not valid YAML: {error}".splitlines()[0])
        return None

    def _unreadable(self, problem: str) -> None:
        self.problems.append(problem)
        self.complete = False


class _Loader(yaml.SafeLoader):
    """SafeLoader in which 1e-4 is a number, as in YAML 1.2; YAML 1.1 wants 1.0e-4 and takes it for text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


class _Composer:
    """Turns PyYAML's nodes, which carry line numbers, into entries."""

    def __init__(self, loader: _Loader, locate: Callable[[int], str], problems: list[str]) -> None:
        self.loader, self.locate, self.problems = loader, locate, problems
        self.finished: dict[int, Entry] = {}  # by node: an alias is the very node of its anchor
        self.open: set[int] = set()

    def entry(self, node: yaml.Node, origin: str) -> Entry:
        if isinstance(node, yaml.ScalarNode):
            return Entry(self._scalar(node, origin), origin)
        if id(node) in self.open:
            self.problems.append(f"{origin}: an alias stands inside its own anchor")
            return Entry(None, origin)
        if id(node) not in self.finished:
            self.open.add(id(node))
            self.finished[id(node)] = self._collection(node, origin)
            self.open.remove(id(node))
        return Entry(self.finished[id(node)].value, origin)

    def _collection(self, node: yaml.Node, origin: str) -> Entry:
        if isinstance(node, yaml.MappingNode):
            return Entry(self._mapping(node), origin)
        return Entry([self.entry(item, self._origin(item)) for item in node.value], origin)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Entry]:
        first_lines: dict[str, str] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in first_lines:
                self.problems.append(
                    f"{self._origin(key)}: {key.value}: written twice, first at {first_lines[key.value]}"
                )
            elif isinstance(key, yaml.ScalarNode):
                first_lines[key.value] = self._origin(key)
        self.loader.flatten_mapping(node)  # `<<: *anchor`
        entries = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(f"{self._origin(key)}: a key must be a name")
            else:
                entries[key.value] = self.entry(value, self._origin(key))
        return entries

    def _scalar(self, node: yaml.ScalarNode, origin: str) -> Any:
        try:
            return self.loader.construct_object(node)
        except ValueError as error:  # text that looks like a date or a number and is none
            self.problems.append(f"{origin}: {node.value}: {error}")
            return node.value

    def _origin(self, node: yaml.Node) -> str:
        return self.locate(node.start_mark.line + 1)


def _kind(entry: Entry) -> str:
    return "list" if isinstance(entry.value, list) else "single value"
