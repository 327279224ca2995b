"""Throughput against published runs, and the peaks that go with device names as drivers report them."""

import pytest

from megatron_ext.config.sections import ModelConfig
from megatron_ext.model.flops import flops_per_token
from megatron_ext.observe.throughput import CAUSAL_ATTENTION, FULL_ATTENTION, Throughput, peak_tflops


@pytest.mark.parametrize(
    ("device_name", "peak"),
    [
        ("NVIDIA A100-SXM4-40GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.0),
        ("NVIDIA H200", 989.4),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA B200", 2250.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA GB200", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Some new device", None),
        ("cpu", None),
    ],
)
def test_peak_by_device_name(device_name: str, peak: float | None) -> None:
    assert peak_tflops(device_name, "bf16") == peak


def test_fp32_has_no_peak() -> None:
    assert peak_tflops("NVIDIA H200", "fp32") is None


def test_speed_of_one_device() -> None:
    throughput = Throughput(2e9, FULL_ATTENTION, world_size=4, peak_tflops=10.0)
    speed = throughput.measure(seconds=5.0, tokens=40_000, iterations=10)
    assert speed.iteration_time_s == 0.5
    assert speed.tokens_per_second_per_gpu == 2000
    assert speed.model_tflops_per_gpu == pytest.approx(4.0)
    assert speed.mfu == pytest.approx(0.4)
    assert speed.flop_convention == "full attention"


def test_without_a_peak_there_is_no_mfu() -> None:
    speed = Throughput(2e9, CAUSAL_ATTENTION, world_size=1, peak_tflops=None).measure(seconds=1.0, tokens=10)
    assert speed.mfu is None


def test_a_published_run_comes_out_at_its_published_mfu() -> None:
    """PyTorch FSDP reports about 3,700 tokens/s and 57 % MFU for Llama 2 7B on A100s at 4,096 tokens.

    See pytorch.org/blog/maximizing-training: both figures are rounded there.
    """
    model = ModelConfig(
        num_layers=32, hidden_size=4096, ffn_hidden_size=11008, num_attention_heads=32, vocab_size=32000
    )
    throughput = Throughput(flops_per_token(model, 4096, causal=False), FULL_ATTENTION, 128, 312.0)
    speed = throughput.measure(seconds=1.0, tokens=3700 * 128)
    assert speed.mfu == pytest.approx(0.57, abs=0.03)
