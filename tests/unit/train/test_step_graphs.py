"""Which steps are recorded, and that what changes between them lies in tensors that stay."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
import torch

from megatron_ext.data.loader import MicroBatch
from megatron_ext.errors import TrainingError
from megatron_ext.train.device_batch import DeviceBatch
from megatron_ext.train.graphs import WARMUP_STEPS, StepGraphs

Result = TypeVar("Result")
ROWS, SEQ = 2, 3


class Recorder:
    """Writes down what it is asked for; what is recorded runs when it is replayed, and not before."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        self.asked.append("beside")
        yield

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        self.asked.append("record")
        result: list[torch.Tensor] = [torch.full((2,), torch.nan)]

        def replay() -> None:
            self.asked.append("replay")
            (report,) = work()  # type: ignore[misc]
            result[0].copy_(report)

        return result, replay  # type: ignore[return-value]


class Passes:
    """Stands for the schedule: reports Σ tokens and Σ kept × scale, and remembers where it read them."""

    def __init__(self, graphs: StepGraphs) -> None:
        self.graphs = graphs
        self.read: list[tuple[int, ...]] = []

    def __call__(self, batches: list[DeviceBatch]) -> list[torch.Tensor]:
        inputs = [batch.model_input() for batch in batches]
        self.read.append(tuple(batch.tokens.data_ptr() for batch in batches))
        tokens = sum(one.tokens.sum() for one in inputs)
        kept = sum(one.loss_mask.sum() for one in inputs if one.loss_mask is not None)
        return [torch.stack([torch.as_tensor(tokens), self.graphs.scale_loss(torch.as_tensor(kept))[0]])]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "megatron_ext.train.device_batch.parallel_state.get_context_parallel_world_size"
    monkeypatch.setattr(name, lambda: 1)


def batch(value: int, kept: int | None = None, dtype: type = np.uint16) -> MicroBatch:
    """All its inputs are ``value``; ``kept`` of its labels count, or all."""
    mask = None if kept is None else (np.arange(ROWS * SEQ) < kept).reshape(ROWS, SEQ).astype(np.uint8)
    return MicroBatch(np.full((ROWS, SEQ + 1), value, dtype), mask, None, np.zeros(ROWS, np.int32))


def test_the_first_steps_run_as_they_are_and_the_others_from_one_graph(recorder: Recorder) -> None:
    graphs = StepGraphs(recorder, torch.device("cpu"))
    passes = Passes(graphs)
    for step in range(6):
        kept = None if step % 2 else step
        scale = torch.tensor([2.0**step])
        (report,) = graphs.run([batch(step), batch(60_000, kept)], scale, passes)
        labels = ROWS * SEQ
        expected = [labels * (step + 60_000), (labels + (labels if kept is None else kept)) * 2.0**step]
        assert report.tolist() == expected
    assert recorder.asked == ["beside"] * WARMUP_STEPS + ["record"] + ["replay"] * 3
    assert len(set(passes.read)) == 1


def test_another_number_of_micro_batches_takes_another_graph(recorder: Recorder) -> None:
    graphs = StepGraphs(recorder, torch.device("cpu"))
    passes = Passes(graphs)
    for count in (1, 1, 1, 1, 2, 2):
        (report,) = graphs.run([batch(count)] * count, torch.ones(1), passes)
        assert report.tolist() == [ROWS * SEQ * count**2, ROWS * SEQ * count]
    assert recorder.asked[WARMUP_STEPS:] == ["record", "replay", "record", "replay", "replay"]
    assert passes.read[-1][0] == passes.read[0][0]


def test_a_graph_that_was_let_go_is_recorded_again(recorder: Recorder) -> None:
    graphs = StepGraphs(recorder, torch.device("cpu"))
    for _ in range(WARMUP_STEPS + 1):
        graphs.run([batch(1)], torch.ones(1), Passes(graphs))
    graphs.release()
    (report,) = graphs.run([batch(2)], torch.ones(1), Passes(graphs))
    assert report[0] == ROWS * SEQ * 2
    assert recorder.asked.count("record") == 2


@pytest.mark.parametrize(
    "other",
    [
        batch(1, dtype=np.int32),
        MicroBatch(np.ones((1, SEQ + 1), np.uint16), None, None, np.zeros(1, np.int32)),
        MicroBatch(
            np.ones((ROWS, SEQ + 1), np.uint16), None, np.array([0, 3, 6], np.int32), np.zeros(2, np.int32)
        ),
    ],
    ids=["dtype", "rows", "documents"],
)
def test_micro_batches_that_differ_are_refused(recorder: Recorder, other: MicroBatch) -> None:
    graphs = StepGraphs(recorder, torch.device("cpu"))
    graphs.run([batch(1)], torch.ones(1), Passes(graphs))
    with pytest.raises(TrainingError, match=r"that are all alike, and one of torch\.\w+ \[\d, 4\]"):
        graphs.run([other], torch.ones(1), Passes(graphs))
