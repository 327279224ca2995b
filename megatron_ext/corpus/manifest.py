"""The manifest of a corpus: where text comes from, and what becomes of it.

A YAML file with one `Manifest`, read by `read_manifest`. Every key but ``name``, ``output`` and ``sources`` has a
default. Paths are relative to the folder in which the command runs, as in a run's configuration.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from megatron_ext.config.load import load_section
from megatron_ext.config.section import Fraction, NonNegativeInt, PositiveInt, Section
from megatron_ext.config.sections import TokenizerConfig
from megatron_ext.corpus.cleaning.config import CleaningConfig
from megatron_ext.corpus.counts import Category
from megatron_ext.corpus.duplicates.config import PRESETS, MinHashConfig
from megatron_ext.corpus.labels.identifiers import DEFAULT_IDENTIFIER
from megatron_ext.corpus.labels.rules import Macrolanguages

KINDS = (".jsonl", ".txt", ".parquet", ".arrow")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # of sources: stands in counts and in file names

Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(strict=False, min_length=1),
]


def _preset(value: object) -> object:
    """The parameters behind the name of a preset."""
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"{value} is no preset; those are {', '.join(PRESETS)}")
    return next(config.model_dump() for name, config in PRESETS.items() if name == value)


class LanguageConfig(Section):
    """Where the language of a source's documents is written: exactly one of the first four keys says so.

    Codes are in any form that `megatron_ext.corpus.labels` knows: ``eng``, ``en-US``, ``English``, ``eng_Latn``.
    """

    fixed: Names | None = Field(default=None, description="one code, or in bilingual text two")
    field: str | None = Field(default=None, description="key or column that holds the code")
    path: str | None = Field(
        default=None,
        description="regular expression searched in a file's path, with a group `language`, and perhaps `script`",
    )
    detect: bool = Field(default=False, description="identify the language of each document")
    script: str | None = Field(default=None, description="ISO 15924 code of all documents")
    script_field: str | None = Field(default=None, description="key or column that holds an ISO 15924 code")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ways = [name for name in ("fixed", "field", "path", "detect") if getattr(self, name)]
        if len(ways) != 1:
            raise ValueError(
                f"needs exactly one of fixed, field, path and detect, not {' and '.join(ways) or 'none'}"
            )
        if self.script is not None and self.script_field is not None:
            raise ValueError("script and script_field exclude each other")
        if self.fixed is not None and len(self.fixed) > 2:
            raise ValueError("fixed holds one code, or two for bilingual text")
        if self.path is not None:
            _check_pattern(self.path)
        return self


class SourceConfig(Section):
    """Files of one origin."""

    name: str = Field(pattern=NAME, description="letters, digits, dots, hyphens and underscores")
    files: Names = Field(description="files, globs, folders")
    format: Literal[KINDS] | None = Field(  # type: ignore[valid-type]
        default=None,
        description="kind of its files, in place of their endings; compression goes by the ending",
    )
    text_key: Names = Field(
        default=("text",),
        description="key or column of the text; of several, the texts are joined by newlines",
    )
    language: LanguageConfig = Field(description="where the language is written, such as {fixed: eng}")
    category: Category = "mono"
    category_field: str | None = Field(
        default=None, description="key or column that holds the category of each document"
    )
    licence: str | None = Field(default=None, description="stands in corpus.json")
    on_error: Literal["fail", "skip"] = Field(
        default="fail", description="whether a bad line ends the work or is left out and counted"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.language.fixed is not None and len(self.language.fixed) == 2 and self.category != "bilingual":
            raise ValueError("language.fixed names two languages, so category has to be bilingual")
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys or columns that are read, those of the text first, each once."""
        more = (self.language.field, self.language.script_field, self.category_field)
        return tuple(dict.fromkeys([*self.text_key, *(key for key in more if key is not None)]))


class LabelsConfig(Section):
    """How codes and scripts become labels such as ``eng_Latn``."""

    aliases: str | None = Field(
        default=None, description="YAML file of codes and labels with what they stand for"
    )
    macrolanguages: Macrolanguages = Field(
        default="individual",
        description="what becomes of est and ekk: individual (ekk), macro (est), or keep both",
    )
    identifier: str = Field(
        default=DEFAULT_IDENTIFIER,
        description=f"of languages: {DEFAULT_IDENTIFIER}, or a fastText model's file",
    )
    min_confidence: Fraction = Field(
        default=0.5, description="below it, an identified language is not believed: the document is left out"
    )
    script_disagreement: Literal["keep", "relabel", "drop"] = Field(
        default="keep",
        description="what becomes of text in another script than declared, or, where a model alone says the language, "
        "than that is mostly written in: keep it under that label, relabel it by the script that is seen, or drop it",
    )


class DuplicatesConfig(Section):
    """Which documents are one and the same, and what is kept of them."""

    exact: Literal["corpus", "label", "off"] = Field(
        default="corpus", description="among which documents the same text is kept once"
    )
    minhash: Annotated[MinHashConfig | None, BeforeValidator(_preset)] = Field(
        default=PRESETS["fineweb2"],
        description=f"how near-duplicates of one label are found: {', '.join(PRESETS)}, or bands, rows and so on; "
        "null: they are not",
    )
    rehydrate: bool = Field(
        default=False, description="keep as many copies as FineWeb2 does by the number of duplicates"
    )
    memory_bytes: int = Field(default=1 << 30, ge=1 << 20, description="for sorting; less takes longer")


class ValidationConfig(Section):
    """Documents held out of each set, chosen by the hash of their text."""

    share: Fraction = 0.01
    min_documents: NonNegativeInt = 5
    max_documents: NonNegativeInt = 1000
    max_share: Fraction = Field(
        default=0.1, description="goes before min_documents: small sets keep their text"
    )


class ShardsConfig(Section):
    """Files of text that are written."""

    max_bytes: PositiveInt = Field(default=1_000_000_000, description="text of a shard, uncompressed")
    compression: Literal["zst", "gz", "none"] = "zst"


class TokenizeConfig(TokenizerConfig):
    """The tokenizer of the .bin/.idx sets."""

    append_eod: bool = True
    prepend_bos: bool = False


class Manifest(Section):
    """The whole file."""

    name: str = Field(pattern=NAME, description="of the corpus")
    output: str = Field(description="folder of the corpus")
    sources: Annotated[tuple[SourceConfig, ...], Field(strict=False, min_length=1)] = Field(
        description="list of name, files, language"
    )
    labels: LabelsConfig = LabelsConfig()
    cleaning: CleaningConfig = CleaningConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    validation: ValidationConfig = ValidationConfig()
    shards: ShardsConfig = ShardsConfig()
    tokenizer: TokenizeConfig | None = Field(
        default=None, description="makes a .bin/.idx of each set; without it, there are shards of text only"
    )
    max_document_bytes: int = Field(
        default=64 << 20, ge=1 << 20, description="a longer line, file or value of text is an error"
    )
    removed_examples: NonNegativeInt = Field(
        default=0, description="documents of each rule to write to removed/RULE.jsonl"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [source.name for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"sources: two are called {twice}; give each a name of its own")
        return self


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        ConfigError: with a line for each problem, which names file, line, key and the fix.
    """
    return load_section(path, Manifest)


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"path is no regular expression: {error}") from error
    if "language" not in groups or set(groups) - {"language", "script"}:
        raise ValueError("path needs a group (?P<language>…), and may have one (?P<script>…)")
