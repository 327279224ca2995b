"""``megatron-ext generate``: continue a prompt with a checkpoint."""

import argparse
from pathlib import Path

from megatron_ext.config.sections import TokenizerConfig
from megatron_ext.errors import TokenizerError
from megatron_ext.evaluate.sampling import Sampling
from megatron_ext.tokenizer.build import TOKENIZER_TYPES

EPILOG = """\
example: the likeliest continuation by a run's latest checkpoint
  python tools/generate.py --checkpoint runs/quickstart/checkpoints --prompt "All human beings"

example: another one each seed, by an exported model
  python tools/generate.py --hf-path runs/quickstart/hf --prompt "All human beings" \\
      --temperature 0.8 --top-p 0.95 --seed 7

The prompt and its continuation go to standard output, everything else to standard error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options and the help."""
    parser.description = (
        "Continue a prompt with a checkpoint of ours or a Hugging Face folder; needs transformers."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument(
        "--checkpoint",
        type=Path,
        metavar="C",
        help="a run's checkpoint folder (its latest), or one iter_… folder",
    )
    model.add_argument("--hf-path", type=Path, metavar="D", help="a Hugging Face model folder")
    parser.add_argument("--prompt", required=True, help="text to continue")
    defaults = Sampling()
    choice = parser.add_argument_group("choice of tokens")
    choice.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        default=defaults.max_new_tokens,
        help="length of the continuation (default: %(default)s)",
    )
    choice.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        default=defaults.temperature,
        help="0, the default, takes the likeliest token; 1 samples as the model predicts",
    )
    choice.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        default=defaults.top_p,
        help="sample among the likeliest tokens that together have probability P",
    )
    choice.add_argument(
        "--seed", type=int, default=defaults.seed, help="of the sampling (default: %(default)s)"
    )
    tokenizer = parser.add_argument_group("tokenizer (default: the one that comes with the model)")
    tokenizer.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES)
    tokenizer.add_argument(
        "--tokenizer-model", metavar="M", help="its file, or folder for HuggingFaceTokenizer"
    )
    tokenizer.add_argument(
        "--prepend-bos",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="begin with the BOS token, as the training documents did or did not",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the prompt and its continuation."""
    # Here, because it imports torch: --help does not wait for it.
    from megatron_ext.evaluate.generate import generate, load_checkpoint, load_hf  # noqa: PLC0415

    sampling = Sampling(arguments.max_new_tokens, arguments.temperature, arguments.top_p, arguments.seed)
    sampling.check()
    tokenizer = _tokenizer(arguments)
    if arguments.checkpoint is not None:
        loaded = load_checkpoint(arguments.checkpoint, tokenizer)
    else:
        loaded = load_hf(arguments.hf_path, tokenizer)
    print(generate(loaded, arguments.prompt, sampling, arguments.prepend_bos))
    return 0


def _tokenizer(arguments: argparse.Namespace) -> TokenizerConfig | None:
    if arguments.tokenizer_type is not None:
        return TokenizerConfig(type=arguments.tokenizer_type, model=arguments.tokenizer_model)
    if arguments.tokenizer_model is not None:
        raise TokenizerError("--tokenizer-model needs --tokenizer-type: " + ", ".join(TOKENIZER_TYPES))
    return None
