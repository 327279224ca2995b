import gzip
import json
from pathlib import Path

import pytest
from fontTools import unicodedata
from GlotScript import sp

from megatron_ext.corpus.labels.detect import scripts_of
from megatron_ext.corpus.labels.scripts import script_code, scripts_agree
from megatron_ext.errors import CorpusError

UDHR = Path(__file__).parents[4] / "examples/udhr/udhr.jsonl.gz"
GREEK, RUSSIAN, JAPANESE = "αβγ", "привет", "世界人権宣言は"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *[
            ("Latn", "Latn"),
            ("latn", "Latn"),
            ("LATIN", "Latn"),
            ("Cyrillic", "Cyrl"),
            ("Canadian aboriginal", "Cans"),
        ],
        *[
            ("Simplified Han", "Hans"),
            ("Hangul", "Kore"),
            ("Hang", "Kore"),
            ("Hani", "Hani"),
            ("Han", "Hani"),
        ],
        *[
            ("Japn", "Jpan"),
            ("Hrkt", "Jpan"),
            ("Latf", "Latn"),
            ("Aran", "Arab"),
            ("Zyyy", "Zyyy"),
            ("Kawi", "Kawi"),
        ],
    ],
)
def test_codes_names_and_styles_of_scripts_lead_to_one_code(code: str, expected: str) -> None:
    assert script_code(code) == expected


def test_every_script_of_unicode_is_known() -> None:
    joined = {"Hang": "Kore", "Hira": "Jpan", "Kana": "Jpan", "Hrkt": "Jpan", "Qaai": "Zinh", "Qaac": "Copt"}
    for code, name in unicodedata.Scripts.NAMES.items():
        assert script_code(code) == script_code(name) == joined.get(code, code)


@pytest.mark.parametrize(
    ("code", "told"), [("Latm", "nearest are Latn"), ("Qabc", "no script"), ("", "no script")]
)
def test_an_unknown_script_is_refused_with_the_nearest(code: str, told: str) -> None:
    with pytest.raises(CorpusError, match=told):
        script_code(code)


@pytest.mark.parametrize(
    ("declared", "detected", "agree"),
    [
        *[("Latn", "Latn", True), ("Latn", "Cyrl", False), (None, "Cyrl", True), ("Latn", None, True)],
        *[("Jpan", "Hani", True), ("Hani", "Jpan", False), ("Kore", "Hani", True), ("Hans", "Hani", True)],
        *[("Hant", "Jpan", False), ("Kore", "Jpan", False), ("Zyyy", "Latn", True), ("Zxxx", "Latn", True)],
    ],
)
def test_declared_and_detected_scripts_are_compared_by_their_letters(
    declared: str | None, detected: str | None, agree: bool
) -> None:
    assert scripts_agree(declared, detected) is agree


def test_a_category_may_allow_a_script_in_all_its_text() -> None:
    assert not scripts_agree("Cyrl", "Latn")
    assert scripts_agree("Cyrl", "Latn", allowed={"Latn"})


@pytest.mark.parametrize(
    ("text", "script"),
    [
        *[("", None), ("12 345 — …!", None), ("٣٤٥", None), ("🙂👍🏽", None), ("ー", None), ("\ud800", None)],
        *[
            ("x", "Latn"),
            (GREEK, "Grek"),
            (RUSSIAN, "Cyrl"),
            (JAPANESE, "Jpan"),
            ("世界人權宣言", "Hani"),
            ("カナ", "Jpan"),
        ],
        *[("세계 人權 선언", "Kore"), ("ꦲ", "Java"), ("𞤀", "Adlm"), ("\U0010fffd x", "Latn")],
        # 1 kana among 20 Han letters is a quotation, 1 among 6 is not
        *[("中" * 19 + "の", "Hani"), ("中" * 5 + "の", "Jpan"), ("word " + RUSSIAN, "Cyrl")],
        # together kana and Han outnumber the Latin letters, neither does alone
        ("abcd" + "中中中のの", "Jpan"),
    ],
)
def test_the_script_is_that_of_most_letters(text: str, script: str | None) -> None:
    assert scripts_of([text]) == [script]


def test_a_batch_answers_for_each_text() -> None:
    texts = ["", GREEK, "1", RUSSIAN, "", JAPANESE, "\udfff x"]
    assert scripts_of(texts) == [answer for text in texts for answer in scripts_of([text])]
    assert scripts_of([]) == []


def test_the_scripts_of_448_languages_are_those_of_glotscript() -> None:
    with gzip.open(UDHR, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines][::3]
    wholes = {"Hira": "Jpan", "Kana": "Jpan", "Hang": "Kore"}  # which it does not know
    for text, script in zip(texts, scripts_of(texts), strict=True):
        expected = sp(text)[0]
        if expected == "Hani":  # of Japanese titles too
            assert script == ("Jpan" if set(text) & set("のとはにをるし") else "Hani")
        else:
            assert script == wholes.get(expected, expected)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (
            "パッケージの再ビルドには dpkg-buildpackage -us -uc を使い、debian/changelog を更新します。",
            "Jpan",
        ),
        ("Команда apt-get install debian-handbook устанавливает пакет; dpkg -L shows its files", "Cyrl"),
        ("软件包由 dpkg-buildpackage --unsigned-source 重新编译。", "Hani"),
        (
            "The Greek word λόγος stands at the beginning of the Gospel of John and of many a dictionary.",
            "Latn",
        ),
        (
            "In Japan the programme is called 管理者ハンドブック, says the translator of the English edition.",
            "Latn",
        ),
    ],
)
def test_latin_names_and_commands_are_guests_in_text_of_other_scripts(text: str, script: str) -> None:
    assert scripts_of([text]) == [script]
