import json
import pickle

import pytest
from iso639 import ALL_LANGUAGES

from megatron_ext.corpus.labels.languages import macrolanguage, main_member, read_code
from megatron_ext.corpus.labels.rules import LabelRules
from megatron_ext.errors import CorpusError

RULES = LabelRules()
ACTIVE = [language for language in ALL_LANGUAGES if language.status == "A"]


def test_every_code_and_reference_name_of_iso_639_3_is_read() -> None:
    for language in ACTIVE:
        for code in (
            language.part3,
            language.part3.upper(),
            language.part2t,
            language.part2b,
            language.part1,
        ):
            assert code is None or read_code(code).language == language.part3
        if len(language.name) > 3:  # shorter ones are codes: Aka is the name of axk, and the code of Akan
            assert read_code(language.name).language == language.part3


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *[
            ("en-Latn-US", "eng"),
            ("en_US", "eng"),
            ("eng_Latn", "eng"),
            ("de-1996", "deu"),
            ("en-x-pirate", "eng"),
        ],
        *[
            ("English", "eng"),
            ("traditional chinese", "cmn"),
            ("Farsi", "pes"),
            ("Odia", "ory"),
            ("Mandarin", "cmn"),
        ],
        # withdrawn from ISO 639-1, 639-2 and 639-3, or registered before BCP 47
        *[
            ("iw", "heb"),
            ("in", "ind"),
            ("ji", "ydd"),
            ("jw", "jav"),
            ("mo", "ron"),
            ("mol", "ron"),
            ("sh", "hbs"),
        ],
        *[("scc", "srp"), ("scr", "hrv"), ("ajp", "apc"), ("i-klingon", "tlh"), ("zh-min-nan", "nan")],
        *[("sgn-BE-FR", "sfb"), ("zh-yue", "yue"), ("ar-arz", "arz")],
        # macrolanguages and their main members
        *[("est", "ekk"), ("ekk", "ekk"), ("msa", "zsm"), ("aze", "azj"), ("ori", "ory"), ("zh", "cmn")],
        *[
            ("no", "nob"),
            ("nb", "nob"),
            ("nn", "nno"),
            ("fa", "pes"),
            ("prs", "prs"),
            ("ak", "twi"),
            ("hbs", "hbs"),
        ],
        *[("zap", "zap"), ("tl", "tgl"), ("fil", "fil"), ("sr-Latn", "srp"), ("bih", "bho"), ("bh", "bho")],
        # Wikipedia's
        *[("map-bms", "jav"), ("bat-smg", "sgs"), ("cbk-zam", "cbk"), ("be-x-old", "bel"), ("simple", "eng")],
        *[(code, code) for code in ("und", "zxx", "mul", "mis")],
    ],
)
def test_codes_names_and_habits_lead_to_iso_639_3(code: str, expected: str) -> None:
    assert RULES.language(code) == expected


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("Engish", r"no English name of a language; the nearest are English \(eng\)"),
        ("zhp", "nearest are zh, "),
        ("bat", "group of languages .*sgs"),
        ("eml", r"retired .*Split into Emilian \[egl\] and Romagnol \[rgn\]"),
        ("qaa", "reserved for local use"),
        ("x-ours", "private"),
        ("cbk-zap", "zap is not one of the languages of cbk"),
        ("Germanic", "no English name"),  # not German, which it begins with
        ("en Latn", "no code"),
        ("", "no code"),
        ("x", "no code"),
        ("e\0n", "no code"),
    ],
)
def test_what_is_no_language_is_refused_with_a_way_out(code: str, told: str) -> None:
    with pytest.raises(CorpusError, match=told):
        RULES.language(code)


def test_main_members_are_members() -> None:
    individual = {language.part3: language.macrolanguage for language in ACTIVE}
    merged = [language.part3 for language in ACTIVE if main_member(language.part3) != language.part3]
    assert len(merged) > 40
    for whole in merged:
        assert individual[main_member(whole)] == whole
        assert macrolanguage(main_member(whole)) == whole


@pytest.mark.parametrize(
    ("code", "script"),
    [
        ("zh-Hans", "Hans"),
        ("zh-TW", "Hant"),
        ("yue-HK", "Hant"),
        ("zh", None),
        ("en-US", None),
        ("sr-cyrl", "Cyrl"),
    ],
)
def test_the_script_of_a_tag_is_kept_and_the_form_of_chinese_follows_the_region(
    code: str, script: str | None
) -> None:
    assert read_code(code).script == script


def test_rules_travel_to_other_processes() -> None:
    rules = LabelRules({"xx-old": "eng"})
    assert pickle.loads(pickle.dumps(rules)).language("XX_old") == "eng"  # noqa: S301 - our own bytes
    assert json.dumps(dict(rules.aliases)) == '{"xx-old": "eng"}'
