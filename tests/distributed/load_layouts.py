"""What test_load_slices.py and its processes share."""

from typing import Any

MODEL = {
    "num_layers": 4, "hidden_size": 16, "ffn_hidden_size": 24, "num_attention_heads": 8, "num_query_groups": 4,
    "vocab_size": 37, "layernorm_epsilon": 1e-6,
}  # fmt: skip
MODELS = ("untied", "tied")
TP, PP, VPP = (f"{name}_model_parallel_size" for name in ("tensor", "pipeline", "virtual_pipeline"))
LAYOUTS: dict[str, dict[str, Any]] = {
    "DP4": {},
    "TP2": {TP: 2},
    "TP4": {TP: 4},
    "PP2": {PP: 2},
    "PP4": {PP: 4},
    "TP2 PP2": {TP: 2, PP: 2},
    "TP2 PP2 interleaved": {TP: 2, PP: 2, VPP: 2},
}
