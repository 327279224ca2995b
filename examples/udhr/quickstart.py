"""The whole path in minutes, on any machine: multilingual text in, a trained Hugging Face checkpoint out.

    make quickstart

Runs the commands that a real project runs, prints each before it runs it, and leaves everything in
runs/quickstart. A step whose result is already there is not done again, so an interrupted quickstart goes on
where it was.
"""

from collections.abc import Callable
from pathlib import Path

from report import print_report
from steps import ROOT, Step, exists, run_steps

RUN = "runs/quickstart"
STOP_AT = 575  # half of the run: a deliberate stop, then a resume from the checkpoint it leaves
TOKENIZE = (
    "python tools/preprocess_data.py --input {run}/data/text/{part}/*.jsonl --output-prefix {run}/data/{part} "
    "--shard-per-input --append-eod --overwrite "
    "--tokenizer-type SentencePieceTokenizer --tokenizer-model {run}/tokenizer/tokenizer.model"
)


def main() -> None:
    """Run the steps in order, then report."""
    run_steps(STEPS, lambda: print_report(Path(RUN)))


def tokenized(part: str) -> Callable[[], bool]:
    """Whether every text of one half of the split has its shard."""

    def done() -> bool:
        texts = list((ROOT / f"{RUN}/data/text/{part}").glob("*.jsonl"))
        shards = (ROOT / f"{RUN}/data/{part}/{text.stem}_text_document.json" for text in texts)
        return all(shard.exists() for shard in shards)

    return done


STEPS = (
    Step(
        "label the text of 448 languages, hold out two articles of each",
        f"python examples/udhr/prepare.py --output {RUN}/data/text",
        exists(f"{RUN}/data/text/valid"),
    ),
    Step(
        "train a SentencePiece tokenizer with Llama 2's settings",
        f"python examples/udhr/train_tokenizer.py --input {RUN}/data/text/train "
        f"--output {RUN}/tokenizer/tokenizer.model",
        exists(f"{RUN}/tokenizer/tokenizer.model"),
    ),
    Step(
        "training text to .bin/.idx, one shard a label",
        TOKENIZE.format(run=RUN, part="train"),
        tokenized("train"),
    ),
    Step("held-out text likewise", TOKENIZE.format(run=RUN, part="valid"), tokenized("valid")),
    Step(
        "a small random Llama in Hugging Face format, in the place of Llama 2 7B",
        f"python examples/udhr/make_model.py --tokenizer {RUN}/tokenizer/tokenizer.model --output {RUN}/hf_base",
        exists(f"{RUN}/hf_base"),
    ),
    Step(
        "import it",
        f"python tools/convert_checkpoint.py from-hf --hf-path {RUN}/hf_base --output {RUN}/checkpoints_imported",
        exists(f"{RUN}/checkpoints_imported/latest"),
    ),
    Step(
        "train with 2 × tensor and 2 × pipeline parallelism: four processes, stopped on purpose halfway",
        f"./launch.sh configs/runs/quickstart.yaml training.exit_interval={STOP_AT}",
        exists(f"{RUN}/checkpoints/iter_{STOP_AT:07d}"),
    ),
    Step(
        "resume from the checkpoint it left, to the end",
        "./launch.sh configs/runs/quickstart.yaml",
        exists(f"{RUN}/checkpoints/iter_{2 * STOP_AT:07d}"),
    ),
    Step(
        "export to Hugging Face format",
        f"python tools/convert_checkpoint.py to-hf --checkpoint {RUN}/checkpoints --output {RUN}/hf",
        exists(f"{RUN}/hf"),
    ),
)


if __name__ == "__main__":
    main()
