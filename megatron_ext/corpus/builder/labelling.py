"""Labels of documents: what a source declares of their language and script, beside what their letters show."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from megatron_ext.corpus.labels.identifiers import build_identifier
from megatron_ext.corpus.labels.libraries import library
from megatron_ext.corpus.labels.rules import LabelRules, load_rules
from megatron_ext.corpus.labels.scripts import scripts_agree
from megatron_ext.corpus.manifest import Manifest, SourceConfig
from megatron_ext.errors import CorpusError

NO_LANGUAGE = {"mis", "mul", "und", "zxx"}  # ISO 639-3's codes for other cases, which CLDR takes for Latin


class Declared(NamedTuple):
    """What is known of a document's language before its letters are looked at.

    Attributes:
        codes: of the language, in any form; two in bilingual text.
        scripts: ISO 15924 of each, None where nothing says it.
        identified: whether a model says so, and nobody else.
    """

    codes: tuple[str, ...]
    scripts: tuple[str | None, ...]
    identified: bool = False

    def with_script(self, script: str | None) -> "Declared":
        """The same, in one script if there is one to say."""
        return self if script is None else Declared(self.codes, (script,) * len(self.codes))


class Labelled(NamedTuple):
    """A label such as ``eng_Latn``, two with a hyphen for bilingual text.

    Attributes:
        label: None where the document is to be dropped.
        disagreement: what was declared and what is seen, where both differ.
    """

    label: str | None
    disagreement: str | None


class Labeller:
    """The labels of one manifest."""

    def __init__(self, manifest: Manifest) -> None:
        """Load the tables, and the model if a source needs one.

        Raises:
            CorpusError, ConfigError: a file is missing or wrong, or a code of the manifest is unknown.
            MissingDependencyError: a package is needed.
        """
        self._config = config = manifest.labels
        if config.aliases is None:
            self._rules = LabelRules(macrolanguages=config.macrolanguages)
        else:
            self._rules = load_rules(Path(config.aliases), config.macrolanguages)
        detects = any(source.language.detect for source in manifest.sources)
        self._identifier = build_identifier(config.identifier, self._rules) if detects else None
        self._labels: dict[tuple[Declared, str | None], Labelled] = {}
        for source in manifest.sources:
            self._check(source)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the files that labels depend on, by the key that names them."""
        files = {"aliases": self._config.aliases, "identifier": self._config.identifier}
        return {
            key: hashlib.sha256(Path(name).read_bytes()).hexdigest()
            for key, name in files.items()
            if name is not None and Path(name).is_file()
        }

    def of_file(self, source: SourceConfig, path: Path) -> Declared:
        """What a source says of all documents of a file.

        Raises:
            CorpusError: the file's path does not match, or a code is unknown.
        """
        language = source.language
        if language.fixed is not None:
            both = [self.declared(code) for code in language.fixed]
            scripts = tuple(one.scripts[0] for one in both)
            if len(scripts) > 1:  # letters of a mixture tell of neither
                scripts = tuple(
                    script or self._usual(code) for code, script in zip(language.fixed, scripts, strict=True)
                )
            declared = Declared(language.fixed, scripts)
        else:
            declared = self._of_path(source, path)
        return declared if language.script is None else declared.with_script(self.script(language.script))

    def script_of(self, declared: Declared | None, seen: str | None) -> str | None:
        """The script that rules for scripts go by: the one that is seen, else a declared one."""
        return seen or (declared.scripts[0] if declared else None)

    def identify(self, texts: Sequence[str]) -> list[Declared | None]:
        """Languages by the identifier; None where it knows none, or none with enough confidence."""
        if self._identifier is None:
            raise CorpusError("no source is to be identified")
        return [
            Declared((found.language,), (None,), identified=True)
            if found.language is not None and found.confidence >= self._config.min_confidence
            else None
            for found in self._identifier.identify(texts)
        ]

    def declared(self, code: str) -> Declared:
        """What a code says, in any form.

        Raises:
            CorpusError: it is unknown.
        """
        return Declared((code,), (self._rules.declared(code).script,))

    def script(self, code: str) -> str:
        """ISO 15924 of a script.

        Raises:
            CorpusError: it is unknown.
        """
        return self._rules.script(code)

    def label(self, declared: Declared, seen: str | None) -> Labelled:
        """The label of a document whose letters are of the script ``seen``, None if it has none."""
        if (declared, seen) not in self._labels:
            self._labels[declared, seen] = self._label(declared, seen)
        return self._labels[declared, seen]

    def _label(self, declared: Declared, seen: str | None) -> Labelled:
        told = any(declared.scripts)
        given = self._join(declared, declared.scripts if told else [seen] * len(declared.codes))
        expected = [script or self._usual(code) for code, script in zip(*declared[:2], strict=True)]
        if any(scripts_agree(script, seen) for script in expected):
            scripts = [
                script or seen or usual for script, usual in zip(declared.scripts, expected, strict=True)
            ]
            return Labelled(self._join(declared, scripts), None)
        disagreement = f"{given} in {seen}" if told else f"{given}, mostly in {expected[0]}"
        choice = self._config.script_disagreement
        if choice == "drop" and (told or declared.identified):
            return Labelled(None, disagreement)
        if choice == "relabel":
            return Labelled(self._join(declared, [seen] * len(declared.codes)), disagreement)
        return Labelled(given, disagreement)

    def _usual(self, code: str) -> str | None:
        """The script that a language is mostly written in, as far as CLDR knows it."""
        language = self._rules.language(code)
        if language in NO_LANGUAGE:
            return None
        langcodes = library("langcodes", "langcodes", "know the scripts of languages")
        script = langcodes.Language.get(language).maximize().script
        return self._rules.script(script) if script else None

    def _join(self, declared: Declared, scripts: Sequence[str | None]) -> str:
        return "-".join(self._rules.label(*pair) for pair in zip(declared.codes, scripts, strict=True))

    def _of_path(self, source: SourceConfig, path: Path) -> Declared:
        match = re.search(source.language.path or "", path.as_posix())
        if match is None:
            raise CorpusError(
                f"{path}: language.path does not match; name other files, or change the pattern"
            )
        groups = match.groupdict()
        try:
            script = groups.get("script")
            return self.declared(groups["language"]).with_script(self.script(script) if script else None)
        except CorpusError as error:
            raise CorpusError(f"{path}: language.path: {error}") from error

    def _check(self, source: SourceConfig) -> None:
        """Refuse codes of the manifest itself before any file is read."""
        language = source.language
        try:
            for code in language.fixed or ():
                self.declared(code)
            if language.script is not None:
                self.script(language.script)
        except CorpusError as error:
            raise CorpusError(f"source {source.name}: language: {error}") from error
