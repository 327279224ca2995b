"""Every pair of features that makes sense together is in a layout that runs; which do not, and why, is said here."""

import re
from itertools import combinations

from layout_cases import BF16, FAMILIES, FP16, LAYOUTS, RESUMED
from layouts import Case

CASES = [*LAYOUTS, *RESUMED, *BF16, *FP16]
BY_KEY = {
    "full recompute": "recompute_granularity=full",
    "selective recompute": "recompute_granularity=selective",
    "block recompute": "recompute_method=block",
    "uneven stages": "_pipeline_stage=",
    "ramp-up": "rampup_batch_size=",
    "tied": "untie_embeddings_and_output_weights=false",
    "window": "window_size=",
    "biases": "add_qkv_bias=true",
    "norms of heads": "qk_layernorm=true",
    "separate gradients": "gradient_accumulation_fusion=false",
    "reduced states": "exp_avg_dtype=bf16",
}
BY_WORD = {
    "SP": "SP",
    "distributed": "distributed optimizer",
    "overlapped": "overlapped reduction and gathering",
    "documents": "documents",
    "bf16": "bf16",
    "fp16": "fp16",
}
FEATURES = {
    *BY_KEY, *BY_WORD.values(), "TP", "PP", "VPP", "DP", "CP", "untied", "shared KV heads",
    "another layout after a stop",
}  # fmt: skip

SHARING = {name for name, (model, _) in FAMILIES.items() if model.get("num_key_value_heads") == 1}
ATTENTION = ("window", "biases", "norms of heads")
APART = {
    "one excludes the other": [("tied", "untied"), ("bf16", "fp16"), ("full recompute", "selective recompute")],
    "block is a way of full": [("block recompute", "selective recompute")],
    "no family has both, and the configuration refuses them": list(combinations(ATTENTION, 2)),
    "bf16 only, refused with fp16": [("reduced states", "fp16")],
    "ends of the model and inside of a layer, which share no code": [
        ("window", "tied"), ("norms of heads", "tied"), ("biases", "untied"),
    ],
    "fp16 is bf16 and a scale, and the scale meets all that gradients are reduced over": [
        (feature, "fp16")
        for feature in (
            *ATTENTION, "documents", "tied", "ramp-up", "block recompute", "separate gradients", "shared KV heads",
        )
    ],
}  # fmt: skip


def features(case: Case) -> set[str]:
    """What a case has, from its layout, its overrides and the words of its variant."""
    words = [*case.layout.split(), *case.variant.split()]
    found = {BY_WORD[word] for word in words if word in BY_WORD}
    found |= {match[1] for word in words if (match := re.fullmatch(r"(TP|PP|VPP|DP|CP)(?!1$)\d+", word))}
    family = max((name for name in FAMILIES if name in case.variant), key=len, default=None)
    overrides = " ".join([*case.overrides, *(FAMILIES[family][1] if family else [])])
    found |= {feature for feature, key in BY_KEY.items() if key in overrides}
    if "tied" not in found:
        found.add("untied")
    if "TP4" in words or (family in SHARING and "TP" in found):
        found.add("shared KV heads")
    if case.resumes is not None:
        found.add("another layout after a stop")
    return found


def pairs(names: set[str]) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in combinations(names, 2)}


RUN = set().union(*(pairs(features(case)) for case in CASES))
EXCUSED = {frozenset(pair) for listed in APART.values() for pair in listed}


def test_every_pair_runs_or_cannot() -> None:
    assert sorted(map(sorted, pairs(FEATURES) - RUN - EXCUSED)) == []


def test_no_pair_that_runs_is_excused() -> None:
    assert sorted(map(sorted, RUN & EXCUSED)) == []


def test_nothing_else_is_counted() -> None:
    assert set().union(*map(features, CASES)) == FEATURES
