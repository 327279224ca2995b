"""The EMMA-500 recipe in miniature: raw text in 448 languages, a mixture by tiers, training, a Hugging Face checkpoint.

    make recipe-demo

Runs the commands of configs/recipes/emma500/README.md on the sample corpus, prints each before it runs it, and leaves
everything in runs/recipe_demo. A step whose result is already there is not done again.
"""

from pathlib import Path

from recipe_report import print_report
from steps import Step, exists, run_steps

RUN = "runs/recipe_demo"
RECIPE = "configs/recipes/emma500/demo"


def main() -> None:
    """Run the steps in order, then report."""
    run_steps(STEPS, lambda: print_report(Path(RUN)))


STEPS = (
    Step(
        "train a SentencePiece tokenizer with Llama 2's settings",
        f"python examples/udhr/train_tokenizer.py --input examples/udhr/udhr.jsonl.gz "
        f"--output {RUN}/tokenizer/tokenizer.model",
        exists(f"{RUN}/tokenizer/tokenizer.model"),
    ),
    Step(
        "make a small random Llama in Hugging Face format, in the place of Llama 2 7B",
        f"python examples/udhr/make_model.py --tokenizer {RUN}/tokenizer/tokenizer.model --output {RUN}/hf_base",
        exists(f"{RUN}/hf_base"),
    ),
    Step(
        "raw text to labelled, clean, unique shards, and to .bin/.idx with that model's tokenizer",
        f"python tools/build_corpus.py {RECIPE}/corpus.yaml",
        exists(f"{RUN}/corpus/corpus.json"),
    ),
    Step(
        "plan how much of each language is read, and draw the run's whole order",
        f"python tools/plan_mixture.py {RUN}/corpus --mixture {RECIPE}/mixture.yaml --run {RECIPE}/train.yaml "
        f"--output {RUN}/plan --simulate",
        exists(f"{RUN}/plan/blend.yaml"),
    ),
    Step(
        "train with 2 × tensor and 2 × pipeline parallelism, straight from the Hugging Face folder and back",
        f"./launch.sh {RECIPE}/train.yaml {RUN}/plan/blend.yaml",
        exists(f"{RUN}/hf"),
    ),
)


if __name__ == "__main__":
    main()
