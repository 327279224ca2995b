"""What a run reads, opened and checked together, also by launching, before processes start."""

import dataclasses
import importlib.util
import logging

from megatron_ext.config.sections import RunConfig
from megatron_ext.data.build import Datasets, build_datasets
from megatron_ext.errors import MissingDependencyError, TokenizerError
from megatron_ext.tokenizer.build import Tokenizer, build_tokenizer
from megatron_ext.train.start import HFStart, Start, find_start


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Tokenizer, token files and first checkpoint of a run."""

    tokenizer: Tokenizer
    datasets: Datasets
    start: Start | HFStart | None


def check_inputs(config: RunConfig) -> None:
    """Open everything once in this process, saying nothing unless it is wrong; see :func:`open_inputs`."""
    package = logging.getLogger("megatron_ext")
    level = package.level
    package.setLevel(logging.WARNING)  # the plan is rank 0's to print
    try:
        open_inputs(config)
    finally:
        package.setLevel(level)


def open_inputs(config: RunConfig) -> Inputs:
    """Open everything that ``config`` names.

    Raises:
        MissingDependencyError: FP8 is asked for, without Transformer Engine.
        TokenizerError: the tokenizer cannot be read, or has ids that the model's embedding lacks.
        DataError: token files are missing, damaged, empty, or were made with another tokenizer.
        CheckpointError: the checkpoint or Hugging Face folder to start from is missing or of another model.
    """
    if config.training.fp8 is not None and importlib.util.find_spec("transformer_engine") is None:
        raise MissingDependencyError(
            "transformer-engine",
            "train in FP8 (training.fp8)",
            "pip install --no-build-isolation 'transformer-engine[pytorch]'",
        )
    start = find_start(config)
    tokenizer = build_tokenizer(config.tokenizer.type, config.tokenizer.model)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise TokenizerError(
            f"the tokenizer {config.tokenizer.model or config.tokenizer.type} has {tokenizer.vocab_size} ids, "
            f"but model.vocab_size is {config.model.vocab_size}; use the model's own tokenizer or extend the embedding"
        )
    datasets = build_datasets(
        config.data,
        seq_length=config.training.seq_length,
        seed=config.training.seed,
        train_samples=config.training.train_samples,
        eod_id=tokenizer.eos_id,
    )
    if datasets.tokenizer is not None and datasets.tokenizer.sha256 != tokenizer.fingerprint:
        raise TokenizerError(
            f"the training data was made with another tokenizer ({datasets.tokenizer.type}, "
            f"sha256 {datasets.tokenizer.sha256[:12]}…) than tokenizer.model, {config.tokenizer.model} "
            f"(sha256 {tokenizer.fingerprint[:12]}…); name that one, or preprocess the text again"
        )
    return Inputs(tokenizer, datasets, start)
