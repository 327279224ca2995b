"""What is wrong in a manifest is said with file, line, key and what to write instead, all at once."""

from pathlib import Path

import pytest

from megatron_ext.corpus.duplicates.config import PRESETS
from megatron_ext.corpus.manifest import (
    DuplicatesConfig,
    LabelsConfig,
    Manifest,
    ShardsConfig,
    SourceConfig,
    TokenizeConfig,
    ValidationConfig,
    read_manifest,
)
from megatron_ext.errors import ConfigError

HEAD = "name: test\noutput: corpus\nsources:\n"
SOURCE = "  - name: web\n    files: in\n    language: {fixed: eng}\n"


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "corpus.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_manifest(path)
    return [problem.replace(f"{path}:", "") for problem in caught.value.problems]


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    path.write_text(HEAD + SOURCE)
    manifest = read_manifest(path)
    (source,) = manifest.sources
    assert (source.files, source.text_key, source.category, source.keys) == (
        ("in",),
        ("text",),
        "mono",
        ("text",),
    )
    assert manifest.duplicates.minhash == PRESETS["fineweb2"]
    assert manifest.tokenizer is None


def test_presets_and_parameters_of_minhash(tmp_path: Path) -> None:
    path = tmp_path / "corpus.yaml"
    for text, wanted in (
        ("hplt", PRESETS["hplt"]),
        ("null", None),
        ("{bands: 3, rows: 2}", PRESETS["fineweb2"].model_copy(update={"bands": 3, "rows": 2})),
    ):
        path.write_text(f"{HEAD}{SOURCE}duplicates: {{minhash: {text}}}\n")
        assert read_manifest(path).duplicates.minhash == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HEAD + SOURCE + "shard: {}\n", ["7: shard: unknown key; did you mean shards?"]),
        (
            HEAD + "  - name: web\n    files: in\n    langage: {fixed: eng}\n",
            [
                "4: sources[0].language: missing (where the language is written, such as {fixed: eng})",
                "6: sources[0].langage: unknown key; did you mean language?",
            ],
        ),
        (
            HEAD + SOURCE + "    category: books\n    text_keys: body\n",
            [
                "7: sources[0].category=books: must be 'mono', 'code', 'book', 'paper', 'instruction' or "
                "'bilingual'; did you mean book?",
                "8: sources[0].text_keys: unknown key; did you mean text_key?",
            ],
        ),
        (HEAD.replace("sources:\n", "sources: []\n"), ["3: sources: "]),
        (
            HEAD + "  - {name: a, files: in, language: {fixed: eng, detect: true}}\n",
            [
                "4: sources[0].language: needs exactly one of fixed, field, path and detect, not fixed and detect"
            ],
        ),
        (
            HEAD + "  - {name: a, files: in, language: {}}\n",
            ["4: sources[0].language: needs exactly one of fixed, field, path and detect, not none"],
        ),
        (
            HEAD + "  - {name: a, files: in, language: {fixed: [eng, fra]}}\n",
            ["4: sources[0]: language.fixed names two languages, so category has to be bilingual"],
        ),
        (
            HEAD + "  - {name: a, files: in, language: {path: '([a-z]'}}\n",
            ["4: sources[0].language: path is no regular expression: "],
        ),
        (
            HEAD + "  - {name: a, files: in, language: {path: '([a-z]+)'}}\n",
            ["4: sources[0].language: path needs a group (?P<language>…), and may have one (?P<script>…)"],
        ),
        (HEAD + SOURCE + SOURCE, ["sources: two are called web; give each a name of its own"]),
        (
            HEAD + SOURCE + "duplicates: {minhash: fineweb}\n",
            ["7: duplicates.minhash=fineweb: fineweb is no preset; those are fineweb2, hplt, text_dedup"],
        ),
        (
            HEAD + SOURCE + "validation: {share: 2}\n",
            ["7: validation.share=2: should be less than or equal to 1"],
        ),
        (
            HEAD + SOURCE + "tokenizer: {type: SentencePiece}\n",
            ["7: tokenizer.type=SentencePiece: must be 'SentencePieceTokenizer', "],
        ),
    ],
)
def test_problems(tmp_path: Path, text: str, told: list[str]) -> None:
    found = problems(tmp_path, text)
    assert len(found) == len(told), found
    for problem, wanted in zip(found, told, strict=True):
        assert wanted in problem


SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "corpus").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_manifests_are_read(path: Path) -> None:
    assert read_manifest(path).name == path.stem


def test_the_example_shows_every_key_with_its_default() -> None:
    example = read_manifest(SHIPPED[0].with_name("example.yaml"))
    shown = {
        line.split(":")[0].strip(" #-")
        for line in SHIPPED[0].with_name("example.yaml").read_text().splitlines()
    }
    defaults = Manifest(name="example", output="o", sources=example.sources)
    for key, value in example:
        if key not in ("name", "output", "sources"):
            assert value == getattr(defaults, key), key
    sections = (
        Manifest,
        LabelsConfig,
        DuplicatesConfig,
        ValidationConfig,
        ShardsConfig,
        TokenizeConfig,
        SourceConfig,
    )
    assert {key for section in sections for key in section.model_fields} - shown == set()
