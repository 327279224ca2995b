"""Speed in a run's records: of each device of the whole layout, without pauses, and from a resumed run's own start."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from megatron_ext.backend.cpu import CpuBackend
from megatron_ext.config.sections import RunConfig
from megatron_ext.train.hooks import build_hooks
from megatron_ext.train.state import TrainState
from megatron_ext.train.step import StepOutcome
from megatron_ext.utils import stopwatch
from megatron_ext.utils.stopwatch import Stopwatch

SAMPLES, SEQ, WORLD = 16, 512, 16
CONFIG = RunConfig.model_validate(
    {
        "name": "x",
        "model": {
            "num_layers": 4, "hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 4, "vocab_size": 256,
        },
        "parallel": {
            "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "context_parallel_size": 2,
        },
        "tokenizer": {"type": "ByteTokenizer"},
        "data": {"train": [{"path": "x"}]},
        "training": {"micro_batch_size": 1, "global_batch_size": SAMPLES, "seq_length": SEQ, "train_iters": 100},
        "optimizer": {"lr": 1e-3},
        "checkpoint": {"save_interval": 3},
        "logging": {"log_interval": 2, "peak_tflops": 2.0},
        "launch": {"nproc_per_node": WORLD},
    }
)  # fmt: skip
PARAMETERS = 4 * (4 * 64 * 64 + 3 * 64 * 128) + 256 * 64
"""Of matrix products: query, key, value and projection, gate, up and down, and the output layer."""
FLOPS_PER_TOKEN = 6 * PARAMETERS + 12 * 4 * 64 * SEQ


class Clock:
    """Seconds, which pass as the test says."""

    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(dist, "all_reduce", lambda _: None)
    return clock


@pytest.fixture
def run(clock: Clock) -> Any:
    """What a hook sees of a run, with its records."""
    del clock
    stop = SimpleNamespace(listen=lambda: None, requested=False, agreed=False)
    records: list[dict[str, Any]] = []
    return SimpleNamespace(
        config=CONFIG,
        stop=stop,
        sinks=[],
        records=records,
        write=records.append,
        stopwatch=Stopwatch(lambda: None),
        reached_end=lambda _: False,
    )


def steps(run: Any, clock: Clock, state: TrainState, seconds: list[float], pauses: dict[int, float]) -> None:
    """Each step takes so long; after some the run pauses, as for a validation or a checkpoint."""
    sets = SimpleNamespace(names=["one"], groups=[{}])
    log = build_hooks(CONFIG, CpuBackend(), SimpleNamespace(train=sets, valid=None))[0]  # type: ignore[arg-type]
    log.before_training(run, state)
    with run.stopwatch.paused():
        clock.now += 7.0  # validation at the start
    outcome = StepOutcome(
        torch.ones(1, 2, dtype=torch.float64), np.zeros(1, np.int32), torch.ones(()), 1e-3, False
    )
    for duration in seconds:
        clock.now += duration
        state = state.advance(SAMPLES, SAMPLES * SEQ)
        log.after_step(run, state, outcome)
        with run.stopwatch.paused():
            clock.now += pauses.get(state.iteration, 0.0)


def expected(tokens: int, seconds: float) -> dict[str, Any]:
    rate = tokens / seconds / WORLD
    return {
        "tokens_per_second_per_gpu": pytest.approx(rate),
        "model_tflops_per_gpu": pytest.approx(rate * FLOPS_PER_TOKEN / 1e12),
        "mfu": pytest.approx(rate * FLOPS_PER_TOKEN / 2e12),
        "flop_convention": "full attention",
    }


def test_all_devices_share_the_tokens_and_pauses_do_not_count(run: Any, clock: Clock) -> None:
    steps(run, clock, TrainState(), [1.0, 3.0, 2.0, 5.0], pauses={1: 20.0, 2: 30.0, 3: 40.0})
    assert [record["iteration"] for record in run.records] == [2, 3, 4]  # and before a checkpoint
    for record, (count, seconds) in zip(run.records, [(2, 4.0), (1, 2.0), (1, 5.0)], strict=True):
        assert record["iteration_time_s"] == pytest.approx(seconds / count)
        assert record.items() >= expected(count * SAMPLES * SEQ, seconds).items()


def test_a_resumed_run_counts_from_where_it_began(run: Any, clock: Clock) -> None:
    clock.now = 1000.0
    before = TrainState(iteration=51, consumed_samples=51 * SAMPLES, consumed_tokens=51 * SAMPLES * SEQ)
    steps(run, clock, before, [2.0], pauses={})
    assert [record["iteration"] for record in run.records] == [52]
    assert run.records[0]["iteration_time_s"] == pytest.approx(2.0)
    assert run.records[0].items() >= expected(SAMPLES * SEQ, 2.0).items()
