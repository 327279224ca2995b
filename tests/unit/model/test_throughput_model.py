"""The analytic model of speed: closed formulas of its parts, published speeds, and how layouts compare."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_ext.config.load import load_run_config
from megatron_ext.config.rules import check
from megatron_ext.config.sections import ParallelConfig, RunConfig
from megatron_ext.errors import ConfigError
from megatron_ext.model import calibration
from megatron_ext.model.calibration import fitted, held_out_error
from megatron_ext.model.communication import (
    data_parallel_seconds,
    group_bandwidth,
    ring_seconds,
    tensor_parallel_seconds,
)
from megatron_ext.model.flops import flops_per_token
from megatron_ext.model.hardware import GPUS, LINK_EFFICIENCY, find_gpu
from megatron_ext.model.layouts import Plan, rank
from megatron_ext.model.published import FSDP, LLAMA2_7B, PUBLISHED, Published
from megatron_ext.model.roofline import gemm_seconds, layer_work
from megatron_ext.model.step_time import microbatch_seconds, speed, step_time

SHIPPED = Path(__file__).parents[3] / "configs/runs/llama2_7b_256gpu.yaml"
A100, H100 = GPUS["a100-80"], GPUS["h100"]


def run_of(gpus: int = 8, accumulated: int = 8, micro_batch_size: int = 1, **parallel: Any) -> RunConfig:
    layout = ParallelConfig(**{**FSDP.model_dump(), **parallel})
    row = Published(
        "", LLAMA2_7B, "a100-80", gpus, micro_batch_size, 4096, layout, 1.0, accumulated=accumulated
    )
    return row.run()


@pytest.mark.parametrize("kind", ["a", "h"])
def test_published_speeds_are_met_on_average(kind: str) -> None:
    errors = [row.error() for row in PUBLISHED if row.gpu.startswith(kind)]
    assert abs(sum(errors) / len(errors)) < 0.01
    assert sum(map(abs, errors)) / len(errors) < 0.11
    assert max(map(abs, errors)) < 0.28


@pytest.mark.parametrize("kind", ["a", "h"])
def test_the_fitted_constant_is_the_gpu_s(kind: str) -> None:
    rows = [row for row in PUBLISHED if row.gpu.startswith(kind)]
    (constant,) = {GPUS[row.gpu].sustained for row in rows}
    assert constant == pytest.approx(fitted(rows), abs=0.005)


def test_speeds_of_code_bases_that_nothing_was_fitted_to() -> None:
    absolute = [abs(held_out_error(row)) for row in PUBLISHED]
    assert sum(absolute) / len(absolute) < 0.12
    assert max(absolute) < 0.31


def test_a_held_out_error_does_not_depend_on_the_figure_s_own_code_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = next(one for one in PUBLISHED if one.code_base == "llm-foundry")
    before = held_out_error(row)
    others = tuple(one for one in PUBLISHED if one is row or one.code_base != "llm-foundry")
    monkeypatch.setattr(calibration, "PUBLISHED", others)
    assert held_out_error(row) == before
    twice = [replace(one, tokens_per_second_per_gpu=2 * one.tokens_per_second_per_gpu) for one in others]
    monkeypatch.setattr(calibration, "PUBLISHED", twice)
    assert held_out_error(row) > before + 0.5


def test_a_large_product_runs_at_the_measured_rate() -> None:
    seconds = gemm_seconds(H100, 8192, 8192, 8192)
    tflops = 2 * 8192**3 / seconds / 1e12
    whole_waves = (64 * 32 / 132) / 16
    assert tflops == pytest.approx(989.4 * 0.79 * 0.72 * whole_waves)


def test_a_narrow_product_is_bound_by_its_bytes() -> None:
    moved = (16 * 4096 + 4096 * 4096 + 16 * 4096) * 2
    assert gemm_seconds(A100, 16, 4096, 4096) == pytest.approx(
        max(moved / (2.039e12 * 0.87), gemm_seconds(A100, 128, 4096, 4096) / 8)
    )


def test_forward_and_backward_do_the_flops_of_the_model() -> None:
    """At the peak and without waves left empty, one layer's time is its FLOPs."""
    work = layer_work(run_of(), A100)
    rate = A100.peak_tflops * 1e12 * A100.gemm_efficiency * A100.sustained
    layers = flops_per_token(LLAMA2_7B, 0, causal=False) - 6 * 32000 * 4096
    ideal = layers / 32 * 4096 / rate
    assert ideal <= work.forward.gemm + work.backward.gemm <= 1.1 * ideal


def test_rings() -> None:
    assert ring_seconds(8e9, 8, 300e9) == pytest.approx(7 / 8 * 8e9 / (300e9 * LINK_EFFICIENCY))
    assert group_bandwidth(A100, 8, 1) == A100.nvlink
    assert group_bandwidth(A100, 256, 1) == 8 * A100.network  # eight members in each node, eight cards
    assert group_bandwidth(A100, 32, 8) == A100.network


def test_tensor_parallel_traffic_is_two_all_reduces_a_layer_and_direction() -> None:
    run = run_of(tensor_model_parallel_size=2, sequence_parallel=True)
    all_reduce = 2 * (1 / 2) * 4096 * 4096 * 2 / (300e9 * LINK_EFFICIENCY)
    assert tensor_parallel_seconds(run, A100) == pytest.approx(2 * all_reduce)


def test_gradients_hide_behind_the_backward_pass_only_where_asked() -> None:
    hidden, exposed = (
        run_of(gpus=256),
        run_of(gpus=256, overlap_grad_reduce=False, overlap_param_gather=False),
    )
    parameters, bucket = 6_738_415_616, 256_000_000  # a million weights for each rank
    fp32_gradients_and_weights = data_parallel_seconds(exposed, A100, parameters, 4 + 2)
    assert step_time(exposed, A100).data == pytest.approx(fp32_gradients_and_weights)
    last_bucket = data_parallel_seconds(hidden, A100, bucket, 4 + 2)
    assert step_time(hidden, A100).data == pytest.approx(last_bucket)


def test_a_gpu_waits_for_the_host_where_kernels_are_small() -> None:
    run = run_of(gpus=8, tensor_model_parallel_size=8, sequence_parallel=True)
    assert step_time(run, H100).host == 0
    short = run.model_copy(update={"training": run.training.model_copy(update={"seq_length": 512})})
    time = step_time(short, H100)
    count = short.num_microbatches
    assert time.host == pytest.approx(count * (32e-3 - microbatch_seconds(short, H100)))
    # But for the zeros of gradients that no product overwrites.
    assert time.total - time.optimizer - time.data == pytest.approx(count * 32e-3, rel=0.01)
    graphs = short.model_copy(update={"kernels": short.kernels.model_copy(update={"cuda_graphs": True})})
    assert step_time(graphs, H100).host == 0


def test_the_bubble_is_that_of_1f1b_and_shrinks_with_chunks() -> None:
    """But for the step's first products, which overwrite gradients."""
    plain = step_time(run_of(pipeline_model_parallel_size=4), A100)
    busy = plain.total - plain.bubble - plain.optimizer - plain.data
    assert plain.bubble / busy == pytest.approx(3 / 8, rel=0.01)
    half = step_time(run_of(pipeline_model_parallel_size=4, virtual_pipeline_model_parallel_size=2), A100)
    busy = half.total - half.bubble - half.optimizer - half.data
    assert half.bubble / busy == pytest.approx(3 / 16, rel=0.01)


def test_full_recomputation_adds_the_forward_pass() -> None:
    kept, again = step_time(run_of(), A100), step_time(run_of(recompute_granularity="full"), A100)
    forward = layer_work(run_of(), A100).forward.total
    assert again.total - kept.total == pytest.approx(8 * 32 * forward)
    some = run_of(recompute_granularity="full", recompute_method="block", recompute_num_layers=8)
    assert step_time(some, A100).recompute == pytest.approx(again.recompute / 4)


def test_mfu_is_tokens_times_flops_over_the_peak() -> None:
    run = run_of()
    rate = speed(run, A100, seconds=10.0)
    assert rate.tokens_per_second_per_gpu == 8 * 8 * 4096 / 10 / 8
    assert rate.mfu == pytest.approx(rate.tokens_per_second_per_gpu * 46.08e9 / 312e12, rel=1e-3)
    assert rate.causal_mfu == pytest.approx(rate.tokens_per_second_per_gpu * 42.86e9 / 312e12, rel=1e-3)


@pytest.mark.parametrize("gpu", ["a100-40", "a100-80"])
def test_ranking_holds_layouts_that_start_fit_and_get_slower(gpu: str) -> None:
    run = run_of(gpus=256, accumulated=16)
    plans = rank(run, find_gpu(gpu), count=10)
    assert len(plans) == 10
    assert all(plan.fits(GPUS[gpu]) and check(plan.run) == [] for plan in plans)
    assert all(plan.run.training.global_batch_size == run.training.global_batch_size for plan in plans)
    speeds = [plan.speed.tokens_per_second_per_gpu for plan in plans]
    assert speeds == sorted(speeds, reverse=True)
    assert len({(plan.layout, plan.run.training.micro_batch_size) for plan in plans}) == 10
    assert speeds[0] > 2415  # GPT-NeoX's on 256 A100


def test_the_shipped_run_is_the_winner_of_its_own_ranking() -> None:
    run = load_run_config([SHIPPED])
    best = rank(run, A100, count=1)[0]
    assert best.run.parallel == run.parallel
    assert best.run.training == run.training
    expected = 50 * round(best.speed.tokens_per_second_per_gpu / 50)
    assert f"expects {expected:,} tokens/s of each GPU" in SHIPPED.read_text(encoding="utf-8")
    assert expected > 3760  # PyTorch FSDP's on 128 A100


def test_one_gpu_may_hold_small_states_and_graphs_may_be_ranked() -> None:
    run = run_of(gpus=1)
    small = {"main_grads_dtype": "bf16", "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16"}
    optimizer = run.optimizer.model_copy(update={**small, "store_param_remainders": True})
    best = rank(run.model_copy(update={"optimizer": optimizer}), H100, count=1)[0]
    assert best.run.parallel.use_distributed_optimizer
    graphs = run_of(gpus=8).kernels.model_copy(update={"cuda_graphs": True})
    best = rank(run_of(gpus=8).model_copy(update={"kernels": graphs}), H100, count=1)[0]
    assert best.run.kernels.cuda_graphs
    assert not best.run.parallel.overlap_param_gather


def test_a_model_that_fits_nowhere_has_no_layout() -> None:
    assert rank(run_of(gpus=1), GPUS["a100-40"]) == []


def test_names_of_layouts() -> None:
    run = run_of(
        gpus=64,
        tensor_model_parallel_size=2,
        pipeline_model_parallel_size=4,
        virtual_pipeline_model_parallel_size=2,
    )
    assert Plan.of(run, A100).layout == "TP2 PP4 VPP2 DP8"
    assert Plan.of(run_of(gpus=1), A100).layout == "one GPU"


def test_an_unknown_gpu_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--gpu k80: not known; one of a100-40, a100-80, h100, h200"):
        find_gpu("k80")
