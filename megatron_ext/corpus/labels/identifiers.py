"""The language identifiers: py3langid, whose model comes with it, and any fastText model by its path."""

from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_ext.corpus.labels.detect import scripts_of
from megatron_ext.corpus.labels.fasttext_format import check_model
from megatron_ext.corpus.labels.identify import (
    SHORTEST_BYTES,
    Identification,
    LanguageIdentifier,
    answer,
    excerpt,
)
from megatron_ext.corpus.labels.libraries import library
from megatron_ext.corpus.labels.rules import LabelRules
from megatron_ext.errors import CorpusError

DEFAULT_IDENTIFIER = "py3langid"
_FASTTEXT_PREFIX = "__label__"


def build_identifier(
    name_or_path: str = DEFAULT_IDENTIFIER, rules: LabelRules | None = None
) -> LanguageIdentifier:
    """An identifier by its name, or a fastText model by its path, such as GlotLID, OpenLID, NLLB's or lid.176.

    Args:
        name_or_path: a key of `IDENTIFIERS`, or a file.
        rules: of the corpus, for the answers' codes.

    Raises:
        CorpusError: there is neither such an identifier nor such a file, or it is no fastText model.
        MissingDependencyError: its package is not installed.
    """
    rules = rules or LabelRules()
    if name_or_path in IDENTIFIERS:
        return IDENTIFIERS[name_or_path](rules)
    if not Path(name_or_path).is_file():
        known = ", ".join(IDENTIFIERS)
        raise CorpusError(
            f"{name_or_path}: no language identifier ({known}), and no file with a fastText model"
        )
    return FastText(Path(name_or_path), rules)


class Py3LangId:
    """140 languages; model and code under the BSD licence (https://github.com/adbar/py3langid)."""

    def __init__(self, rules: LabelRules) -> None:
        langid = library("py3langid.langid", "py3langid", "identify languages")
        self._model = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
        self._rules = rules

    def __reduce__(self) -> tuple[type["Py3LangId"], tuple[LabelRules]]:
        """Another process loads the model itself."""
        return Py3LangId, (self._rules,)

    def identify(self, texts: Sequence[str]) -> list[Identification]:
        """One answer a text."""
        return _identify(texts, lambda lines: [self._model.classify(line) for line in lines], self._rules)


class FastText:
    """A supervised model in fastText's format, whose labels are codes or labels such as ``__label__eng_Latn``.

    Raises:
        CorpusError: the file is none, or is damaged. It is checked before fastText reads it, which trusts it.
    """

    def __init__(self, path: Path, rules: LabelRules) -> None:
        fasttext = library("fasttext", "fasttext-predict", "identify languages with a fastText model")
        check_model(path)
        self._model = fasttext.load_model(str(path))
        self._path, self._rules = path, rules

    def __reduce__(self) -> tuple[type["FastText"], tuple[Path, LabelRules]]:
        """Another process loads the model itself."""
        return FastText, (self._path, self._rules)

    def identify(self, texts: Sequence[str]) -> list[Identification]:
        """One answer a text."""
        return _identify(texts, self._classify, self._rules)

    def _classify(self, lines: list[str]) -> list[tuple[str, float]]:
        predictions = [self._model.predict(line) for line in lines]
        return [
            (labels[0].removeprefix(_FASTTEXT_PREFIX), float(probabilities[0])) if labels else ("und", 0.0)
            for labels, probabilities in predictions
        ]


def _identify(
    texts: Sequence[str], classify: Callable[[list[str]], list[tuple[str, float]]], rules: LabelRules
) -> list[Identification]:
    """Ask the model about excerpts, but of texts that say too little."""
    lines = [excerpt(text) for text in texts]
    scripts = scripts_of(lines)
    enough = [
        script is not None and len(line.encode()) >= SHORTEST_BYTES
        for line, script in zip(lines, scripts, strict=True)
    ]
    classes = iter(classify([line for line, long in zip(lines, enough, strict=True) if long]))
    return [
        answer(*next(classes), script, rules) if long else Identification(None, script, 0.0)
        for script, long in zip(scripts, enough, strict=True)
    ]


IDENTIFIERS: dict[str, Callable[[LabelRules], LanguageIdentifier]] = {"py3langid": Py3LangId}
