"""Rules between keys: each is broken on its own, and the values it proposes are tried."""

import math
import re
from typing import Any

import pytest

from megatron_ext.config.rules import check
from megatron_ext.config.sections import RunConfig

VALID: dict[str, dict[str, Any]] = {
    "model": {
        "num_layers": 12,
        "hidden_size": 96,
        "ffn_hidden_size": 256,
        "num_attention_heads": 12,
        "num_query_groups": 4,
        "vocab_size": 300,
    },
    "parallel": {},
    "tokenizer": {"type": "SentencePieceTokenizer", "model": "t.model"},
    "data": {"train": [{"path": "a"}]},
    "training": {"micro_batch_size": 4, "global_batch_size": 96, "seq_length": 64, "train_iters": 100},
    "optimizer": {"lr": 1e-3},
    "launch": {},
}


MODEL_SIZES = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")


def run_with(**changes: Any) -> RunConfig:
    values = {name: dict(section) for name, section in VALID.items()}
    for dotted, value in changes.items():
        section, key = dotted.split("__")
        values[section][key] = value
    return RunConfig.model_validate({"name": "trial", **values})


def test_a_valid_run_breaks_no_rule() -> None:
    assert check(run_with()) == []


def test_features_of_different_families_do_not_mix() -> None:
    (text,) = check(run_with(model__add_qkv_bias=True, model__window_size=8))
    assert "model.add_qkv_bias with model.window_size: no family of models has both" in text
    assert check(run_with(model__qk_layernorm=True)) == []


@pytest.mark.parametrize(
    "parallel",
    [
        {"tensor_model_parallel_size": 4},  # two processes share each of the two groups
        {"pipeline_model_parallel_size": 4, "virtual_pipeline_model_parallel_size": 3},
        {"pipeline_model_parallel_size": 3, "num_layers_in_first_pipeline_stage": 2},
        {"pipeline_model_parallel_size": 2, "num_layers_in_last_pipeline_stage": 5},
        {"context_parallel_size": 4, "tensor_model_parallel_size": 4, "sequence_parallel": True},
        {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 5},
        {"recompute_granularity": "selective", "recompute_modules": ["core_attn", "mlp"]},
    ],
)
def test_layouts_that_work_break_no_rule(parallel: dict[str, Any]) -> None:
    changes = {f"parallel__{key}": value for key, value in parallel.items()}
    sizes = [value for key, value in parallel.items() if key in MODEL_SIZES]
    run = run_with(
        **changes,
        launch__nproc_per_node=math.prod(sizes),
        model__num_query_groups=2,
    )
    assert check(run) == []
    layers = run.parallel.stage_layers(12)
    assert (sum(layers), len(layers)) == (12, run.parallel.pipeline_model_parallel_size)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"training__global_batch_size": 100, "launch__nproc_per_node": 8},
            [
                "training.global_batch_size=100 is not a multiple of micro_batch_size × data_parallel_size "
                "= 4 × 8; nearest: 96, 128",
            ],
        ),
        ({"training__global_batch_size": 3}, ["= 4 × 1; nearest: 4"]),
        (
            {"launch__nproc_per_node": 6, "parallel__tensor_model_parallel_size": 4},
            [
                "launch.nnodes × nproc_per_node = 1 × 6 processes is not a multiple of "
                "tensor_model_parallel_size × pipeline_model_parallel_size = 4 × 1; nearest: 4, 8 processes",
            ],
        ),
        (
            {
                "launch__nproc_per_node": 5,
                "parallel__pipeline_model_parallel_size": 5,
                "training__global_batch_size": 100,
            },
            ["parallel.pipeline_model_parallel_size=5 does not divide model.num_layers=12", "nearest: 4, 6"],
        ),
        (
            {"launch__nproc_per_node": 8, "parallel__tensor_model_parallel_size": 8},
            # 6 and 12 divide the heads, but neither ffn_hidden_size nor the groups.
            ["size=8 does not divide model.num_attention_heads=12; nearest: 4"],
        ),
        (
            {
                "launch__nproc_per_node": 2,
                "parallel__tensor_model_parallel_size": 2,
                "model__ffn_hidden_size": 255,
            },
            [
                "parallel.tensor_model_parallel_size=2 does not divide model.ffn_hidden_size=255",
                "nearest: 1",
            ],
        ),
        (
            {"model__num_query_groups": 5},
            ["num_query_groups=5 does not divide num_attention_heads=12", "nearest: 4, 6"],
        ),
        (
            {"model__hidden_size": 100},
            ["num_attention_heads=12 does not divide hidden_size=100", "nearest: 10, 20"],
        ),
        ({"model__hidden_size": 36}, ["heads of size 3 are odd", "2, 4"]),
        ({"model__kv_channels": 7}, ["model.kv_channels: heads of size 7", "6, 8"]),
        ({"parallel__sequence_parallel": True}, ["sequence_parallel=true", "tensor_model_parallel_size=1"]),
        (
            {
                "parallel__sequence_parallel": True,
                "parallel__tensor_model_parallel_size": 4,
                "launch__nproc_per_node": 4,
                "training__seq_length": 63,
            },
            ["training.seq_length=63 is not a multiple of tensor_model_parallel_size=4", "nearest: 60, 64"],
        ),
        (
            {"parallel__context_parallel_size": 3, "launch__nproc_per_node": 3},
            [
                "training.seq_length=64 is not a multiple of 2 × context_parallel_size = 2 × 3",
                "nearest: 60, 66",
            ],
        ),
        (
            {
                "parallel__context_parallel_size": 4,
                "parallel__tensor_model_parallel_size": 4,
                "parallel__sequence_parallel": True,
                "launch__nproc_per_node": 16,
                "training__seq_length": 72,
            },
            [
                "is not a multiple of tensor_model_parallel_size=4 × context_parallel_size=4, which sequence",
                "64, 80",
            ],
        ),
        (
            {"parallel__context_parallel_size": 2, "launch__nproc_per_node": 5},
            ["× context_parallel_size = 1 × 1 × 2; nearest: 4, 6 processes"],
        ),
        (
            {"parallel__virtual_pipeline_model_parallel_size": 2},
            [
                "virtual_pipeline_model_parallel_size=2 interleaves",
                "pipeline_model_parallel_size=1; set that to 2",
            ],
        ),
        (
            {
                "parallel__virtual_pipeline_model_parallel_size": 4,
                "parallel__pipeline_model_parallel_size": 2,
                "launch__nproc_per_node": 2,
            },
            [
                "virtual_pipeline_model_parallel_size=4 does not divide the layers of a stage, 6",
                "nearest: 3, 6",
            ],
        ),
        (
            {
                "parallel__virtual_pipeline_model_parallel_size": 3,
                "parallel__pipeline_model_parallel_size": 4,
                "launch__nproc_per_node": 4,
                "training__global_batch_size": 72,
            },
            [
                "global_batch_size=72 makes 18 micro-batches",
                "groups of pipeline_model_parallel_size=4; nearest: 64, 80",
            ],
        ),
        (
            {"parallel__num_layers_in_first_pipeline_stage": 3},
            [
                "num_layers_in_first_pipeline_stage=3: with pipeline_model_parallel_size=1 the only stage holds all 12"
            ],
        ),
        (
            {
                "parallel__num_layers_in_first_pipeline_stage": 3,
                "parallel__num_layers_in_last_pipeline_stage": 2,
                "parallel__pipeline_model_parallel_size": 4,
                "launch__nproc_per_node": 4,
            },
            [
                "num_layers_in_first_pipeline_stage=3 and num_layers_in_last_pipeline_stage=2 of model.num_layers=12",
                "nearest num_layers_in_first_pipeline_stage: 2, 4",
            ],
        ),
        (
            {
                "model__num_query_groups": 4,
                "model__num_attention_heads": 24,
                "parallel__tensor_model_parallel_size": 6,
                "model__ffn_hidden_size": 258,
                "launch__nproc_per_node": 6,
            },
            ["gives no process whole groups of model.num_query_groups=4", "nearest: 2"],
        ),
        ({"parallel__recompute_method": "block"}, ["recompute_method belongs to recompute_granularity=full"]),
        (
            {"parallel__recompute_modules": ["mlp"]},
            ["recompute_modules belongs to recompute_granularity=selective"],
        ),
        (
            {"parallel__recompute_granularity": "full", "parallel__recompute_num_layers": 5},
            [
                "recompute_num_layers=5 does not divide",
                "12, and uniform",
                "nearest: 4, 6, or recompute_method=block",
            ],
        ),
        (
            {
                "parallel__recompute_granularity": "full",
                "parallel__recompute_method": "block",
                "parallel__recompute_num_layers": 5,
                "parallel__pipeline_model_parallel_size": 4,
                "launch__nproc_per_node": 4,
            },
            ["recompute_num_layers=5 is more than the 3 layers", "nearest: 3"],
        ),
        ({"training__seq_length": 5000}, ["training.seq_length=5000 is longer", "nearest: 4096"]),
        (
            {"tokenizer__model": None},
            ["tokenizer.model: SentencePieceTokenizer needs the tokenizer.model file"],
        ),
        ({"tokenizer__type": "ByteTokenizer"}, ["ByteTokenizer has no model file"]),
        ({"data__split": "98,1,1", "data__valid": [{"path": "v"}]}, ["data.split and data.valid both"]),
        ({"data__split": "98,1"}, ["data.split=98,1: must be three numbers"]),
        ({"data__split": "0,0,0"}, ["must be three numbers"]),
        ({"data__split": "98,-1,1"}, ["must be three numbers"]),
        ({"data__split": "a,b,c"}, ["must be three numbers"]),
        ({"data__split": "1,inf,nan"}, ["must be three numbers"]),
        (
            {"training__eval_interval": 10},
            ["training.eval_interval=10 asks for validation, and nothing is held out"],
        ),
        ({"training__eval_at_start": True, "data__split": "99,0,1"}, ["training.eval_at_start=true asks"]),
        ({"data__train": [{"path": "a", "weight": 1.0}, {"path": "b"}]}, ["1 of 2 entries have a weight"]),
        ({"data__train": [{"path": "a", "weight": 0.0}]}, ["every weight is 0"]),
        (
            {"data__train": [{"path": "a", "weight": 1.0, "tokens": 5e9}]},
            ["data.train[0]: weight and tokens both say how much is read; keep one"],
        ),
        (
            {"data__train": [{"path": "a", "tokens": 5}, {"path": "b", "samples": 5}]},
            ["data.train[1].samples: other entries of data.train have tokens", "one of weight, tokens"],
        ),
        ({"data__train": [{"path": "a", "samples": 5}, {"path": "b"}]}, ["1 of 2 entries have a samples"]),
        ({"data__train": [{"path": "a", "tokens": 0}]}, ["every tokens is 0"]),
        (
            {"data__stages": [{"from_samples": 9, "train": [{"path": "a", "weight": 0.0}]}]},
            ["data.stages[0].train: every weight is 0"],
        ),
        (
            {"data__stages": [{"train": [{"path": "a"}]}]},
            ["data.stages[0]: give its start as one of from_samples and from_fraction"],
        ),
        (
            {"data__stages": [{"from_samples": 9, "from_fraction": 0.5, "train": [{"path": "a"}]}]},
            ["data.stages[0]: give its start as one of"],
        ),
        (
            {
                "data__stages": [
                    {"from_fraction": 0.5, "train": [{"path": "a"}]},  # of 100 × 96
                    {"from_samples": 4800, "train": [{"path": "a"}]},
                ]
            },
            [
                "data.stages[1] starts at sample 4,800, which is not after",
                "4,800; write stages by their start",
            ],
        ),
        (
            {
                "data__order": "megatron",
                "data__stages": [{"from_samples": 9, "train": [{"path": "a"}]}],
            },
            ["data.order=megatron repeats", "megatron-core has no stages; use order: permuted"],
        ),
        ({"data__reset_position_ids": True}, ["needs reset_attention_mask=true"]),
        ({"optimizer__min_lr": 0.1}, ["optimizer.min_lr=0.1 is above lr=0.001"]),
        (
            {"optimizer__lr_warmup_iters": 100},
            ["lr_warmup_iters=100", "training.train_iters=100; nearest: 99"],
        ),
        (
            {"optimizer__lr_warmup_iters": 50, "optimizer__lr_decay_iters": 50},
            ["lr_decay_iters=50; nearest: 49"],
        ),
        ({"optimizer__lr_decay_style": "WSD"}, ["lr_decay_style=WSD needs it", "would be 10"]),
        ({"optimizer__lr_wsd_decay_iters": 10}, ["no other style has it"]),
        (
            {
                "optimizer__lr_decay_style": "WSD",
                "optimizer__lr_wsd_decay_iters": 95,
                "optimizer__lr_warmup_iters": 10,
            },
            ["lr_wsd_decay_iters=95 does not fit", "nearest: 90"],
        ),
        ({"optimizer__rewarm_iters": 5}, ["rewarm_iters has no effect without rewarm_from_iters"]),
        (
            {"optimizer__rewarm_from_iters": 90, "optimizer__rewarm_iters": 10},
            ["rewarm_from_iters + rewarm_iters = 90 + 10 leaves no step", "train_iters=100"],
        ),
        (
            {"optimizer__rewarm_from_iters": 50, "optimizer__lr_decay_iters": 60},
            ["lr_decay_iters=60 is after rewarm_from_iters=50", "nearest: 50"],
        ),
        (
            {"optimizer__rewarm_from_iters": 50, "optimizer__rewarm_lr": 1e-5, "optimizer__min_lr": 1e-4},
            ["rewarm_lr=1e-05 is below min_lr=0.0001"],
        ),
        ({"training__rampup_batch_size": [96, 4, 100]}, ["starts at 96, which is not below"]),
        ({"training__rampup_batch_size": [32, 48, 100]}, ["in steps of 48 the batch never is", "divides 64"]),
        (
            {"training__rampup_batch_size": [32, 4, 100], "launch__nproc_per_node": 2},
            ["start 32 and increment 4 must be multiples of", "= 4 × 2", "multiples of 8"],
        ),
        (
            {"optimizer__exp_avg_dtype": "bf16", "optimizer__store_param_remainders": True},
            ["exp_avg_dtype=bf16, store_param_remainders=true: only the distributed optimizer"],
        ),
        (
            {
                "optimizer__main_grads_dtype": "bf16",
                "training__precision": "fp32",
                "parallel__use_distributed_optimizer": True,
            },
            ["main_grads_dtype=bf16 goes with bf16 weights, and training.precision=fp32"],
        ),
        (
            {
                "optimizer__exp_avg_sq_dtype": "bf16",
                "optimizer__adam_beta2": 0.999,
                "parallel__use_distributed_optimizer": True,
            },
            ["exp_avg_sq_dtype=bf16 with adam_beta2=0.999", "nearest: adam_beta2=0.996, or fp32"],
        ),
        ({"optimizer__loss_scale": 8.0}, ["optimizer.loss_scale keeps", "training.precision=bf16; remove"]),
        (
            {"optimizer__min_loss_scale": 8.0, "optimizer__initial_loss_scale": 4.0},
            ["min_loss_scale=8 is above initial_loss_scale=4; nearest: 4"],
        ),
        (
            {"training__fp8": "hybrid", "training__precision": "fp32"},
            ["training.fp8=hybrid needs training.precision=bf16", "precision=fp32 and device=auto"],
        ),
        (
            {"training__fp8": "e4m3", "model__ffn_hidden_size": 250},
            ["multiples of 16", "model.ffn_hidden_size comes to 250"],
        ),
        (
            {"parallel__overlap_param_gather": True},
            ["needs use_distributed_optimizer=true", "needs overlap_grad_reduce=true"],
        ),
        ({"launch__nnodes": 2, "launch__node_rank": 2}, ["launch.node_rank=2 is not below nnodes=2"]),
        ({"launch__hostfile": "hosts"}, ["launch.hostfile is read by mpirun and deepspeed"]),
    ],
)
def test_each_rule_says_what_and_what_instead(changes: dict[str, Any], expected: list[str]) -> None:
    found = check(run_with(**changes))
    text = "\n".join(found)
    assert all(part in text for part in expected), text
    assert len(found) == max(
        1, len([part for part in expected if re.match(r"needs|num_attention|model\.num", part)])
    )


def test_all_broken_rules_come_together() -> None:
    changes = {"data__reset_position_ids": True, "optimizer__min_lr": 1.0, "training__global_batch_size": 7}
    assert len(check(run_with(**changes))) == 3


def test_a_warmup_within_the_decay_may_outlast_a_short_trial() -> None:
    assert check(run_with(optimizer__lr_warmup_iters=500, optimizer__lr_decay_iters=12000)) == []
