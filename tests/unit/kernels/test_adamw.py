"""AdamW on flat buffers against torch's and against float64; the split of a master weight, bit for bit."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_ext.kernels.adamw import (
    AdamWStep,
    FlatParameters,
    Segments,
    adamw_,
    adamw_reference_,
    join_fp32,
    load_master,
    split_fp32,
    store_master,
    take_weights,
)

SIZE, STEPS, LR, DECAY, BETAS, EPS = 9000, 50, 1e-2, 0.1, (0.9, 0.95), 1e-8
WHOLE = slice(0, SIZE)
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
CHOICES: dict[str, tuple[torch.dtype, torch.dtype, torch.dtype | None, torch.dtype]] = {
    "16 bytes": (F32, F32, None, F32),
    "18 bytes": (BF16, F32, F32, F32),
    "18 bytes, fp16": (F16, F32, F32, F32),
    "16 bytes, remainder": (BF16, F32, torch.int16, F32),
    "12 bytes": (BF16, BF16, F32, BF16),
    "10 bytes": (BF16, BF16, torch.int16, BF16),
}
FULL = [name for name, choice in CHOICES.items() if choice[3] == F32]


def buffers(choice: str, device: str = "cpu") -> FlatParameters:
    weights, gradients, master, moments = CHOICES[choice]

    def zeros(dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(SIZE, dtype=dtype, device=device)

    flat = FlatParameters(
        zeros(weights),
        zeros(gradients),
        None if master is None else zeros(master),
        zeros(moments),
        zeros(moments),
    )
    start = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
    store_master(flat, WHOLE, start.to(device))
    return flat


def gradient(step: int, like: torch.Tensor) -> torch.Tensor:
    """Of a size that changes over the steps and the values, as in training."""
    generator = torch.Generator().manual_seed(step)
    values = torch.randn(SIZE, generator=generator) * torch.logspace(-4, 0, SIZE) * (1 + step % 3)
    return values.to(like)


def torchs_adamw(choice: str, dtype: torch.dtype, matrices: int) -> torch.Tensor:
    """Weights after all steps by torch's AdamW in ``dtype``, on the gradients that the choice can hold."""
    flat = buffers(choice)
    start = load_master(flat, WHOLE).to(dtype)
    parts = [torch.nn.Parameter(start[:matrices].clone()), torch.nn.Parameter(start[matrices:].clone())]
    groups = [{"params": [parts[0]], "weight_decay": DECAY}, {"params": [parts[1]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    for step in range(1, STEPS + 1):
        whole = gradient(step, flat.gradients).to(dtype) / 2
        parts[0].grad, parts[1].grad = whole[:matrices], whole[matrices:]
        optimizer.step()
    return torch.cat([part.detach() for part in parts])


def ours(choice: str, matrices: int) -> FlatParameters:
    flat = buffers(choice)
    groups = {DECAY: Segments([(0, 70), (70, matrices)]), 0.0: Segments([(matrices, SIZE)])}
    for step in range(1, STEPS + 1):
        flat.gradients.copy_(gradient(step, flat.gradients))
        for decay, segments in groups.items():
            adamw_(flat, segments, AdamWStep(LR, decay, *BETAS, EPS, step), torch.tensor(0.5))
    return flat


@pytest.mark.parametrize("choice", FULL)
def test_fifty_steps_equal_torchs(choice: str) -> None:
    found = load_master(ours(choice, 6000), WHOLE)
    assert float((found - torchs_adamw(choice, F32, 6000)).abs().max()) <= 1e-6


@pytest.mark.parametrize("choice", ["12 bytes", "10 bytes"])
def test_bf16_moments_stay_near(choice: str) -> None:
    """Half a bf16 digit in each moment may turn a step by 2⁻⁸ and 2⁻⁹ of its length, which is about lr."""
    error = (
        load_master(ours(choice, 6000), WHOLE).double() - torchs_adamw(choice, torch.float64, 6000)
    ).abs()
    assert float(error.max()) <= STEPS * LR * 2**-7
    assert float(error.mean()) <= STEPS * LR * 2**-10


@pytest.mark.parametrize(("short", "long"), [("10 bytes", "12 bytes"), ("16 bytes, remainder", "18 bytes")])
def test_a_remainder_is_as_good_as_a_master(short: str, long: str) -> None:
    with_remainder, with_master = ours(short, 6000), ours(long, 6000)
    masters = [load_master(flat, WHOLE) for flat in (with_remainder, with_master)]
    assert torch.equal(*(master.view(torch.int32) for master in masters))
    assert float((with_remainder.weights == with_master.weights).float().mean()) > 0.999  # all but exact ties


DEVICES: list[Any] = [
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="kernels run on the GPU here")),
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
    ),
]  # fmt: skip


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("middle", [5000, 4992], ids=["anywhere", "multiple of 16"])
@pytest.mark.parametrize("choice", CHOICES)
def test_the_kernel_against_float64(device: str, choice: str, middle: int) -> None:
    """One step from random states, over parts that end inside a tile; what lies between is left alone."""
    pytest.importorskip("triton")
    from megatron_ext.kernels.fused.adamw import launch_adamw  # noqa: PLC0415

    flat = buffers(choice, device)
    flat.gradients.copy_(gradient(1, flat.gradients))
    flat.exp_avg.copy_(gradient(2, flat.exp_avg))
    flat.exp_avg_sq.copy_(gradient(3, flat.exp_avg_sq).square())
    before = load_master(flat, WHOLE).double()
    scaled = flat.gradients.double() * 0.5
    first = 0.9 * flat.exp_avg.double() + 0.1 * scaled
    second = 0.95 * flat.exp_avg_sq.double() + 0.05 * scaled.square()
    direction = (first / (1 - 0.9**7)) / ((second / (1 - 0.95**7)).sqrt() + EPS)
    expected = before * (1 - LR * DECAY) - LR * direction
    left_alone = slice(middle, middle + 96)
    end = SIZE - 8  # 8,992
    expected[end:] = before[end:]
    expected[left_alone] = before[left_alone]
    untouched = flat.exp_avg[left_alone].clone()

    scale = torch.tensor(0.5, device=device)
    launch_adamw(
        flat, Segments([(0, middle), (middle + 96, end)]), AdamWStep(LR, DECAY, *BETAS, EPS, 7), scale
    )
    torch.testing.assert_close(load_master(flat, WHOLE).double(), expected, rtol=1e-6, atol=1e-7)
    digit = {F32: 2**-22, BF16: 2**-7}[flat.exp_avg.dtype]  # the interpreter cuts bf16 off where a GPU rounds
    for found, wanted in ((flat.exp_avg, first), (flat.exp_avg_sq, second)):
        for part in (slice(0, middle), slice(middle + 96, end)):
            torch.testing.assert_close(found[part].double(), wanted[part], rtol=digit, atol=1e-7)
    assert torch.equal(flat.exp_avg[left_alone], untouched)
    in_model = {F32: 1e-6, BF16: 2**-7, F16: 2**-10}[flat.weights.dtype]
    torch.testing.assert_close(flat.weights.double(), expected, rtol=in_model, atol=1e-7)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_every_number_comes_back_bit_for_bit(patterns: list[int]) -> None:
    bits = torch.tensor(patterns, dtype=torch.int64).to(torch.int32)
    values = bits.view(F32)
    weights, remainder = split_fp32(values)
    joined = join_fp32(weights, remainder)
    numbers = ~values.isnan()
    assert torch.equal(joined.view(torch.int32)[numbers], bits[numbers])
    assert bool(weights[~numbers].isnan().all())
    assert bool(joined[~numbers].isnan().all())
    ties = bits & 0xFFFF == 0x8000
    plain = numbers & ~ties
    assert torch.equal(weights[plain].view(torch.int16), values.to(BF16)[plain].view(torch.int16))


def test_what_is_not_a_number_stays_so_in_the_kernel_and_out_of_it() -> None:
    """A NaN of all bits, as GPUs make it, would round up to a zero in bf16 and hide."""
    pytest.importorskip("triton")
    from megatron_ext.kernels.fused.adamw import launch_adamw  # noqa: PLC0415

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for update in (adamw_reference_, launch_adamw):
        flat = buffers("10 bytes", device)
        flat.gradients.fill_(torch.tensor(2**31 - 1, dtype=torch.int32).view(F32).item())
        update(flat, Segments([(0, 100)]), AdamWStep(LR, DECAY, *BETAS, EPS, 1))
        assert bool(flat.weights[:100].isnan().all())
        assert not bool(flat.weights[100:].isnan().any())


@pytest.mark.parametrize("choice", CHOICES)
def test_weights_are_taken_piece_by_piece(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_ext.kernels.adamw.PIECE", 700)
    flat = buffers(choice)
    flat.weights.copy_(torch.randn(SIZE, generator=torch.Generator().manual_seed(2)))
    take_weights(flat)
    assert torch.equal(load_master(flat, WHOLE), flat.weights.float())
