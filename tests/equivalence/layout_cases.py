"""Which layouts run, with what else: each two features that go together meet in one of them.

Dense on purpose, for each costs seconds; the sparse ones tell which feature is to blame when a dense one differs.
``test_layout_pairs.py`` counts the pairs.
"""

from typing import Any

from layouts import Case

FULL, SELECTIVE = "parallel.recompute_granularity=full", "parallel.recompute_granularity=selective"
BLOCK, BOTH_PARTS = "parallel.recompute_method=block", "parallel.recompute_modules=[core_attn,mlp]"
GRAPHS = "kernels.cuda_graphs=true"
TWO_LAYERS, THREE_LAYERS = "parallel.recompute_num_layers=2", "parallel.recompute_num_layers=3"
UNEVEN = "parallel.num_layers_in_first_pipeline_stage=1"
UNEVEN_CHUNKS = "parallel.num_layers_in_first_pipeline_stage=2"  # of 6: each part of the last stage holds two
UNEVEN_ENDS = (UNEVEN, "parallel.num_layers_in_last_pipeline_stage=1")
SEPARATE = "training.gradient_accumulation_fusion=false"
ONE_KV_HEAD = "model.num_query_groups=1"  # processes of a tensor-parallel group share it
RAMP = "training.rampup_batch_size=[4,4,24]"

REFERENCES = [
    Case("TP1", variant=name)
    for name in (
        "plain", "documents", "whole rows", "tied", "tied documents", "random",
        "mistral", "mistral documents", "qwen2 tied documents", "qwen3 documents",
    )
]  # fmt: skip
RANDOM_STAGES = Case("PP2 VPP2", variant="random")  # draws other weights than one process, hence no reference
LAYOUTS = [
    Case("TP1", (SELECTIVE,)),
    Case("TP1", (FULL, TWO_LAYERS, "training.micro_batch_size=8"), variant="documents"),
    Case("TP1", (FULL, BLOCK, THREE_LAYERS)),
    Case("TP1", ("kernels.attention_backend=torch",), variant="documents"),
    Case("TP2"),
    Case("TP2 SP", (SELECTIVE, BOTH_PARTS)),
    Case("PP2 VPP2"),
    Case("DP2", ("parallel.overlap_grad_reduce=true",)),  # without the distributed optimizer
    Case("DP2 distributed"),
    Case("DP2 distributed overlapped"),
    Case("DP2 distributed overlapped", (SEPARATE,), variant="tied"),  # its one gradient comes both ways
    Case("CP2"),
    Case("TP4"),  # two KV heads, each shared by two processes
    Case("TP2 PP2", variant="tied"),
    Case("PP4"),
    Case("PP2 VPP2 DP2 distributed overlapped"),
    Case("CP4", variant="documents"),
    Case("CP2 PP2 VPP2", variant="documents"),
    Case("CP2", variant="random"),  # who share a sequence must start from the same weights
    # Of all that goes together, two by two: each of these has many pairs that no other case has.
    Case("PP2 DP2 distributed overlapped", (FULL, BLOCK, UNEVEN), variant="tied documents"),
    Case("PP2 VPP2 DP2 distributed", (SELECTIVE,), variant="tied"),
    Case("CP2 PP2", (SELECTIVE, UNEVEN), variant="documents"),
    Case("CP2 DP2 distributed overlapped", (FULL, BLOCK), variant="tied"),
    # Windows, biases and norms of heads come with batches that grow; models of six layers have uneven parts.
    Case("PP2 VPP2", (FULL, BLOCK, UNEVEN_CHUNKS), variant="mistral documents"),
    Case("DP2 distributed overlapped", (FULL,), variant="mistral documents"),
    Case("TP2 CP2 SP", (SELECTIVE, SEPARATE), variant="mistral"),  # windows of whole rows, over chunks
    Case("TP2 SP", (FULL, BLOCK), variant="mistral documents"),
    Case("PP2 VPP2", (SELECTIVE, UNEVEN_CHUNKS, SEPARATE), variant="qwen2 tied documents"),
    Case("DP2 distributed overlapped", (FULL, BLOCK), variant="qwen2 tied documents"),
    Case("TP2 SP", (SELECTIVE,), variant="qwen2 tied documents"),
    Case("CP2 PP2", (FULL, UNEVEN), variant="qwen2 tied documents"),
    Case("DP2 distributed overlapped", (SELECTIVE, SEPARATE), variant="qwen3 documents"),
    Case("CP2 PP2", (FULL, BLOCK, UNEVEN, SEPARATE), variant="qwen3 documents"),
    Case("PP4", UNEVEN_ENDS, variant="qwen3 documents"),
    Case("TP2 SP", variant="qwen3 documents"),
    # Eight processes: all kinds at once.
    Case("TP2 PP2 VPP2 CP2 SP", variant="documents"),
]
RESUMED = [
    Case("PP2 VPP2", resumes=Case("TP1")),
    Case("PP2 VPP2", resumes=Case("DP2 distributed overlapped")),  # another kind of optimizer, and back
    Case("DP2 distributed overlapped", resumes=Case("PP2 VPP2")),
    Case("CP2", resumes=Case("PP2 VPP2")),
    Case("TP2 PP2 VPP2", resumes=Case("CP2")),
    Case("TP2 PP2 SP", (FULL, UNEVEN, SEPARATE), variant="tied", resumes=Case("TP1", variant="tied")),
    Case(
        "TP2 DP2 distributed overlapped SP",
        (SELECTIVE,),
        variant="mistral documents",
        resumes=Case("PP2 VPP2", (FULL, BLOCK, UNEVEN_CHUNKS), variant="mistral documents"),
    ),
    Case(
        "TP2 SP",
        (FULL, BLOCK),
        variant="qwen2 tied documents",
        resumes=Case("DP2 distributed overlapped", (FULL, BLOCK), variant="qwen2 tied documents"),
    ),
    Case(
        "TP2 PP2 VPP2 SP",
        (UNEVEN_CHUNKS,),
        variant="qwen3 documents",
        resumes=Case("DP2 distributed overlapped", (SELECTIVE, SEPARATE), variant="qwen3 documents"),
    ),
]
# Master weights have two names, by the kind of optimizer.
PLAIN, DISTRIBUTED = Case("PP2 VPP2", variant="bf16"), Case("DP2 distributed", variant="bf16")
TEN_BYTES = (
    *(f"optimizer.{key}=bf16" for key in ("main_grads_dtype", "exp_avg_dtype", "exp_avg_sq_dtype")),
    "optimizer.store_param_remainders=true",
)
REDUCED = Case("DP2 distributed overlapped", (*TEN_BYTES, FULL, BLOCK), variant="bf16 tied documents")
BF16 = [
    PLAIN,
    DISTRIBUTED,
    REDUCED,
    Case("DP2 distributed", variant="bf16", resumes=PLAIN),
    Case("PP2 VPP2", variant="bf16", resumes=DISTRIBUTED),
    Case("DP2 distributed overlapped", (SEPARATE, SELECTIVE), variant="bf16 tied documents"),
    Case("TP2 CP2 distributed SP", TEN_BYTES, variant="bf16 tied documents", resumes=REDUCED),
    Case(
        "TP2 PP2 VPP2 distributed SP", (*TEN_BYTES, SELECTIVE, UNEVEN_CHUNKS), variant="bf16 qwen3 documents"
    ),
    Case("CP2 PP2 distributed", (*TEN_BYTES, UNEVEN, FULL), variant="bf16 mistral documents"),
    Case("TP2 distributed", (*TEN_BYTES, SEPARATE), variant="bf16 qwen2 tied documents"),
]
BF16_REFERENCES = [Case("TP1", variant=name) for name in dict.fromkeys(case.variant for case in BF16)]
OVERFLOWS = Case("TP1", variant="fp16")
FP16 = [
    Case("DP2 distributed overlapped", (FULL,), variant="fp16"),
    Case("PP2 VPP2", variant="fp16", resumes=Case("DP2 distributed overlapped", (FULL,), variant="fp16")),
    Case("TP2 SP", variant="fp16", resumes=OVERFLOWS),
    Case("CP2", variant="fp16"),
    Case("TP2 PP2 SP", (UNEVEN, SELECTIVE), variant="fp16"),
]
FAMILIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "tied": ({"tie_word_embeddings": True}, ["model.untie_embeddings_and_output_weights=false"]),
    "mistral": (
        {"model_type": "mistral", "num_hidden_layers": 6, "num_key_value_heads": 1, "sliding_window": 9},
        ["model.window_size=9", "model.num_layers=6", ONE_KV_HEAD, RAMP],
    ),
    "qwen2 tied": (
        {
            "model_type": "qwen2",
            "num_hidden_layers": 6,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
        },
        [
            "model.add_qkv_bias=true",
            "model.untie_embeddings_and_output_weights=false",
            "model.num_layers=6",
            ONE_KV_HEAD,
            RAMP,
        ],
    ),
    "qwen3": (
        {"model_type": "qwen3", "num_hidden_layers": 6, "num_key_value_heads": 1, "head_dim": 16},
        ["model.qk_layernorm=true", "model.num_layers=6", ONE_KV_HEAD, RAMP],
    ),
}
SHAPE = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "initializer_range",
)  # fmt: skip
