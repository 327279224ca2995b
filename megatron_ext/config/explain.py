"""Pydantic's findings as lines that say where, what and what instead."""

import difflib
import json
import re
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from megatron_ext.config.section import Section
from megatron_ext.config.sections import RunConfig
from megatron_ext.config.tree import Entry

Location = tuple[str | int, ...]


def explain(error: ValidationError, tree: Entry, root: type[Section] = RunConfig) -> list[str]:
    """One line for each finding, in the order of the sections of ``root``."""
    details = error.errors(include_url=False)
    inner = [detail["loc"] for detail in details]
    lines = []
    for detail in details:
        # An invalid item makes its list seem too short as well.
        consequence = detail["type"] == "too_short" and any(
            loc[: len(detail["loc"])] == detail["loc"] and len(loc) > len(detail["loc"]) for loc in inner
        )
        if not consequence:
            lines.append(f"{_origin(tree, detail['loc'])}: {_describe(detail, root)}")
    return lines


def dotted(location: Location) -> str:
    """``("data", "train", 0, "path")`` as ``data.train[0].path``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _origin(tree: Entry, location: Location) -> str:
    """Where the value was written; for a missing one, where its section was."""
    for length in range(len(location), -1, -1):
        entry = tree.find(location[:length])
        if entry is not None:
            return entry.origin
    return tree.origin


def _describe(detail: ErrorDetails, root: type[Section]) -> str:
    location, kind, value = detail["loc"], detail["type"], detail["input"]
    key = dotted(location)
    if kind == "extra_forbidden":
        return f"{key}: unknown key; {_instead_of_key(location, root)}"
    if kind == "missing":
        return f"{key}: missing{_meaning(location, root)}"
    if kind == "model_type":
        return f"{key}: must hold keys of its own: {', '.join(_section_at(location, root).model_fields)}"
    shown = key if isinstance(value, dict | list) else f"{key}={_as_yaml(value)}"
    if kind == "literal_error":
        expected = detail["ctx"]["expected"]
        nearest = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", expected), n=1)
        return f"{shown}: must be {expected}" + (f"; did you mean {nearest[0]}?" if nearest else "")
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should")
    text = f"{shown}: {message}"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        text += f"; write {int(value)}"
    return text


def _instead_of_key(location: Location, root: type[Section]) -> str:
    key, section = str(location[-1]), _section_at(location[:-1], root)
    valid = list(section.model_fields)
    elsewhere = _keys_of_sections(root)
    if key in elsewhere:
        return f"did you mean {elsewhere[key]}?"
    for candidates, full_name in ((valid, None), (list(elsewhere), elsewhere)):
        nearest = difflib.get_close_matches(key, candidates, n=1)
        if nearest:
            return f"did you mean {full_name[nearest[0]] if full_name else nearest[0]}?"
    return f"valid keys: {', '.join(valid)}"


def _keys_of_sections(root: type[Section]) -> dict[str, str]:
    """Every key below the top level, with its full name."""
    names = {}
    for section_name in root.model_fields:
        section = _section_at((section_name,), root)
        if section is not root:
            names.update({key: f"{section_name}.{key}" for key in section.model_fields})
    return names


def _section_at(location: Location, root: type[Section]) -> type[Section]:
    """The section that a location lies in: its own class where it names one, else its parent's."""
    section = root
    for part in location:
        field = section.model_fields.get(str(part))
        for candidate in (field.annotation, *get_args(field.annotation)) if field else ():
            if isinstance(candidate, type) and issubclass(candidate, Section):
                section = candidate
    return section


def _meaning(location: Location, root: type[Section]) -> str:
    field = _section_at(location[:-1], root).model_fields.get(str(location[-1]))
    if field is None:  # an item of a list that is too short
        return _meaning(location[:-1], root)
    if root is RunConfig and len(location) == 1 and location[0] in ("model", "data", "training", "optimizer"):
        return (
            f" section; write one, or name a file that has one under `defaults:` (see configs/{location[0]}*)"
        )
    return f" ({field.description})" if field.description else ""


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, default=str)
