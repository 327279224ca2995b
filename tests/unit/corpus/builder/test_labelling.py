"""The label of a document: what was declared, beside what its letters show."""

from pathlib import Path
from typing import Any

import pytest

from megatron_ext.corpus.builder.labelling import Declared, Labeller
from megatron_ext.corpus.manifest import LabelsConfig, LanguageConfig, Manifest, SourceConfig


def labeller(choice: str = "keep", **language: Any) -> Labeller:
    source = SourceConfig(name="a", files=("x",), language=LanguageConfig(**language or {"fixed": ("eng",)}))
    labels = LabelsConfig(script_disagreement=choice)
    return Labeller(Manifest(name="a", output="o", sources=(source,), labels=labels))


@pytest.mark.parametrize(
    ("code", "script", "seen", "label", "disagreement"),
    [
        ("en", None, "Latn", "eng_Latn", None),
        ("en", "Latn", None, "eng_Latn", None),
        ("en", None, None, "eng_Latn", None),  # without letters: what English is written in
        ("zxx", None, None, "zxx_Zyyy", None),
        ("ja", None, "Hani", "jpn_Jpan", None),
        ("ja", None, "Latn", "jpn_Latn", "jpn_Latn, mostly in Jpan"),
        ("ja", "Jpan", "Latn", "jpn_Jpan", "jpn_Jpan in Latn"),
        ("zh", "Hans", "Hani", "cmn_Hans", None),
        ("zh", "Hans", "Jpan", "cmn_Hans", "cmn_Hans in Jpan"),
    ],
)
def test_kept_labels(
    code: str, script: str | None, seen: str | None, label: str, disagreement: str | None
) -> None:
    assert labeller().label(Declared((code,), (script,)), seen) == (label, disagreement)


@pytest.mark.parametrize(
    ("declared", "relabelled", "dropped"),
    [
        (Declared(("jpn",), ("Jpan",)), "jpn_Latn", None),
        (
            Declared(("jpn",), (None,)),
            "jpn_Latn",
            "jpn_Latn",
        ),  # a person said Japanese, and nothing of its script
        (Declared(("jpn",), (None,), identified=True), "jpn_Latn", None),
    ],
)
def test_choices(declared: Declared, relabelled: str | None, dropped: str | None) -> None:
    assert labeller("relabel").label(declared, "Latn").label == relabelled
    assert labeller("drop").label(declared, "Latn").label == dropped


@pytest.mark.parametrize(
    ("codes", "label"),
    [(("eng", "rus"), "eng_Latn-rus_Cyrl"), (("sr-Latn", "zh-TW"), "srp_Latn-cmn_Hant")],
)
def test_bilingual_text_has_the_scripts_of_its_languages(codes: tuple[str, str], label: str) -> None:
    source = SourceConfig(name="a", files=("x",), language=LanguageConfig(fixed=codes), category="bilingual")
    one = labeller()
    for seen in ("Latn", "Cyrl", "Hani"):
        assert one.label(one.of_file(source, Path("x")), seen).label == label
