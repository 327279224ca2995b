"""Whether megatron-core computes from a checkpoint what transformers computes from a Hugging Face folder."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megatron_ext.backend.device import select_backend
from megatron_ext.checkpoint.distributed import load_weights
from megatron_ext.checkpoint.manifest import DtypeName, Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.section_data import DataConfig, DatasetConfig
from megatron_ext.config.section_optimizer import OptimizerConfig
from megatron_ext.config.sections import RunConfig, TokenizerConfig, TrainingConfig
from megatron_ext.errors import ConversionError, TokenizerError
from megatron_ext.evaluate.generate import checked_tokenizer, files_tokenizer, load_hf_model
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.transformer import build_model, to_training_precision, transformer_config
from megatron_ext.train.setup import start_processes

TOLERANCE: dict[DtypeName, float] = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}
"""Of the largest difference, relative to the largest logit where that is above 1."""

PROMPT = "A model and its copy read the same words; each must expect the same words to follow."
IDS_WITHOUT_TOKENIZER = 32


@dataclass(frozen=True)
class LogitsCompared:
    """What was compared: ``tokens`` positions in ``dtype``, the largest difference found, what was allowed."""

    tokens: int
    dtype: DtypeName
    largest_difference: float
    allowed: float


def prompt_ids(hf_path: Path, checkpoint: Path) -> list[int]:
    """``PROMPT`` in the folder's tokens; where it has no tokenizer, ids from all over the vocabulary."""
    vocab_size = Manifest.read(CheckpointStore.resolve(checkpoint)).model.vocab_size
    try:
        return checked_tokenizer(files_tokenizer(hf_path), vocab_size).encode(PROMPT)
    except TokenizerError:
        return [number * vocab_size // IDS_WITHOUT_TOKENIZER for number in range(IDS_WITHOUT_TOKENIZER)]


def compare_logits(
    hf_path: Path, checkpoint: Path, ids: list[int], rounded_to: DtypeName | None = None
) -> LogitsCompared:
    """Run a prompt through both; each model is in memory alone, in the dtype of the checkpoint.

    Args:
        hf_path: Hugging Face folder.
        checkpoint: a run's checkpoint folder (its latest), or one ``iter_…`` folder.
        ids: the prompt's token ids.
        rounded_to: what the weights of the Hugging Face folder were rounded to, which may be coarser.

    Raises:
        ConversionError: the logits differ by more than ``TOLERANCE``, or are not finite.
        MissingDependencyError: transformers is not installed.
    """
    folder = CheckpointStore.resolve(checkpoint)
    manifest = Manifest.read(folder)
    dtype = manifest.params_dtype
    tokens = torch.tensor([ids])
    theirs = _theirs(hf_path, dtype, tokens)
    ours = _ours(folder, manifest, tokens)
    difference = float((ours - theirs).abs().max())
    allowed = max(TOLERANCE[dtype], TOLERANCE[rounded_to or dtype]) * max(1.0, float(theirs.abs().max()))
    if not difference <= allowed:  # so that NaN is refused, too
        raise ConversionError(
            f"the conversion is not right, do not use it: logits of megatron-core from {folder} and of "
            f"transformers from {hf_path} differ by {difference:.3g} in {dtype}, more than {allowed:.3g}"
        )
    return LogitsCompared(len(ids), dtype, difference, allowed)


def _ours(folder: Path, manifest: Manifest, tokens: torch.Tensor) -> torch.Tensor:
    run = _run(manifest, tokens.shape[1])
    with _one_process(run):
        backend = select_backend("auto", local_rank=0, local_world_size=1)
        config = transformer_config(run, fused_kernels=backend.fused_kernels)
        model = to_training_precision(build_model(run, config), config, backend.device)
        load_weights(folder, model)
        with torch.inference_mode():
            logits: torch.Tensor = model[0](tokens.to(backend.device), None, None)
        return logits[..., : manifest.model.vocab_size].float().cpu()


def _theirs(hf_path: Path, dtype: DtypeName, tokens: torch.Tensor) -> torch.Tensor:
    model = load_hf_model(hf_path, dtype)
    with torch.inference_mode():
        logits: torch.Tensor = model(tokens.to(model.device)).logits
    return logits.float().cpu()


def _run(manifest: Manifest, seq_length: int) -> RunConfig:
    """A run of the checkpoint's model that reads nothing and trains nothing."""
    return RunConfig(
        name="verify",
        model=manifest.model,
        tokenizer=TokenizerConfig(type="ByteTokenizer"),
        data=DataConfig(train=(DatasetConfig(path="none"),)),
        training=TrainingConfig(
            micro_batch_size=1,
            global_batch_size=1,
            seq_length=seq_length,
            train_iters=1,
            precision=manifest.params_dtype,
            gradient_accumulation_fusion=False,
        ),
        optimizer=OptimizerConfig(lr=1e-5),
    )


@contextlib.contextmanager
def _one_process(run: RunConfig) -> Iterator[None]:
    """megatron-core's groups of this process alone, on a free port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    backend = select_backend("auto", local_rank=0, local_world_size=1)
    start_processes(run, ProcessEnvironment(master_port=port), backend)
    try:
        yield
    finally:
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()
