"""What can go wrong in a way its user can mend: each of these ends a command with one message and exit code 2."""


class MegatronExtError(Exception):
    """Base of every error that is the input's fault; its text names the file, line or key, and the fix."""

    exit_code = 2


class ConfigError(MegatronExtError):
    """A run configuration is wrong. Carries every problem found, one per line."""

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class DataError(MegatronExtError):
    """A text file, an indexed dataset or a blend cannot be used."""


class CorpusError(MegatronExtError):
    """A source of a corpus, its manifest, or a mixture of it cannot be used."""


class TokenizerError(MegatronExtError):
    """A tokenizer cannot be loaded, or does not fit the model or the data."""


class CheckpointError(MegatronExtError):
    """A checkpoint is missing, incomplete, unsafe, or of another model."""


class ConversionError(MegatronExtError):
    """A Hugging Face checkpoint and the canonical tensors do not correspond."""


class LaunchError(MegatronExtError):
    """A launcher is missing or its environment makes no sense."""


class TrainingError(MegatronExtError):
    """Training cannot go on as it is configured."""


class MissingDependencyError(MegatronExtError):
    """An optional package is needed; the text says which one and how to install it."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{package} is needed to {purpose}; install it with: {install}")
