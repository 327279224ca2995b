"""``megatron-ext convert``: a Hugging Face folder to a checkpoint (from-hf) and back (to-hf), and others to one."""

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.cli.convert_foreign import FRAMEWORKS, add_frameworks, read_framework, run_framework

if TYPE_CHECKING:
    from megatron_ext.convert.verify import Compared

KEEP = "keep"
EPILOG = """\
examples:
  python tools/convert_checkpoint.py from-hf --hf-path Llama-2-7b-hf --output checkpoints/llama2_7b
  python tools/convert_checkpoint.py to-hf --checkpoint runs/my_run/checkpoints --output my_model
  python tools/convert_checkpoint.py from-meta --input Llama-2-7b --max-position-embeddings 4096 \\
      --output checkpoints/llama2_7b

`from-hf --help` and `to-hf --help` say more. A checkpoint does not depend on the number of processes: it
loads with any tensor, pipeline and data parallelism, and exports from any. One tensor is in memory while it
is written, and the next, which is read ahead. A conversion that is killed leaves no output, but a hidden
folder, which the next one to the same output removes.
"""
FROM_HF = """\
Make a checkpoint that a run can start from out of a Hugging Face model folder (config.json, weights,
tokenizer). Weights are safetensors or, read without running code, pytorch_model*.bin.
Supported: model_type llama, mistral, qwen2 and qwen3, with rope scaling of type linear, llama3 or yarn;
anything else, such as quantised weights, is refused by name.
"""
TO_HF = """\
Make a Hugging Face model folder out of a checkpoint; transformers (4.50 or newer) loads it. Optimizer state
is left out, padded vocabulary rows are cut off, the tokenizer files the model came with are put back.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the two directions, their options and the help."""
    parser.description = "Import a Hugging Face checkpoint, or export one."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    directions = parser.add_subparsers(
        dest="direction", required=True, metavar=f"{{from-hf,to-hf,{','.join(FRAMEWORKS)}}}"
    )
    importing = directions.add_parser(
        "from-hf",
        help="Hugging Face folder to checkpoint",
        description=FROM_HF,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importing.add_argument("--hf-path", type=Path, required=True, metavar="D", help="model folder to read")
    importing.add_argument(
        "--output", type=Path, required=True, metavar="C", help="checkpoint folder to make"
    )
    exporting = directions.add_parser(
        "to-hf",
        help="checkpoint to Hugging Face folder",
        description=TO_HF,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    exporting.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="C",
        help="a run's checkpoint folder (its latest), or one iter_… folder",
    )
    exporting.add_argument("--output", type=Path, required=True, metavar="D", help="model folder to make")
    for direction in (importing, exporting, *add_frameworks(directions)):
        direction.add_argument(
            "--dtype",
            choices=(KEEP, *get_args(DtypeName)),
            default=KEEP,
            help="of the weights that are written (default: %(default)s, each as it is)",
        )
        direction.add_argument(
            "--overwrite", action="store_true", help="replace an earlier output of this command"
        )
        direction.add_argument(
            "--verify",
            action="store_true",
            help="read both sides again: compare every tensor by hash and, if transformers can read it, logits on a "
            "prompt",
        )


def run(arguments: argparse.Namespace) -> int:
    """Convert, then say what was made and what comes next."""
    # Here, because they import torch: --help does not wait for it.
    from megatron_ext.convert.from_hf import MODEL_YAML, import_hf  # noqa: PLC0415
    from megatron_ext.convert.to_hf import export_hf  # noqa: PLC0415

    output: Path = arguments.output
    model_yaml = output / MODEL_YAML
    if arguments.direction != "to-hf":
        folder = (
            run_framework(arguments, _dtype(arguments))
            if arguments.direction in FRAMEWORKS
            else import_hf(arguments.hf_path, output, arguments.overwrite, _dtype(arguments))
        )
        print(
            f"made {folder} ({_gigabytes(folder)}) and {model_yaml}\n"
            f"next: name {model_yaml} under defaults: in a run's YAML, and start from the weights with\n"
            f"  ./launch.sh RUN.yaml checkpoint.load={output}"
        )
        if arguments.verify and arguments.direction == "from-hf":
            _verify(arguments.hf_path, output, "checkpoint", None)
        elif arguments.verify:
            _verify_framework(arguments)
    else:
        export_hf(arguments.checkpoint, output, _dtype(arguments), arguments.overwrite)
        print(
            f"made {output} ({_gigabytes(output)}), which transformers loads\n"
            f'next: python tools/generate.py --hf-path {output} --prompt "…"'
        )
        if arguments.verify:
            _verify(output, arguments.checkpoint, "hf", _dtype(arguments))
    return 0


def _dtype(arguments: argparse.Namespace) -> DtypeName | None:
    return None if arguments.dtype == KEEP else arguments.dtype


def _verify(
    hf_path: Path, checkpoint: Path, made: Literal["checkpoint", "hf"], dtype: DtypeName | None
) -> None:
    """Say what was compared, and what was not; a difference ends the command."""
    from megatron_ext.convert.verify import compare_tensors  # noqa: PLC0415 - see run

    _say(compare_tensors(hf_path, checkpoint, made))
    if importlib.util.find_spec("transformers") is None:
        print("not compared: logits, as transformers is not installed")
        return
    from megatron_ext.evaluate.logits import compare_logits, prompt_ids  # noqa: PLC0415 - see run

    logits = compare_logits(hf_path, checkpoint, prompt_ids(hf_path, checkpoint), dtype)
    print(
        f"verified: logits of {logits.tokens} tokens, from megatron-core and from transformers in {logits.dtype}, "
        f"differ by {logits.largest_difference:.2g} at most ({logits.allowed:.2g} allowed)"
    )


def _verify_framework(arguments: argparse.Namespace) -> None:
    from megatron_ext.convert.verify import compare_model  # noqa: PLC0415 - see run

    source, config = read_framework(arguments)
    _say(compare_model(source, config, arguments.input, arguments.output, "checkpoint"))
    print(
        f"not compared: logits, as transformers cannot read {arguments.input}; what the tensors mean is taken from "
        "the format's definition"
    )


def _say(found: "Compared") -> None:
    rounded = f", {found.rounded} of them after the same rounding" if found.rounded else ""
    print(f"verified: {found.tensors} tensors ({_shown(found.num_bytes)}) equal by SHA-256{rounded}")
    if found.left_out:
        print(f"not compared, as no model needs them: {', '.join(found.left_out)}")


def _gigabytes(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return _shown(size)


def _shown(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
