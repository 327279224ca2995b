import gzip
import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iso639 import ALL_LANGUAGES

from megatron_ext.corpus.labels.exceptions import MEMBERS_BY_SCRIPT
from megatron_ext.corpus.labels.languages import macrolanguage, main_member, read_code
from megatron_ext.corpus.labels.libraries import library
from megatron_ext.corpus.labels.rules import LabelRules
from megatron_ext.errors import CorpusError, MissingDependencyError

RULES = LabelRules()
UDHR = Path(__file__).parents[4] / "examples/udhr/udhr.jsonl.gz"
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
        *[
            ("map-bms", "jav"),
            ("bat-smg", "sgs"),
            ("cbk-zam", "cbk"),
            ("be-x-old", "bel"),
            ("simple", "eng"),
            ("fa-AF", "prs"),
        ],
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


def test_both_codes_of_every_translation_in_the_sample_lead_to_one_language() -> None:
    with gzip.open(UDHR, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    pairs = {(row["bcp47"], row["iso639_3"]) for row in rows if row["iso639_3"]}
    assert len(pairs) > 400
    # Their macrolanguage has no main member, or another: of Akan that is Twi.
    others = {("ak", "fat"), ("za", "zyb"), ("man", "emk"), ("hmn", "hea"), ("ps", "pbu"), ("qu", "quz")}
    assert {pair for pair in pairs if RULES.language(pair[0]) != RULES.language(pair[1])} == others


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.module"])
def test_a_missing_package_is_named_with_what_installs_it(module: str) -> None:
    with pytest.raises(
        MissingDependencyError, match=r"iso is needed to read codes; .*megatron-ext\[corpus\]"
    ):
        library(module, "iso", "read codes")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12) | st.text("enzhx-_Latn01 ", max_size=12))
def test_any_text_is_read_or_refused(code: str) -> None:
    try:
        language = read_code(code).language
    except CorpusError as error:
        with pytest.raises(CorpusError, match=re.escape(str(error))):
            read_code(code)
    else:
        assert language in {known.part3 for known in ACTIVE}


def test_text_in_the_place_of_a_code_is_refused_in_few_words() -> None:
    with pytest.raises(CorpusError, match="is text, and no code") as caught:
        read_code("word " * 100_000)
    assert len(str(caught.value)) < 100


def test_main_members_are_members() -> None:
    individual = {language.part3: language.macrolanguage for language in ACTIVE}
    merged = [language.part3 for language in ACTIVE if main_member(language.part3) != language.part3]
    assert len(merged) > 40
    for whole in merged:
        assert individual[main_member(whole)] == whole
        assert macrolanguage(main_member(whole)) == whole
    for (whole, _), member in MEMBERS_BY_SCRIPT.items():
        assert individual[member] == whole


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
