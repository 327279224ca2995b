"""Layouts that a refusal names are accepted, whatever was refused: found by trying, not by the rules' formulas."""

import re
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from megatron_ext.config.rules import check
from megatron_ext.config.sections import RunConfig


def problems(parallel: dict[str, Any], processes: int, **sections: dict[str, Any]) -> list[str]:
    values: dict[str, Any] = {
        "name": "trial",
        "model": {
            "num_layers": 4, "hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4, "vocab_size": 300,
        },
        "tokenizer": {"type": "ByteTokenizer"},
        "data": {"train": [{"path": "a"}]},
        "training": {"micro_batch_size": 1, "global_batch_size": 8, "seq_length": 64, "train_iters": 10},
        "optimizer": {"lr": 1e-3},
    }  # fmt: skip
    for name, change in sections.items():
        values[name] = {**values[name], **change}
    run = {**values, "parallel": parallel, "launch": {"nproc_per_node": processes}}
    return check(RunConfig.model_validate(run))


@given(
    groups=st.integers(1, 12),
    heads_of_each=st.integers(1, 6),
    ffn=st.integers(1, 48),
    tensor=st.integers(2, 24),
)
def test_a_tensor_parallel_size_suits_heads_groups_and_feed_forward_at_once(
    groups: int, heads_of_each: int, ffn: int, tensor: int
) -> None:
    model = {
        "num_attention_heads": groups * heads_of_each,
        "num_query_groups": groups,
        "kv_channels": 4,
        "ffn_hidden_size": ffn,
    }
    found = problems({"tensor_model_parallel_size": tensor}, tensor, model=model)
    assume(found)
    (text,) = found
    nearest = [int(size) for size in re.findall(r"\d+", text.partition("nearest: ")[2])]
    assert nearest
    for size in nearest:
        assert problems({"tensor_model_parallel_size": size}, size, model=model) == []
    # And none is nearer.
    between = range(max(nearest) + 1, tensor) if max(nearest) < tensor else range(tensor, max(nearest))
    assert all(problems({"tensor_model_parallel_size": size}, size, model=model) for size in between)


def test_interleaved_stages_need_their_micro_batches_in_a_ramp_too() -> None:
    """Megatron-core stops in the first step where fewer are left than there are stages."""
    interleaved = {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2}
    (text,) = problems(interleaved, 2, training={"rampup_batch_size": [1, 1, 100]})
    assert "= 1 × 1, × 2 micro-batches that interleaved stages pass on together" in text
    assert text.endswith("nearest: multiples of 2")
    assert problems(interleaved, 2, training={"rampup_batch_size": [2, 2, 100]}) == []
    assert problems({"pipeline_model_parallel_size": 2}, 2, training={"rampup_batch_size": [1, 1, 100]}) == []
