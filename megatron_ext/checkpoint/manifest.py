"""What a checkpoint is, in one JSON file that a person can read: ``manifest.json``."""

from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from megatron_ext.config.section import NonNegativeInt, Section
from megatron_ext.config.sections import ModelConfig, TokenizerConfig
from megatron_ext.errors import CheckpointError
from megatron_ext.utils.atomic import write_text

FILE_NAME = "manifest.json"
DtypeName = Literal["fp32", "bf16", "fp16"]


class Manifest(Section):
    """Shape of the model, position in the data, and who wrote it.

    Attributes:
        skipped_iterations: those of ``iteration`` whose fp16 gradients overflowed.
        distributed_optimizer: how the optimizer's state is laid out; None without one.
        params_dtype: of the model's weights in the file; optimizer state has its own.
        tokenizer: what the run was trained with, where a run wrote the checkpoint.
        versions: package name to version, of the writer.
    """

    format_version: Literal[1] = 1
    model: ModelConfig
    iteration: NonNegativeInt
    consumed_samples: NonNegativeInt
    consumed_tokens: NonNegativeInt
    skipped_iterations: NonNegativeInt = 0
    has_optimizer: bool
    distributed_optimizer: bool | None = None
    params_dtype: DtypeName
    tokenizer: TokenizerConfig | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``folder/manifest.json``."""
        write_text(folder / FILE_NAME, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read ``folder/manifest.json``.

        Raises:
            CheckpointError: there is none, or it holds a key or a version this release does not know.
        """
        path = folder / FILE_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: missing; {folder} is not a checkpoint of megatron_ext") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()
            )
            raise CheckpointError(f"{path}: {problems}") from error


def writer_versions() -> dict[str, str]:
    """Versions of the packages that decide what a checkpoint holds."""
    packages = ("megatron-ext", "megatron-core", "torch")
    known = {name: _version(name) for name in packages}
    return {name: version for name, version in known.items() if version is not None}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
