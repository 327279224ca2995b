"""What keys of ``kernels`` go with: each refusal names its reason, and a value that works."""

from typing import Any

import pytest

from megatron_ext.config.rules import check
from megatron_ext.config.sections import RunConfig

STAGES = {"pipeline_model_parallel_size": 2}


def problems(**changes: dict[str, Any] | str) -> list[str]:
    values: dict[str, Any] = {
        "name": "trial",
        "model": {
            "num_layers": 4, "hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4, "vocab_size": 300,
        },
        "kernels": {"cuda_graphs": True},
        "tokenizer": {"type": "ByteTokenizer"},
        "data": {"train": [{"path": "a"}]},
        "training": {"micro_batch_size": 4, "global_batch_size": 32, "seq_length": 64, "train_iters": 10},
        "optimizer": {"lr": 1e-3},
        "launch": {"nproc_per_node": 4},
    }  # fmt: skip
    for name, change in changes.items():
        values[name] = change if isinstance(change, str) else {**values.get(name, {}), **change}
    return check(RunConfig.model_validate(values))


@pytest.mark.parametrize(
    ("refused", "reason", "nearest"),
    [
        ({"device": "cpu"}, "only GPUs have graphs", {"device": "cuda"}),
        (
            {"data": {"reset_attention_mask": True}},
            "its own number of documents",
            {"data": {"reset_attention_mask": False}},
        ),
        (
            {"parallel": {**STAGES, "virtual_pipeline_model_parallel_size": 2}},
            "interleaved stages do not wait for the last they send",
            {"parallel": STAGES},
        ),
        (
            {
                "parallel": {
                    "use_distributed_optimizer": True,
                    "overlap_grad_reduce": True,
                    "overlap_param_gather": True,
                }
            },
            "would validate with old ones",
            {"parallel": {"use_distributed_optimizer": True, "overlap_grad_reduce": True}},
        ),
        ({"training": {"fp8": "hybrid"}}, "Transformer Engine decides on the host", {}),
    ],
    ids=["cpu", "documents", "interleaved", "overlapped gathering", "fp8"],
)
def test_what_the_host_decides_in_each_step_is_refused(
    refused: dict[str, Any], reason: str, nearest: dict[str, Any]
) -> None:
    (text,) = problems(**refused)
    assert text.startswith("kernels.cuda_graphs=true does not go with ")
    assert reason in text
    assert text.endswith("or set kernels.cuda_graphs=false")
    assert problems(**nearest) == []
    assert problems(**refused, kernels={"cuda_graphs": False}) == []


@pytest.mark.parametrize(
    "accepted",
    [
        {"training": {"rampup_batch_size": [16, 16, 64]}},
        {"training": {"precision": "fp16"}},
        {"parallel": {"tensor_model_parallel_size": 2, "sequence_parallel": True}},
        {"parallel": {"context_parallel_size": 2, "recompute_granularity": "full"}},
    ],
)
def test_what_changes_in_tensors_alone_is_not(accepted: dict[str, Any]) -> None:
    assert problems(**accepted) == []


@pytest.mark.parametrize(
    ("backend", "elsewhere", "reason"),
    [
        ("flash3", {"device": "cpu"}, "device=cpu: it needs an NVIDIA GPU"),
        ("flash2", {"training": {"precision": "fp32"}}, "16-bit values only"),
        ("sdpa_flash", {"device": "cuda", "training": {"precision": "fp32"}}, "16-bit values only"),
        ("cudnn", {"data": {"reset_attention_mask": True}}, "does not attend inside documents"),
        ("cudnn", {"parallel": {"context_parallel_size": 2}}, "does not attend from a part of a row"),
        ("cudnn", {"model": {"window_size": 9}}, "no sliding window"),
    ],
)
def test_an_attention_back_end_that_no_machine_could_serve_is_refused(
    backend: str, elsewhere: dict[str, Any], reason: str
) -> None:
    (text,) = problems(**elsewhere, kernels={"cuda_graphs": False, "attention_backend": backend})
    assert text.startswith(f"kernels.attention_backend={backend} does not go with ")
    assert reason in text
    for works in ("auto", "torch"):
        assert problems(**elsewhere, kernels={"cuda_graphs": False, "attention_backend": works}) == []


@pytest.mark.parametrize(
    ("backend", "elsewhere"),
    [
        ("sdpa_flash", {"device": "cpu", "training": {"precision": "fp32"}}),
        ("sdpa_flash", {"training": {"precision": "fp32"}}),  # device=auto may be a CPU
        ("cudnn", {"model": {"window_size": 64}}),  # no row is longer
        ("flash2", {"data": {"reset_attention_mask": True}}),
    ],
)
def test_one_that_a_machine_may_serve_is_not(backend: str, elsewhere: dict[str, Any]) -> None:
    assert problems(**elsewhere, kernels={"cuda_graphs": False, "attention_backend": backend}) == []


def test_chunks_of_a_loss_that_is_not_fused_are_refused() -> None:
    (text,) = problems(kernels={"cuda_graphs": False, "loss_chunk_tokens": 8, "fused": False})
    assert "remove it, or set kernels.fused to auto or true" in text
    assert problems(kernels={"cuda_graphs": False, "loss_chunk_tokens": 8}) == []
