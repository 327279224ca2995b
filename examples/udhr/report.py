"""What the quickstart achieved: held-out loss before and after, per script, a check by transformers, and a sample."""

import gzip
import json
import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from megatron_ext.config.dump import load_resolved
from megatron_ext.config.sections import RunConfig
from megatron_ext.evaluate.generate import generate, load_hf
from megatron_ext.evaluate.sampling import Sampling
from megatron_ext.observe.metrics import SetLoss
from megatron_ext.train.inputs import open_inputs

ROWS = 64  # windows that transformers reads at a time
PROMPT = "Everyone has the right to"
MEANING = """\
This shows a pipeline that works and learns: the loss drops in every script, through tensor and pipeline
parallelism, a stop and a resume, and transformers agrees with the result. It does not show good prose: a model
of 1.1 M parameters has read each text about once, and its samples are word salad in the right alphabet."""
OUTPUTS = {
    "hf": "the trained model in Hugging Face format",
    "checkpoints": "the run's checkpoints: resume from them, or export another",
    "metrics.jsonl": "one line for each logged step and validation",
    "data": "labelled text and its .bin/.idx shards",
    "run.yaml": "the resolved configuration",
}
console = Console(soft_wrap=True)


def print_report(run_dir: Path) -> None:
    """Print everything."""
    disable_progress_bar()
    logging.getLogger("megatron_ext").setLevel(
        logging.WARNING
    )  # the data plan was shown when training started
    before, after = validations(run_dir / "metrics.jsonl")
    console.print(script_table(before, after))
    console.print(
        f"held-out loss {before['lm_loss']:.4f} → {after['lm_loss']:.4f} nats a token, "
        f"{before['bits_per_byte']:.3f} → {after['bits_per_byte']:.3f} bits per byte "
        f"(gzip on the same text: {gzip_bits_per_byte(run_dir / 'data/text/valid'):.3f})"
    )
    config = load_resolved(run_dir / "run.yaml")
    console.print(
        f"transformers on {run_dir / 'hf'}: {transformers_loss(config, run_dir / 'hf'):.4f} nats a token"
    )
    sampling = Sampling(max_new_tokens=40, temperature=0.7, top_p=0.9, seed=1)
    sample = generate(load_hf(run_dir / "hf"), PROMPT, sampling)
    console.print(f"\nsample: {sample}\n\n{MEANING}\n", markup=False, highlight=False)
    for name, meaning in OUTPUTS.items():
        console.print(f"{run_dir / name!s:<32} {meaning}", highlight=False)


def validations(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """First and last validation record of a run."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = [record for record in records if record["kind"] == "validation"]
    return found[0], found[-1]


def script_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """Bits per byte of each script, over all its languages, the most held-out text first."""
    table = Table(
        "script", "labels", "held-out tokens", "bits/byte before", "after", title="held-out text by script"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    starts, ends = by_script(before["per_dataset"]), by_script(after["per_dataset"])
    for script in sorted(ends, key=lambda name: -ends[name].tokens):
        labels = sum(name.endswith(f"_{script}") for name in after["per_dataset"])
        bits = [f"{losses[script].bits_per_byte:.3f}" for losses in (starts, ends)]
        table.add_row(script, str(labels), f"{ends[script].tokens:,}", *bits)
    return table


def by_script(per_dataset: Mapping[str, Mapping[str, float]]) -> dict[str, SetLoss]:
    """Losses of labels such as ``eng_Latn``, added up over their scripts."""
    scores = defaultdict(list)
    for label, score in per_dataset.items():
        scores[label.rpartition("_")[2]].append(score)
    return {
        script: SetLoss(
            loss_sum=math.fsum(score["lm_loss"] * score["tokens"] for score in group),
            tokens=round(sum(score["tokens"] for score in group)),
            text_bytes=math.fsum(
                score["lm_loss"] * score["tokens"] / math.log(2) / score["bits_per_byte"] for score in group
            ),
        )
        for script, group in scores.items()
    }


def gzip_bits_per_byte(folder: Path) -> float:
    """What a general-purpose compressor needs for the held-out text, all in one stream."""
    texts = [
        json.loads(line)["text"] for file in sorted(folder.iterdir()) for line in file.open(encoding="utf-8")
    ]
    plain = "".join(texts).encode()
    return 8 * len(gzip.compress(plain, compresslevel=9)) / len(plain)


@torch.inference_mode()
def transformers_loss(config: RunConfig, hf_path: Path) -> float:
    """Loss that transformers finds on the same held-out windows: nats a token."""
    valid = open_inputs(config).datasets.valid
    if valid is None:
        raise SystemExit("the run has no held-out text")
    model = LlamaForCausalLM.from_pretrained(hf_path, dtype=torch.float32)
    loss_sum, count = 0.0, 0
    for start in range(0, valid.num_windows, ROWS):
        windows = np.arange(start, min(start + ROWS, valid.num_windows))
        tokens, lengths, _ = valid.gather(windows)
        rows = torch.from_numpy(tokens.astype(np.int64))
        labels = rows[:, 1:].masked_fill(
            torch.arange(rows.size(1) - 1) >= torch.from_numpy(lengths)[:, None] - 1, -100
        )
        logits = model(rows[:, :-1]).logits
        loss_sum += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum"
        ).item()
        count += int((labels >= 0).sum())
    return loss_sum / count
