"""What the recipe's demonstration achieved: bits per byte before and after, by tier, and of the smallest labels."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import validations
from rich.console import Console
from rich.table import Table

from megatron_ext.corpus.mixture.summary import NO_TIER

LABELS_SHOWN = 8
MEANING = """\
Every label was read as often as the plan says, and the loss falls in every tier, least where nothing was read: there
the gain comes from relatives and from the alphabet alone. None of this is a language model yet: 1.1 M parameters,
random at the start, have read 2.4 M tokens."""
OUTPUTS = {
    "hf": "the trained model in Hugging Face format",
    "corpus": "corpus.json, shards of text by label, .bin/.idx sets, examples of removed text",
    "plan": "the mixture: plan.txt, plan.json, chart.html, blend.yaml",
    "metrics.jsonl": "loss and consumed tokens of each label and tier",
}
console = Console(soft_wrap=True)


def print_report(run_dir: Path) -> None:
    """Print everything."""
    before, after = validations(run_dir / "metrics.jsonl")
    plan = json.loads((run_dir / "plan/plan.json").read_text(encoding="utf-8"))
    tiers = [tier["name"] for tier in plan["tiers"]]
    console.print(score_table("held-out text by tier", "tier", tiers, before, after))
    for tier, meaning in ((tiers[-2], "low-resource labels"), (NO_TIER, "labels that were never trained on")):
        labels = [one["label"] for one in plan["sets"] if (one["tier"] or NO_TIER) == tier]
        scored = [label for label in labels if label in after["per_group"]["label"]]
        title = f"{meaning}, {min(LABELS_SHOWN, len(scored))} of {len(labels)}"
        console.print(score_table(title, "label", scored[:LABELS_SHOWN], before, after))
    console.print(
        f"all held-out text: {before['lm_loss']:.4f} → {after['lm_loss']:.4f} nats a token, "
        f"{before['bits_per_byte']:.3f} → {after['bits_per_byte']:.3f} bits per byte\n\n{MEANING}\n"
    )
    for name, content in OUTPUTS.items():
        console.print(f"{run_dir / name!s:<32} {content}", highlight=False)


def score_table(
    title: str, dimension: str, values: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> Table:
    """Bits per byte of groups of a dimension, such as tiers; a group without held-out text is left out."""
    table = Table(dimension, "held-out tokens", "bits/byte before", "after", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    starts, ends = before["per_group"][dimension], after["per_group"][dimension]
    for value in values:
        if value in ends:
            bits = [f"{scores[value]['bits_per_byte']:.3f}" for scores in (starts, ends)]
            table.add_row(value, f"{ends[value]['tokens']:,}", *bits)
    return table
