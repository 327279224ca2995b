"""``corpus.json``: what a built corpus holds, set by set. The builder writes it, the mixture planner reads it."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_ext.errors import CorpusError
from megatron_ext.utils.atomic import write_text

FILE_NAME = "corpus.json"
CATEGORIES = ("mono", "code", "book", "paper", "instruction", "bilingual")
Category = Literal["mono", "code", "book", "paper", "instruction", "bilingual"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartCounts(_Strict):
    """The training or the validation text of a set."""

    documents: int = Field(default=0, ge=0)
    characters: int = Field(default=0, ge=0, description="Unicode code points")
    bytes: int = Field(default=0, ge=0, description="of UTF-8")
    whitespace_tokens: int = Field(default=0, ge=0, description="runs of characters other than white space")
    tokens: int | None = Field(
        default=None, ge=0, description="by the tokenizer, EODs included; None: not tokenized"
    )
    files: tuple[str, ...] = Field(default=(), description="of text, relative to corpus.json")
    datasets: tuple[str, ...] = Field(
        default=(), description="prefixes of .bin and .idx, relative to corpus.json"
    )


class SetCounts(_Strict):
    """All text of one label in one category."""

    category: Category
    label: str = Field(
        description="ISO 639-3 and ISO 15924, such as eng_Latn; in bilingual text two, with a hyphen"
    )
    train: PartCounts
    valid: PartCounts = PartCounts()
    sources: dict[str, int] = Field(default={}, description="documents kept from each source of the manifest")

    @property
    def name(self) -> str:
        """``category/label``, which no other set has."""
        return f"{self.category}/{self.label}"

    @property
    def fertility(self) -> float | None:
        """Tokenizer's tokens for each whitespace token of the training text; None where one of them is not known."""
        train = self.train
        return train.tokens / train.whitespace_tokens if train.tokens and train.whitespace_tokens else None


class Corpus(_Strict):
    """The whole file."""

    format: Literal["megatron_ext corpus 1"] = "megatron_ext corpus 1"
    sets: tuple[SetCounts, ...]
    documents_read: dict[str, int] = Field(default={}, description="by source")
    skipped: dict[str, int] = Field(default={}, description="bad lines left out, by reason")
    removed: dict[str, int] = Field(default={}, description="documents left out, by rule")
    repaired: dict[str, int] = Field(default={}, description="documents changed, by rule")
    disagreements: dict[str, int] = Field(
        default={}, description="documents in another script than declared, by label and script"
    )
    tokenizer: dict[str, str | None] | None = Field(default=None, description="type, model and sha256")
    manifest: dict[str, Any] = Field(
        default={}, description="what the corpus was built from, with all defaults"
    )
    digest: str | None = Field(
        default=None, description="of the input files and all that decides what became of them"
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read ``corpus.json``, or the folder that holds it.

        Raises:
            CorpusError: it is not there, or is not what it should be.
        """
        file = path / FILE_NAME if path.is_dir() else path
        try:
            return cls.model_validate_json(file.read_bytes())
        except OSError as error:
            raise CorpusError(
                f"{file}: cannot be read: {error.strerror}; build it with tools/build_corpus.py"
            ) from error
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise CorpusError(f"{file}: not the counts of a corpus ({found}); build it again") from error

    def write(self, folder: Path) -> None:
        """Write ``corpus.json`` into ``folder``, complete or not at all."""
        write_text(folder / FILE_NAME, self.model_dump_json(indent=1) + "\n")
