"""Any code or English name of a language → ISO 639-3, and the script that a BCP 47 tag declares."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from megatron_ext.corpus.labels.exceptions import (
    CODES,
    GROUP_MEMBERS,
    MAIN_MEMBERS,
    NO_MAIN_MEMBER,
    SCRIPT_OF_LANGUAGE,
    WHOLE_CODES,
)
from megatron_ext.corpus.labels.libraries import library
from megatron_ext.corpus.labels.scripts import english_name, script_code
from megatron_ext.errors import CorpusError

# Chinese regions whose text is in one of the two standard forms, as CLDR's likely subtags have it.
_HAN_BY_REGION = {"CN": "Hans", "SG": "Hans", "MY": "Hans", "TW": "Hant", "HK": "Hant", "MO": "Hant"}
_TAG = re.compile(r"[a-z]{1,3}([-_][a-z0-9]{1,8})*", re.IGNORECASE | re.ASCII)
# The longest name of ISO 639-3 has 58 characters. More is text in the place of a code.
_LONGEST_CODE = 100


@dataclass(frozen=True)
class Declared:
    """What a code says.

    Attributes:
        language: ISO 639-3, a macrolanguage's own where that was meant.
        script: canonical ISO 15924, or None where nothing is said about it.
    """

    language: str
    script: str | None = None


def read_code(code: str) -> Declared:
    """Language and script of a code, macrolanguages left as they are.

    A code wins over a name. Codes are ISO 639-1, 639-2/B, 639-2/T, 639-3, retired ones of each that have one
    successor, BCP 47 tags with ``-`` or ``_`` (also our labels), and Wikipedia's.

    Raises:
        CorpusError: there is no such language, or the code stands for several, or for none.
    """
    if len(code) > _LONGEST_CODE:
        raise CorpusError(f"{code[:40]!r}… is text, and no code of a language")
    found = _read_or_refuse(code)
    if isinstance(found, str):
        raise CorpusError(found)
    return found


@lru_cache(maxsize=65536)
def _read_or_refuse(code: str) -> Declared | str:
    """What a code says, or why it says nothing: both are asked for by every document of a source."""
    try:
        return _read(code)
    except CorpusError as error:
        return str(error)


def _read(code: str) -> Declared:
    wanted = code.strip()
    folded = wanted.casefold().replace("_", "-")
    if folded in WHOLE_CODES:
        return Declared(WHOLE_CODES[folded])
    named = None if len(wanted) <= 3 else _by_name(wanted)
    if named is not None:
        return named
    if not _TAG.fullmatch(wanted):
        raise CorpusError(_unknown(code))
    return _read_tag(code, folded)


def main_member(language: str) -> str:
    """The individual language that a macrolanguage's code nearly always stands for; itself for all others."""
    return _main_members().get(language, language)


def macrolanguage(language: str) -> str:
    """The macrolanguage whose main member ``language`` is; itself for all others."""
    return _macrolanguages().get(language, language)


def _read_tag(code: str, tag: str) -> Declared:
    langcodes = library("langcodes", "langcodes", "read language tags")
    try:
        parsed = langcodes.Language.get(tag, normalize=False)
        if "-" in (parsed.language or ""):  # registered before BCP 47 had subtags: i-klingon, zh-min-nan
            parsed = langcodes.Language.get(tag)
    except langcodes.LanguageTagError as error:
        raise CorpusError(_unknown(code)) from error
    subtag = parsed.language or "und"  # langcodes reads `und` as no language
    if subtag.startswith("x-"):
        raise CorpusError(f"{code!r} is private to whoever wrote it; say in an alias which language it is")
    language = _read_language(subtag, code)
    for extended in parsed.extlangs or ():
        member = _read_language(extended, code)
        if language not in {_iso639()[member].macrolanguage, "sgn"}:
            raise CorpusError(f"{code!r}: {extended} is not one of the languages of {subtag}")
        language = member
    script = script_code(parsed.script) if parsed.script else None
    if script is None and "zho" in {language, _iso639()[language].macrolanguage}:
        script = _HAN_BY_REGION.get(parsed.territory)
    return Declared(language, SCRIPT_OF_LANGUAGE.get(language, script) if script == "Hani" else script)


def _read_language(subtag: str, code: str) -> str:
    """ISO 639-3 of a subtag of two or three letters."""
    if subtag in CODES:
        return CODES[subtag]
    languages, codes = _iso639(), _codes()
    found = languages.get(codes.get(subtag, subtag))
    if found is None:
        raise CorpusError(_unlisted(subtag, code))
    if found.status == "A":
        return str(found.part3)
    if found.retire_change_to:
        return _read_language(found.retire_change_to, code)
    remedy = found.retire_remedy or "it proved to be no language"
    raise CorpusError(
        f"{code!r} ({found.name}) was retired from ISO 639-3: {remedy}; say in an alias what it is"
    )


def _by_name(name: str) -> Declared | None:
    """A name that ISO 639-3 has, else CLDR's English name; None for all others."""
    code = _names().get(name.casefold())
    if code is not None:
        return Declared(code)
    tag = english_name("language", name)
    return None if tag is None else _read_tag(name, tag.casefold())


def _unlisted(subtag: str, code: str) -> str:
    if re.fullmatch("q[a-t][a-z]", subtag):
        return f"{code!r} is reserved for local use by ISO 639; say in an alias which language it is"
    if library("langcodes", "langcodes", "read language tags").tag_is_valid(subtag):
        members = f", such as {GROUP_MEMBERS[subtag]}" if subtag in GROUP_MEMBERS else ""
        return (
            f"{code!r} is a group of languages (ISO 639-5); use the code of one of them{members}, or an alias"
        )
    return _unknown(code)


def _unknown(code: str) -> str:
    names, folded = _names(), code.casefold()
    if len(folded) <= 3:
        nearest = get_close_matches(folded, [*_iso639(), *_codes()], n=3)
    else:
        nearest = [f"{name.title()} ({names[name]})" for name in get_close_matches(folded, names, n=3)]
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    return f"{code!r} is no code and no English name of a language{hint}; if it is a habit of yours, make it an alias"


@lru_cache(maxsize=1)
def _iso639() -> dict[str, Any]:
    """`iso639.Language` by ISO 639-3 code, the retired ones too."""
    listed = library("iso639", "python-iso639", "read codes of languages").ALL_LANGUAGES
    return {language.part3: language for language in sorted(listed, key=lambda language: language.part3)}


@lru_cache(maxsize=1)
def _codes() -> dict[str, str]:
    """Other codes → ISO 639-3: those of two letters, also withdrawn ones (iw), which langcodes knows, and 639-2/B."""
    withdrawn = library("langcodes.data_dicts", "langcodes", "read codes of languages").LANGUAGE_ALPHA3
    codes = {two: three for two, three in withdrawn.items() if len(two) == 2}
    for language in _iso639().values():
        codes |= {code: language.part3 for code in (language.part1, language.part2b) if code}
    return codes


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Case-folded names → ISO 639-3, which tells namesakes apart: "Bari (South Sudan)"."""
    names: dict[str, str] = {}
    for code, language in _iso639().items():
        if language.status == "A":
            forms = [form for name in language.other_names or () for form in (name.print, name.inverted)]
            names |= {name.casefold(): code for name in (language.name, *forms)}
    return names


@lru_cache(maxsize=1)
def _macrolanguages() -> dict[str, str]:
    return {member: language for language, member in _main_members().items()}


@lru_cache(maxsize=1)
def _main_members() -> dict[str, str]:
    """CLDR's aliases of the kind "macrolanguage", read from the macrolanguage to its member, and our additions."""
    table = library("langcodes.data_dicts", "langcodes", "read codes of languages").NORMALIZED_MACROLANGUAGES
    languages, codes = _iso639(), _codes()
    members: dict[str, str] = {}
    for member, whole in table.items():
        code = codes.get(whole, whole)
        if code in languages and languages[code].scope == "M" and code not in NO_MAIN_MEMBER:
            members[code] = codes.get(member, member)
    return members | MAIN_MEMBERS
