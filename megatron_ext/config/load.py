"""YAML files and overrides in, one checked `RunConfig` out, or every problem at once."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from megatron_ext.config.explain import explain
from megatron_ext.config.rules import violations
from megatron_ext.config.section import Section
from megatron_ext.config.sections import RunConfig
from megatron_ext.config.tree import Entry, Reading, merge
from megatron_ext.config.violation import Violation
from megatron_ext.errors import ConfigError

AnySection = TypeVar("AnySection", bound=Section)


def load_run_config(paths: Sequence[Path], overrides: Sequence[str] = ()) -> RunConfig:
    """Merge files left to right, then overrides, and check the result.

    Args:
        paths: YAML files; a file's ``defaults:`` (a list of paths relative to it) lie under its own values.
        overrides: ``section.key=value``, the value in YAML.

    Raises:
        ConfigError: with one line for each problem in files, overrides, values and combinations of values.
    """
    if not paths:
        raise ConfigError("no configuration file given")
    reading = Reading()
    tree = Entry({}, str(paths[-1]))
    for path in paths:
        tree = merge(tree, reading.file(path))
    for override in overrides:
        tree = merge(tree, reading.override(override))
    if not reading.complete:
        raise ConfigError(reading.problems)
    tree = Entry({key: entry for key, entry in tree.value.items() if entry.value is not None}, tree.origin)
    run, problems = _validate(tree)
    problems = [*reading.problems, *problems, *(_located(tree, found) for found in violations(run))]
    if problems:
        raise ConfigError(problems)
    return run


def load_section(path: Path, kind: type[AnySection]) -> AnySection:
    """Read one YAML file that holds a `Section` of its own, such as a corpus's manifest.

    Args:
        path: the file; its ``defaults:`` lie under its own values, as in a run's.
        kind: what the file holds.

    Raises:
        ConfigError: with one line for each problem in the file and its values.
    """
    reading = Reading()
    tree = reading.file(path)
    if reading.problems:
        raise ConfigError(reading.problems)
    try:
        return kind.model_validate(tree.plain())
    except ValidationError as error:
        raise ConfigError(explain(error, tree, kind)) from error


def load_part(path: Path, key: str, kind: type[AnySection]) -> tuple[AnySection, list[str]]:
    """Read one section of a run whose other files may not be there yet.

    Args:
        path: the run's file.
        key: the section, such as ``training``.
        kind: what it holds.

    Returns:
        The section, and what is wrong with the files elsewhere.

    Raises:
        ConfigError: the section is missing or wrong.
    """
    reading = Reading()
    tree = reading.file(path)
    found = tree.value.get(key)
    if found is None:
        raise ConfigError(reading.problems or f"{tree.origin}: {key}: missing")
    try:
        return kind.model_validate(found.plain()), reading.problems
    except ValidationError as error:
        raise ConfigError([*reading.problems, *explain(error, found, kind)]) from error


def split_sources(sources: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files and overrides of a command line that mixes both."""
    files = [Path(source) for source in sources if not _is_override(source)]
    return files, [source for source in sources if _is_override(source)]


def _is_override(source: str) -> bool:
    return re.match(r"[\w.]+=", source) is not None


def _validate(tree: Entry) -> tuple[RunConfig, list[str]]:
    """The run and what is wrong with single values; a section with such a value cannot be read by rules."""
    plain = tree.plain()
    try:
        return RunConfig.model_validate(plain), []
    except ValidationError as error:
        wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
        return _partial_run(plain, wrong), explain(error, tree)


def _partial_run(plain: dict[str, Any], wrong: set[str]) -> RunConfig:
    values: dict[str, Any] = {}
    for name, field in RunConfig.model_fields.items():
        if name in wrong:
            values[name] = _UnreadableSection()
        elif name in plain and isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            values[name] = field.annotation.model_validate(plain[name])
    return RunConfig.model_construct(**values)


class _UnreadableSection:
    """Stands for a section with wrong values, so that rules which need one of them keep silent."""

    def __getattr__(self, name: str) -> Any:
        raise LookupError(name)


def _located(tree: Entry, found: Violation) -> str:
    """The violation behind the line of the first of its keys that somebody wrote."""
    for key in found.keys:
        parts = re.findall(r"[^.\[\]]+", key)  # data.train[0].weight
        entry = tree.find(tuple(int(part) if part.isdecimal() else part for part in parts))
        if entry is not None:
            return f"{entry.origin}: {found.text}"
    return found.text
