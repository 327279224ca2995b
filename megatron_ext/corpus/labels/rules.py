"""`LabelRules`: declared codes and detected scripts → labels such as ``eng_Latn``, a project's aliases first."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from megatron_ext.config.load import load_section
from megatron_ext.config.section import Section
from megatron_ext.config.tree import Reading
from megatron_ext.corpus.labels.exceptions import MEMBERS_BY_SCRIPT, SCRIPT_OF_LANGUAGE, WITH_HAN
from megatron_ext.corpus.labels.languages import Declared, macrolanguage, main_member, read_code
from megatron_ext.corpus.labels.scripts import script_code
from megatron_ext.errors import CorpusError

Macrolanguages = Literal["individual", "macro", "keep"]
UNDETERMINED = "Zyyy"  # ISO 15924, for text whose script neither its source nor its letters tell
_LABEL = re.compile("([a-z]{3})_([A-Z][a-z]{3})")


class AliasFile(Section):
    """A project's file of aliases: ``aliases: {xx-old: eng, jpn_Japn: jpn_Jpan}``."""

    aliases: dict[str, str]


@dataclass(frozen=True)
class LabelRules:
    """What codes mean in one corpus.

    A macrolanguage and its main member (``est`` and ``ekk``) are one language, and would be two labels:

    - ``individual`` (default) takes the member, as FLORES-200 and FineWeb2 mostly do;
    - ``macro`` takes the macrolanguage, as MaLA mostly does, and leaves its other members alone;
    - ``keep`` takes what was declared.

    Attributes:
        aliases: from a code to another code (``xx-old: eng``), or from a label to a label (``jpn_Japn: jpn_Jpan``).
            They win over all tables and what they lead to is final, so ``est: est`` exempts Estonian from the rule
            above. One may lead to the next.
        macrolanguages: see above.

    Raises:
        CorpusError: an alias leads to something unknown, or several lead to each other.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    macrolanguages: Macrolanguages = "individual"
    _codes: dict[str, Declared] = field(init=False, repr=False, compare=False, default_factory=dict)
    _labels: dict[str, str] = field(init=False, repr=False, compare=False, default_factory=dict)
    # Documents of one source repeat one code: answers by code and script.
    _answers: dict[tuple[str, str | None], str] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        problems = []
        for alias in self.aliases:
            try:
                final = resolve_alias(alias, self.aliases)
            except CorpusError as error:
                problems.append(f"alias {alias}: {error}")
                continue
            if isinstance(final, str):
                self._labels[alias] = final
            else:
                self._codes[_key(alias)] = final
        if problems:
            raise CorpusError("\n".join(problems))

    def language(self, code: str) -> str:
        """ISO 639-3 of any code or English name of a language.

        Raises:
            CorpusError: the code is unknown, or stands for several languages; names the nearest, or the members.
        """
        return self.declared(code).language

    def script(self, code: str) -> str:
        """ISO 15924 of any code or English name of a script.

        Raises:
            CorpusError: there is no such script; names the nearest.
        """
        return script_code(code)

    def declared(self, code: str) -> Declared:
        """The language of a code and the script that it declares: ``zh-Hant-TW`` → cmn and Hant.

        Raises:
            CorpusError: as `language` does.
        """
        if _key(code) in self._codes:
            return self._codes[_key(code)]
        read = read_code(code)
        for language in (read.language, self._harmonised(read.language)):
            if language in self._codes:
                return Declared(self._codes[language].language, self._codes[language].script or read.script)
        return Declared(self._harmonised(read.language), read.script)

    def label(self, language: str, script: str | None = None) -> str:
        """The label of text that was declared to be in ``language`` and whose letters are of ``script``.

        Args:
            language: the code as it was declared (not yet harmonised: the script tells more about ``ku`` than about
                ``kmr``), or a whole label.
            script: as detected; None: as the code declares, or ``Zyyy``.

        Raises:
            CorpusError: as `language` and `script` do.
        """
        if (language, script) not in self._answers:
            self._answers[language, script] = self._label(language, script)
        return self._answers[language, script]

    def _label(self, code: str, detected: str | None) -> str:
        whole = f"{code}_{detected}" if detected else code
        if whole in self._labels:
            return self._labels[whole]
        declared = self.declared(code)
        language, script = declared.language, _written(declared, detected)
        if self.macrolanguages == "individual" and _key(code) not in self._codes:
            whole_language = read_code(code).language
            if whole_language not in self._codes:
                language = MEMBERS_BY_SCRIPT.get((whole_language, script), language)
        label = f"{language}_{script}"
        return self._labels.get(label, label)

    def _harmonised(self, language: str) -> str:
        if self.macrolanguages == "individual":
            return main_member(language)
        return macrolanguage(language) if self.macrolanguages == "macro" else language


def load_rules(path: Path, macrolanguages: Macrolanguages = "individual") -> LabelRules:
    """The rules of a project with a file of aliases, such as ``aliases: {xx-old: eng, jpn_Japn: jpn_Jpan}``.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
        CorpusError: aliases lead nowhere or in a circle; one line for each, with file and line.
    """
    aliases = load_section(path, AliasFile).aliases
    tree = Reading().file(path)
    problems = []
    for alias in aliases:
        try:
            resolve_alias(alias, aliases)
        except CorpusError as error:
            entry = tree.find(("aliases", alias))
            problems.append(f"{entry.origin if entry else path}: aliases.{alias}: {error}")
    if problems:
        raise CorpusError("\n".join(problems))
    return LabelRules(aliases, macrolanguages)


def resolve_alias(alias: str, aliases: Mapping[str, str]) -> Declared | str:
    """What an alias finally leads to: a label if it is one of a label, else a language.

    Raises:
        CorpusError: to nothing that exists, or back to one on the way.
    """
    targets = {_key(key): target for key, target in aliases.items()}
    chain = [alias, targets[_key(alias)]]
    while _key(chain[-1]) in targets and _key(chain[-1]) != _key(chain[-2]):
        chain.append(targets[_key(chain[-1])])
        if _key(chain[-1]) in map(_key, chain[:-2]):
            raise CorpusError(f"aliases lead in a circle: {' → '.join(chain)}")
    target = chain[-1]
    if not _LABEL.fullmatch(alias):
        return read_code(target)
    parts = _LABEL.fullmatch(target)
    if parts is None:
        raise CorpusError(f"a label leads to a label such as eng_Latn, not to {target!r}")
    return f"{read_code(parts[1]).language}_{script_code(parts[2])}"


def _written(declared: Declared, detected: str | None) -> str:
    """The script of a label: the whole that the detected letters are a part of, where that is known."""
    if detected is None:
        return declared.script or UNDETERMINED
    letters = script_code(detected)
    if letters == "Hani" and declared.script in WITH_HAN:
        return declared.script
    return SCRIPT_OF_LANGUAGE.get(declared.language, letters) if letters == "Hani" else letters


def _key(alias: str) -> str:
    return alias.strip().casefold().replace("_", "-")
