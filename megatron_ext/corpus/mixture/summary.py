"""A plan in figures: by tier and category, the most repeated sets, what is never seen; as text and as JSON."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from megatron_ext.corpus.mixture.plan import Plan

NO_TIER = "below the last tier"
SHOWN = 10
WIDTH = 110


@dataclass(frozen=True)
class Group:
    """The sets of a tier or of a category.

    Attributes:
        name: of it.
        sets: how many there are.
        read: how many of them are read.
        available: tokens that there are.
        tokens: to read.
        share: of all tokens that are read.
        epochs: tokens to read for each that there is.
    """

    name: str
    sets: int
    read: int
    available: int
    tokens: int
    share: float
    epochs: float


def groups(plan: Plan, names: Sequence[str]) -> list[Group]:
    """Figures of each name, in the order of its first mention; ``names`` has one for each set."""
    total = int(plan.tokens.sum())
    found = []
    for name in dict.fromkeys(names):
        inside = np.array([one == name for one in names])
        available, tokens = int(plan.available[inside].sum()), plan.tokens[inside]
        read = int(tokens.sum())
        found.append(
            Group(
                name,
                int(inside.sum()),
                int((tokens > 0).sum()),
                available,
                read,
                read / total,
                read / max(available, 1),
            )
        )
    return found


def tier_groups(plan: Plan) -> list[Group]:
    """By tier, the one with the most tokens first; none where the mixture has no tiers."""
    if plan.config.tiers is None:
        return []
    order = [*plan.config.tiers.thresholds, NO_TIER]
    found = groups(plan, [tier or NO_TIER for tier in plan.tiers])
    return sorted(found, key=lambda group: order.index(group.name))


def category_groups(plan: Plan) -> list[Group]:
    """By category."""
    return groups(plan, [one.category for one in plan.sets])


def most_repeated(plan: Plan) -> list[int]:
    """Positions of the sets that are read most often, the first one most."""
    order = np.argsort(-plan.epochs, kind="stable")
    return [int(index) for index in order[:SHOWN] if plan.tokens[index] > 0]


def warnings(plan: Plan) -> list[str]:
    """What a person should think about before a run, one line each."""
    lines = list(plan.notes)
    often = np.flatnonzero(plan.epochs > plan.config.warn_epochs * (1 + 1e-6))
    if len(often):
        top = most_repeated(plan)[0]
        lines.append(
            f"{len(often)} sets are read more than {plan.config.warn_epochs:g} times, "
            f"{plan.sets[top].name} {plan.epochs[top]:,.1f} times"
        )
    return lines


def as_json(plan: Plan) -> str:
    """``plan.json``: all figures, the mixture with its defaults, and nothing that a second run would not repeat."""
    total = int(plan.tokens.sum())
    record: dict[str, Any] = {
        "format": "megatron_ext mixture 1",
        "unit": plan.counted.unit,
        "tokens": total,
        "seq_length": plan.budget.seq_length,
        "samples": plan.samples,
        "stages": [
            {
                "name": s.name,
                "from_samples": s.from_samples,
                "samples": s.samples,
                "tokens": int(s.tokens.sum()),
            }
            for s in plan.stages
        ],
        "tiers": [group.__dict__ for group in tier_groups(plan)],
        "categories": [group.__dict__ for group in category_groups(plan)],
        "most_repeated": [plan.sets[index].name for index in most_repeated(plan)],
        "never_seen": {
            reason: [plan.sets[index].name for index in found] for reason, found in plan.unread().items()
        },
        "warnings": warnings(plan),
        "mixture": plan.config.model_dump(exclude_none=True),
        "sets": [
            {
                "category": one.category,
                "label": one.label,
                "tier": tier,
                "available": one.tokens,
                "tokens": tokens,
                "share": tokens / total,
                "epochs": epochs,
                "stages": [int(stage.tokens[index]) for stage in plan.stages],
            }
            for index, (one, tier, tokens, epochs) in enumerate(
                zip(plan.sets, plan.tiers, plan.tokens.tolist(), plan.epochs.tolist(), strict=True)
            )
        ],
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def as_text(plan: Plan, every_set: bool = False) -> str:
    """What is printed, in lines; with every set for the file."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, markup=False, highlight=False, emoji=False, soft_wrap=True)
    read = int((plan.tokens > 0).sum())
    console.print(
        f"{read} of {len(plan.sets)} sets; {amount(int(plan.available.sum()))} {plan.counted.unit} available, "
        f"{amount(int(plan.tokens.sum()))} to read = {plan.samples:,} samples of {plan.budget.seq_length:,}"
    )
    for stage in plan.stages if len(plan.stages) > 1 else ():
        console.print(
            f"  stage {stage.name}: from sample {stage.from_samples:,}, {stage.samples:,} samples, "
            f"{int((stage.tokens > 0).sum())} sets"
        )
    unit = "" if plan.config.tiers is None else plan.config.tiers.unit.replace("_", " ")
    by_tier = f"by tier (thresholds are in {unit})"
    for title, found in ((by_tier, tier_groups(plan)), ("by category", category_groups(plan))):
        if found:
            console.print(_group_table(title, found))
    console.print(_set_table("most repeated", plan, most_repeated(plan)))
    for reason, unread in plan.unread().items():
        names = [plan.sets[index].name for index in unread]
        shown = names if every_set else names[:SHOWN]
        more = f", … {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        console.print(f"never seen, {reason}: {len(names)} sets: {', '.join(shown)}{more}")
    for line in warnings(plan):
        console.print(f"warning: {line}")
    if every_set:
        console.print(_set_table("every set", plan, range(len(plan.sets))))
    return out.getvalue()


def amount(tokens: int) -> str:
    """A number of tokens in three or four digits, such as ``76.27 B``."""
    for size, suffix in ((10**12, " T"), (10**9, " B"), (10**6, " M"), (10**3, " k")):
        if tokens >= size:
            return f"{tokens / size:,.4g}{suffix}"
    return str(tokens)


def _group_table(title: str, found: Sequence[Group]) -> Table:
    table = _table(title, "", "sets", "read", "available", "to read", "share", "epochs")
    for one in found:
        shares = (amount(one.available), amount(one.tokens), f"{one.share:.2%}", f"{one.epochs:,.3g}")
        table.add_row(one.name, f"{one.sets:,}", f"{one.read:,}", *shares)
    return table


def _set_table(title: str, plan: Plan, indices: Sequence[int]) -> Table:
    table = _table(title, "", "tier", "available", "to read", "share", "epochs")
    tokens, epochs = plan.tokens, plan.epochs
    total = int(tokens.sum())
    for index in indices:
        one = plan.sets[index]
        read = int(tokens[index])
        table.add_row(
            one.name,
            plan.tiers[index] or "",
            amount(one.tokens),
            amount(read),
            f"{read / total:.4%}",
            f"{epochs[index]:,.2f}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        text = index == 0 or column == "tier"
        table.add_column(column, justify="left" if text else "right", no_wrap=True)
    return table
