import csv
from pathlib import Path

import pytest

from megatron_ext.corpus.labels.languages import Declared
from megatron_ext.corpus.labels.rules import LabelRules, Macrolanguages, load_rules
from megatron_ext.errors import ConfigError, CorpusError

MALA = Path(__file__).parents[5] / "shared/data/mala/mala-monolingual.csv"


@pytest.mark.parametrize(
    ("language", "script", "label"),
    [
        *[("en", "Latn", "eng_Latn"), ("English", "latin", "eng_Latn"), ("eng_Latn", None, "eng_Latn")],
        *[("sr-Latn", None, "srp_Latn"), ("sr-Latn", "Cyrl", "srp_Cyrl"), ("en", None, "eng_Zyyy")],
        # Japanese and Korean are labelled by the whole of what they are written in
        *[
            ("jpn", "Japn", "jpn_Jpan"),
            ("ja", "Hani", "jpn_Jpan"),
            ("ko", "Hang", "kor_Kore"),
            ("ja", "Latn", "jpn_Latn"),
        ],
        # Chinese by the form that the code tells, else as letters are counted
        *[("zh-TW", "Hani", "cmn_Hant"), ("zh-Hans", "Hani", "cmn_Hans"), ("zho", "Hani", "cmn_Hani")],
        # the script tells which member of a macrolanguage it is
        *[
            ("ku", "Arab", "ckb_Arab"),
            ("ku", "Latn", "kmr_Latn"),
            ("kmr", "Arab", "kmr_Arab"),
            ("aze", "Arab", "azb_Arab"),
        ],
        *[("zxx", "Zyyy", "zxx_Zyyy"), ("und", None, "und_Zyyy"), ("bih", "Deva", "bho_Deva")],
    ],
)
def test_labels(language: str, script: str | None, label: str) -> None:
    rules = LabelRules()
    assert rules.label(language, script) == rules.label(language, script) == label


@pytest.mark.parametrize(
    ("choice", "labels"),
    [
        ("individual", ["ekk_Latn", "ekk_Latn", "cmn_Hani", "yue_Hani", "ckb_Arab"]),
        ("macro", ["est_Latn", "est_Latn", "zho_Hani", "yue_Hani", "kur_Arab"]),
        ("keep", ["est_Latn", "ekk_Latn", "zho_Hani", "yue_Hani", "kur_Arab"]),
    ],
)
def test_macrolanguages_as_chosen(choice: Macrolanguages, labels: list[str]) -> None:
    rules = LabelRules(macrolanguages=choice)
    declared = [("est", "Latn"), ("ekk", "Latn"), ("zho", "Hani"), ("yue", "Hani"), ("kur", "Arab")]
    assert [rules.label(*one) for one in declared] == labels


def test_aliases_win_over_the_tables_and_are_final() -> None:
    rules = LabelRules(
        {
            **{"xx-old": "English", "als": "gsw", "ekk": "est", "map": "xx-old", "fas": "fas", "kur": "kur"},
            **{"jpn_Japn": "jpn_Hrkt", "hbs_Latn": "hrv_Latn", "ours": "sr-Latn"},
        }
    )
    assert [rules.language(code) for code in ("XX_old", "map", "als", "sq")] == ["eng", "eng", "gsw", "gsw"]
    assert [rules.language(code) for code in ("ekk", "est", "et", "fas", "fa")] == [
        "est",
        "est",
        "est",
        "fas",
        "fas",
    ]
    assert rules.label("sh", "Latn") == rules.label("hbs_Latn") == "hrv_Latn"
    assert rules.label("sh", "Cyrl") == "hbs_Cyrl"
    assert rules.label("jpn_Japn") == "jpn_Jpan"
    assert rules.label("kur", "Arab") == "kur_Arab"
    assert rules.declared("ours") == Declared("srp", "Latn")


@pytest.mark.parametrize(
    ("aliases", "told"),
    [
        ({"a": "b", "b": "c", "c": "a"}, "alias a: aliases lead in a circle: a → b → c → a"),
        ({"old": "Engish"}, "alias old: 'Engish' is no code .*English"),
        ({"jpn_Japn": "jpn"}, "a label leads to a label"),
        ({"jpn_Japn": "jpn_Xxxx"}, "'Xxxx' is no script"),
        ({"x": "bat"}, "group of languages"),
    ],
)
def test_wrong_aliases_are_refused(aliases: dict[str, str], told: str) -> None:
    with pytest.raises(CorpusError, match=told):
        LabelRules(aliases)


def test_a_file_of_aliases_is_read_and_its_errors_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "aliases.yaml"
    path.write_text("aliases:\n  no: nno\n  jpn_Japn: jpn_Jpan\n")
    assert load_rules(path).language("no") == "nno"

    path.write_text("aliases:\n  ok: eng\n  old: Engish\n  x: y\n  y: x\n")
    with pytest.raises(CorpusError) as caught:
        load_rules(path)
    first, *circles = str(caught.value).splitlines()
    assert first.startswith(f"{path}:3: aliases.old: 'Engish'")
    assert [line.split(": ")[0] for line in circles] == [f"{path}:4", f"{path}:5"]

    for content, told in [
        ("alias: {}", f"{path}:1: alias: unknown key; did you mean aliases"),
        ("aliases: [", "YAML"),
    ]:
        path.write_text(content)
        with pytest.raises(ConfigError, match=told):
            load_rules(path)


@pytest.mark.skipif(not MALA.is_file(), reason="the table of MaLA is not in this project")
def test_every_label_of_mala_is_mapped_or_refused_with_a_reason() -> None:
    with MALA.open(encoding="utf-8") as lines:
        labels = [row["lang_code"] for row in csv.DictReader(lines)]
    rules = LabelRules()
    mapped: dict[str, str] = {}
    refused: dict[str, str] = {}
    for label in labels:
        try:
            mapped[label] = rules.label(*label.split("_"))
        except CorpusError as error:
            refused[label] = str(error)
    assert refused.keys() == {
        *(
            "bat_Cyrl",
            "bat_Latn",
            "ber_Latn",
            "fiu_Cyrl",
            "fiu_Latn",
            "map_Latn",
            "nah_Latn",
            "roa_Latn",
        ),  # groups
        *("eml_Latn", "qaa_Latn"),  # split into two languages; nobody's
    }
    assert len(labels) == 939
    assert all(rules.label(label) == label for label in mapped.values())
    assert {
        label: mapped[label] for label in ("est_Latn", "ekk_Latn", "jpn_Japn", "bih_Deva", "zxx_Zyyy")
    } == {
        **{"est_Latn": "ekk_Latn", "ekk_Latn": "ekk_Latn", "jpn_Japn": "jpn_Jpan", "bih_Deva": "bho_Deva"},
        "zxx_Zyyy": "zxx_Zyyy",
    }
