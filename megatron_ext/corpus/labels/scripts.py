"""Any code or name of a script → ISO 15924, and whether what was declared and what was detected go together."""

from collections.abc import Collection
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from megatron_ext.corpus.labels.exceptions import NO_SCRIPT, SCRIPT_CODES, SCRIPT_NAMES, WITH_HAN
from megatron_ext.corpus.labels.libraries import library
from megatron_ext.errors import CorpusError


@lru_cache(maxsize=1024)
def script_code(code: str) -> str:
    """The ISO 15924 code that labels use for a script.

    Styles of a script are that script (``Latf`` → ``Latn``), and parts of how a language is written are the whole
    (``Hang`` → ``Kore``, ``Hrkt`` → ``Jpan``): the table and its reasons are in ``exceptions.py``.

    Args:
        code: ISO 15924 in any case, or an English name of Unicode's or CLDR's.

    Raises:
        CorpusError: there is no such script; names the nearest.
    """
    wanted = code.strip()
    for candidate in (wanted.capitalize(), _by_name(wanted)):
        if candidate in SCRIPT_CODES:
            return SCRIPT_CODES[candidate]
        if candidate in _known():
            return candidate
    nearest = get_close_matches(wanted.capitalize(), [*_known(), *_unicode().NAMES.values()], n=3, cutoff=0.5)
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    raise CorpusError(f"{code!r} is no script of ISO 15924{hint}")


def scripts_agree(declared: str | None, detected: str | None, allowed: Collection[str] = ()) -> bool:
    """Whether text in the ``detected`` script may be what was ``declared``.

    Args:
        declared: canonical code of `script_code`; None: nothing was declared.
        detected: answer of `scripts_of`; None: the text has no letters, which contradicts nothing.
        allowed: scripts that are right whatever was declared, such as ``Latn`` in code.
    """
    if declared is None or detected is None or declared in NO_SCRIPT or detected in allowed:
        return True
    return declared == detected or (detected == "Hani" and declared in WITH_HAN)


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    """Codes of ISO 15924: those with characters from Unicode's table, the others from IANA's registry."""
    registered = library("langcodes.data_dicts", "langcodes", "read codes of scripts").ALL_SCRIPTS
    return frozenset(code for code in {*registered, *_unicode().NAMES} if len(code) == 4)


def _by_name(name: str) -> str:
    """The code of an English name, or an empty string."""
    folded = name.casefold()
    if folded in SCRIPT_NAMES:
        return SCRIPT_NAMES[folded]
    unicode_name = folded.replace(" ", "_").replace("-", "_")
    by_unicode = {long.casefold(): code for code, long in _unicode().NAMES.items()}
    if unicode_name in by_unicode:
        return str(by_unicode[unicode_name])
    return english_name("script", name) or ""


def english_name(kind: str, name: str) -> str | None:
    """CLDR's code for the English name of a language or a script, or None.

    langcodes would also take the longest known beginning of an unknown name ("Germanic" for German), hence its data
    package, which has the exact names.

    Args:
        kind: ``language`` or ``script``.
        name: with or without its capitals, parentheses and hyphens.
    """
    if not name.isprintable():
        return None  # such as lone surrogates, which its search cannot read
    names = _english_names(kind)
    key = library("language_data.names", "language_data", "read names of languages").normalize_name(name)
    return names[key][0].decode() if key in names else None


@lru_cache(maxsize=2)
def _english_names(kind: str) -> Any:
    names = library("language_data.names", "language_data", "read names of languages")
    return names.load_trie(names.data_filename(f"trie/en/name_to_{kind}.marisa"))


def _unicode() -> Any:
    return library("fontTools.unicodedata.Scripts", "fonttools", "read Unicode's scripts")
