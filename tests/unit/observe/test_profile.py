"""Sorting what the profiler saw into parts: kernels by name, hidden communication, the optimizer's span."""

import time

import pytest
import torch

from megatron_ext.observe.profile import (
    REMAINDER,
    Event,
    part_of,
    profile_parts,
    seconds_by_part,
    update_mark,
)


def kernel(name: str, start: float, end: float) -> Event:
    return Event(name, start, end, end - start)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nvjet_hsh_192x192_64x4_2x1_v_bz_coopB_NNT", "GEMM"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x256x32_stage4", "GEMM"),
        ("ampere_bf16_s16816gemm_bf16_256x128_ldg8_f2f_stages_64x3_nt", "GEMM"),
        ("void cutlass::device_kernel<flash::FlashAttnFwdSm90<...>>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_7", "attention"),
        ("pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        ("ncclDevKernel_ReduceScatter_Sum_f32_RING_LL", "exposed communication"),
        ("gloo:all_reduce", "exposed communication"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>", "optimizer step"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::MulFunctor<float>>", "elementwise"),
        ("triton_poi_fused__scaled_dot_product_flash_attention_clone_transpose_3", "elementwise"),
        ("triton_red_fused__to_copy_mean_mm_mul_pow_rsqrt_0", "elementwise"),
        ("triton_tem_fused_mm_7", "GEMM"),
        ("aten::addmm", "GEMM"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::mul", "elementwise"),
    ],
)
def test_names_as_libraries_give_them(name: str, part: str) -> None:
    assert part_of(name) == part


def test_communication_counts_where_it_is_alone() -> None:
    events = [
        kernel("gemm", 0, 100),
        kernel("ncclDevKernel_AllReduce", 50, 140),  # 40 alone
        kernel("mul", 130, 150),  # of which 10 are hidden by this
        kernel("ncclDevKernel_AllGather", 160, 170),
    ]
    assert seconds_by_part(events, []) == pytest.approx(
        {"GEMM": 100e-6, "exposed communication": 40e-6, "elementwise": 20e-6}
    )


def test_all_inside_an_update_is_the_optimizer_s_and_parts_are_sorted() -> None:
    events = [kernel("mul", 0, 10), kernel("mul", 20, 50), kernel("gemm", 50, 55), kernel("gemm", 60, 61)]
    parts = seconds_by_part(events, [(20, 58)])
    assert list(parts.items()) == [
        ("optimizer step", pytest.approx(35e-6)),
        ("elementwise", pytest.approx(10e-6)),
        ("GEMM", pytest.approx(1e-6)),
    ]


def test_what_no_operator_takes_is_the_remainder() -> None:
    start = time.perf_counter()
    parts = profile_parts(lambda: time.sleep(0.05), lambda: None)
    assert parts.keys() == {REMAINDER}
    assert 0.05 <= parts[REMAINDER] < time.perf_counter() - start


def test_real_work_on_this_machine() -> None:
    left, right = torch.randn(256, 256), torch.randn(256, 256)

    def work() -> None:
        for _ in range(10):
            left @ right
        with update_mark():
            left.mul(2.0)

    start = time.perf_counter()
    parts = profile_parts(work, lambda: None)
    elapsed = time.perf_counter() - start
    assert list(parts)[-1] == REMAINDER
    assert 0 < sum(parts.values()) < elapsed
    assert set(parts) >= {"GEMM", "optimizer step"}
    assert parts["GEMM"] > parts["optimizer step"] > 0
    assert parts["GEMM"] > parts.get("elementwise", 0.0)  # views, if anything
