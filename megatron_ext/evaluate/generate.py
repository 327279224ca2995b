"""Continue a prompt with a checkpoint, ours or Hugging Face's, through transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_ext.backend.device import select_backend
from megatron_ext.checkpoint.canonical import DTYPES
from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.config.sections import TokenizerConfig
from megatron_ext.convert import assets
from megatron_ext.convert.to_hf import HFExport
from megatron_ext.errors import ConversionError, MissingDependencyError, TokenizerError
from megatron_ext.evaluate.sampling import Sampling
from megatron_ext.tokenizer.base import Tokenizer
from megatron_ext.tokenizer.build import build_tokenizer
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A transformers model in evaluation mode, and the tokenizer whose ids it knows."""

    model: Any
    tokenizer: Tokenizer


def load_checkpoint(checkpoint: Path, tokenizer: TokenizerConfig | None = None) -> LoadedModel:
    """Load one of our checkpoints, of any layout, as a transformers model.

    Args:
        checkpoint: a run's checkpoint folder (its latest), or one ``iter_…`` folder.
        tokenizer: default: the one the checkpoint was trained with, else the files it carries.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or unsafe.
        ConversionError: its tensors are not those of its model.
        TokenizerError: there is no tokenizer, or it does not fit the model.
        MissingDependencyError: transformers is not installed.
    """
    transformers = _transformers()
    export = HFExport.open(checkpoint)
    chosen = tokenizer or _recorded(export) or files_tokenizer(export.folder / assets.FOLDER)
    built = checked_tokenizer(chosen, export.manifest.model.vocab_size)
    # The class is named by our family, never by a file.
    model = getattr(transformers, export.config["architectures"][0]).from_pretrained(
        None,
        config=transformers.AutoConfig.for_model(**export.config),
        state_dict={name: value.clone() for name, value in export.tensors(lambda _amount, _name: None)},
        torch_dtype="auto",
    )
    return LoadedModel(_on_device(model), built)


def load_hf(hf_path: Path, tokenizer: TokenizerConfig | None = None) -> LoadedModel:
    """Load a Hugging Face folder; see ``load_checkpoint``."""
    vocab_size = assets.read_config(hf_path).get("vocab_size", 0)
    built = checked_tokenizer(tokenizer or files_tokenizer(hf_path), vocab_size)
    return LoadedModel(load_hf_model(hf_path), built)


def load_hf_model(hf_path: Path, dtype: DtypeName | None = None) -> Any:
    """The transformers model of a folder, on the device, in evaluation mode; None: in the dtype of its files.

    Raises:
        ConversionError: transformers cannot load it.
        MissingDependencyError: transformers is not installed.
    """
    transformers = _transformers()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            hf_path,
            torch_dtype="auto" if dtype is None else DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
        )
    except (OSError, ValueError) as error:
        raise ConversionError(f"{hf_path}: transformers cannot load it: {error}") from error
    return _on_device(model)


def generate(loaded: LoadedModel, prompt: str, sampling: Sampling, prepend_bos: bool = True) -> str:
    """The prompt and its continuation.

    Args:
        loaded: from ``load_checkpoint`` or ``load_hf``.
        prompt: any text; never read as control tokens.
        sampling: how to continue.
        prepend_bos: begin with the tokenizer's BOS, if it has one.

    Raises:
        ConfigError: a sampling value is out of range.
        TokenizerError: there is nothing to continue.
    """
    sampling.check()
    tokenizer = loaded.tokenizer
    encoded = tokenizer.encode(prompt)
    start = [tokenizer.bos_id] if prepend_bos and tokenizer.bos_id is not None else []
    if not start + encoded:
        raise TokenizerError("nothing to continue: the prompt is empty and no BOS token begins it")
    continuation = _continue(loaded, [*start, *encoded], sampling)
    # Decoded together: a token's text may depend on the one before it.
    head, text = tokenizer.decode(encoded), tokenizer.decode([*encoded, *continuation])
    return prompt + text.removeprefix(head) if text.startswith(head) else text


def _continue(loaded: LoadedModel, ids: Sequence[int], sampling: Sampling) -> list[int]:
    tokenizer = loaded.tokenizer
    options: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        options = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 0,
        }
    # Rows beyond the tokenizer's vocabulary are padding, and have no text.
    without_text = list(range(tokenizer.vocab_size, loaded.model.config.vocab_size))
    settings = _transformers().GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.eos_id,
        suppress_tokens=without_text or None,
        **options,
    )
    tokens = torch.tensor([list(ids)], device=loaded.model.device)
    torch.manual_seed(sampling.seed)
    output = loaded.model.generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), generation_config=settings
    )
    generated: list[int] = output[0, len(ids) :].tolist()
    return generated


def _transformers() -> Any:
    try:
        import transformers  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise MissingDependencyError(
            "transformers", "generate text", "pip install 'megatron-ext[hf]'"
        ) from error
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _on_device(model: Any) -> Any:
    return model.to(select_backend("auto", local_rank=0, local_world_size=1).device).eval()


def _recorded(export: HFExport) -> TokenizerConfig | None:
    """The tokenizer of the run that wrote the checkpoint, if its files are on this machine."""
    recorded = export.manifest.tokenizer
    if recorded is None or recorded.model is None or Path(recorded.model).exists():
        return recorded
    logger.info(
        f"the run's tokenizer {recorded.model} is not here: looking in {export.folder / assets.FOLDER}"
    )
    return None


def files_tokenizer(folder: Path) -> TokenizerConfig:
    """What a Hugging Face folder holds: ``tokenizer.json`` is preferred, being exact about added tokens."""
    if (folder / "tokenizer.json").is_file():
        return TokenizerConfig(type="HuggingFaceTokenizer", model=str(folder))
    if (folder / "tokenizer.model").is_file():
        return TokenizerConfig(type="SentencePieceTokenizer", model=str(folder / "tokenizer.model"))
    raise TokenizerError(
        f"{folder}: neither tokenizer.json nor tokenizer.model; "
        "name a tokenizer with --tokenizer-type and --tokenizer-model"
    )


def checked_tokenizer(config: TokenizerConfig, vocab_size: int) -> Tokenizer:
    """Build a tokenizer, and refuse one whose ids the model does not have."""
    tokenizer = build_tokenizer(config.type, config.model)
    if tokenizer.vocab_size > vocab_size:
        raise TokenizerError(
            f"{config.model or config.type} has {tokenizer.vocab_size} tokens, the model only {vocab_size}: "
            "not this model's tokenizer"
        )
    return tokenizer
