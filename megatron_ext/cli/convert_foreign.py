"""``megatron-ext convert from-…``: what other frameworks saved to a checkpoint."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from megatron_ext.checkpoint.manifest import DtypeName

if TYPE_CHECKING:
    from megatron_ext.convert.foreign.recipes import Recipes

META = """\
Make a checkpoint out of a Llama folder as Meta distributes it: params.json and consolidated.*.pth, for any
number of model-parallel ranks. The order of rotary dimensions is changed to that of Hugging Face and Megatron.
"""
MEGATRON = """\
Make a checkpoint out of one of Megatron-LM's: its folder (the latest iteration) or that of an iteration, with
mp_rank_*/model_optim_rng.pt of any tensor and pipeline parallelism, or in the torch_dist format. The model must
be a Llama: RMSNorm, SwiGLU, rotary positions, no biases. Optimizer states are left out.
"""
NEOX = """\
Make a checkpoint out of a Llama trained with GPT-NeoX: its folder (the latest step) or one global_stepN, with
layer_*-model_*-model_states.pt or mp_rank_*_model_states.pt, for any number of tensor-parallel ranks.
Optimizer states are left out.
"""


class Option(NamedTuple):
    """An option that one framework's files make necessary; named as the reader's argument."""

    flag: str
    type: Callable[[str], Any]
    help: str
    choices: tuple[str, ...] | None = None


class Framework(NamedTuple):
    """A framework whose checkpoints are read."""

    help: str
    description: str
    options: tuple[Option, ...]


VOCAB_SIZE = Option(
    "--vocab-size", int, "rows of the embedding that are tokens; the others pad it and are cut off"
)
FRAMEWORKS: dict[str, Framework] = {
    "from-meta": Framework(
        "Meta's consolidated.*.pth to checkpoint",
        META,
        (
            Option(
                "--max-position-embeddings", int, "length the model was trained for; the files do not say it"
            ),
            Option(
                "--rope-scaling-factor", float, "of Llama 3.1 and later, where params.json does not say it"
            ),
        ),
    ),
    "from-megatron": Framework("Megatron-LM's checkpoint to checkpoint", MEGATRON, (VOCAB_SIZE,)),
    "from-neox": Framework(
        "GPT-NeoX's Llama checkpoint to checkpoint",
        NEOX,
        (
            VOCAB_SIZE,
            Option(
                "--config", Path, "YAML file of the run, or folder of several (default: in the checkpoint)"
            ),
            Option(
                "--gqa-layout",
                str,
                "order of query_key_value with fewer KV heads than heads; the files do not say it",
                ("concatenated", "by-query-head"),
            ),
        ),
    ),
}


def add_frameworks(
    directions: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> list[argparse.ArgumentParser]:
    """Define a direction for each framework, without the options that all directions have."""
    parsers = []
    for name, framework in FRAMEWORKS.items():
        parser = directions.add_parser(
            name,
            help=framework.help,
            description=framework.description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("--input", type=Path, required=True, metavar="D", help="folder to read")
        parser.add_argument(
            "--output", type=Path, required=True, metavar="C", help="checkpoint folder to make"
        )
        parser.add_argument(
            "--tokenizer",
            type=Path,
            metavar="T",
            help="folder with the tokenizer's files (default: the input)",
        )
        for option in framework.options:
            parser.add_argument(option.flag, type=option.type, choices=option.choices, help=option.help)
        parsers.append(parser)
    return parsers


def read_framework(arguments: argparse.Namespace) -> "tuple[Recipes, dict[str, Any]]":
    """The tensors that the arguments name, and a ``config.json`` for them."""
    # Here, because they import torch: --help does not wait for it.
    from megatron_ext.convert.foreign.megatron import read_megatron  # noqa: PLC0415
    from megatron_ext.convert.foreign.meta import read_meta  # noqa: PLC0415
    from megatron_ext.convert.foreign.neox import read_neox  # noqa: PLC0415

    readers: dict[str, Callable[..., tuple[Recipes, dict[str, Any]]]] = {
        "from-meta": read_meta,
        "from-megatron": read_megatron,
        "from-neox": read_neox,
    }
    names = [
        option.flag.removeprefix("--").replace("-", "_") for option in FRAMEWORKS[arguments.direction].options
    ]
    return readers[arguments.direction](arguments.input, **{name: getattr(arguments, name) for name in names})


def run_framework(arguments: argparse.Namespace, dtype: DtypeName | None) -> Path:
    """Import what the arguments name; returns the folder of the checkpoint."""
    from megatron_ext.convert.foreign.importing import import_foreign  # noqa: PLC0415 - see read_framework

    return import_foreign(
        read_framework(arguments),
        arguments.input,
        arguments.output,
        tokenizer=arguments.tokenizer,
        overwrite=arguments.overwrite,
        dtype=dtype,
    )
