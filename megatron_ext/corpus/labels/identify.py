"""What a language identifier is, and what all of them do: read an excerpt, and answer in our codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from megatron_ext.corpus.labels.rules import LabelRules
from megatron_ext.errors import CorpusError

# benchmarks/labels.py: py3langid names 0.947 of the languages of long texts by these 300 characters, of articles 0.943,
# of 20 bytes 0.842; the time is proportional to them.
EXCERPT_CHARACTERS = 100
SHORTEST_BYTES = 16


@dataclass(frozen=True)
class Identification:
    """The language of a text.

    Attributes:
        language: ISO 639-3; None: too short, without letters, or a class of the model that is no language.
        script: ISO 15924, as in labels; None: without letters.
        confidence: the model's probability, 0 to 1, of its best class. It may be as high for a language that the model
            does not know: py3langid is surer than 0.9 of 0.28 of such articles in benchmarks/labels.py.
    """

    language: str | None
    script: str | None
    confidence: float


class LanguageIdentifier(Protocol):
    """Tells the language of each text of a batch; can be pickled, and uses one thread."""

    def identify(self, texts: Sequence[str]) -> list[Identification]:
        """One answer a text."""
        ...


def excerpt(text: str) -> str:
    """Beginning, middle and end of a text, in one line; bounded, so that time does not depend on the text."""
    if len(text) > 3 * EXCERPT_CHARACTERS:
        middle = (len(text) - EXCERPT_CHARACTERS) // 2
        parts = (
            text[:EXCERPT_CHARACTERS],
            text[middle : middle + EXCERPT_CHARACTERS],
            text[-EXCERPT_CHARACTERS:],
        )
        text = " ".join(parts)
    return " ".join(text.encode("utf-8", "ignore").decode().split())


def answer(code: str, confidence: float, script: str | None, rules: LabelRules) -> Identification:
    """A model's class in our codes: ``ku`` in Arabic letters becomes ckb, as in declared codes.

    Args:
        code: a code of the model, or a label such as ``eng_Latn``, whose script then wins.
        confidence: of the model.
        script: of the text's letters; None: there are none.
        rules: of the corpus.
    """
    nothing = Identification(None, script, 0.0)
    if script is None or not confidence > 0:  # also of a model with numbers that are none
        return nothing
    try:
        language, _, written = rules.label(code, rules.declared(code).script or script).partition("_")
    except CorpusError:
        return nothing  # lid.176 has classes that ISO 639-3 has not, such as eml
    return nothing if language == "und" else Identification(language, written, min(confidence, 1.0))
