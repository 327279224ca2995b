"""The repairs that a text needs, one after the other."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from megatron_ext._C import CharacterClasses
from megatron_ext.corpus.cleaning import boilerplate, repairs
from megatron_ext.corpus.cleaning.characters import character_classes
from megatron_ext.corpus.cleaning.config import RepairConfig

SURROGATES = "surrogates"  # the repair that no key switches off
_DEFECTS = CharacterClasses.DEFECTS
_REVEALING_NOTHING = {"composition", "white_space"}
_BOILERPLATE, _ANY = 1 << 30, 1 << 31  # defects beside those: words of boilerplate, whatever there is


class Step(NamedTuple):
    """A repair: a key of `RepairConfig`, the defects that call for it, and what it does."""

    key: str
    defects: int
    repair: Callable[[str], str]


def steps(config: RepairConfig) -> tuple[Step, ...]:
    """The repairs that are on, in their order."""
    most_repeats = config.max_line_repeats or 0
    everything = (
        Step("html_entities", _DEFECTS["entity"], repairs.unescape_html),
        Step("mojibake", _DEFECTS["mojibake"], repairs.repair_mojibake),
        Step("line_ends", _DEFECTS["line_end"], repairs.unify_line_ends),
        Step("control_characters", _DEFECTS["control"], repairs.remove_controls),
        Step("invisible_characters", _DEFECTS["invisible"], repairs.remove_invisible),
        Step("composition", _DEFECTS["composition"], repairs.compose),
        Step("boilerplate_lines", _BOILERPLATE, boilerplate.remove_boilerplate),
        Step("symbol_lines", _DEFECTS["symbol_line"], boilerplate.blank_symbol_lines),
        Step(
            "max_line_repeats",
            _ANY,
            functools.partial(boilerplate.remove_repeated_lines, most=most_repeats),
        ),
        Step("white_space", _DEFECTS["line_space"] | _DEFECTS["blank_lines"], repairs.trim_lines),
        Step("white_space", _DEFECTS["outer_space"], str.strip),
    )
    return tuple(step for step in everything if getattr(config, step.key))


def mend(text: str, defects: int, has_boilerplate: bool, wanted: tuple[Step, ...]) -> tuple[str, list[str]]:
    """Repair a text.

    Args:
        text: without surrogates.
        defects: flags of ``_C.CharacterClasses.defects``.
        has_boilerplate: whether it may have lines of `boilerplate.PHRASES`.
        wanted: of `steps`.

    Returns:
        the text, and the keys of the repairs that changed it.
    """
    defects |= _ANY | (_BOILERPLATE if has_boilerplate else 0)
    made = []
    for step in wanted:
        if not defects & step.defects:
            continue
        repaired = step.repair(text)
        if repaired != text:
            text = repaired
            if step.key not in made:
                made.append(step.key)
            if step.key not in _REVEALING_NOTHING:
                # What was hidden in an entity, or at the end of a line that is no more.
                defects |= int(character_classes().defects([text])[0, 0])
    return text, made
