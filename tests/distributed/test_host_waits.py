"""In no layout does the host wait for the device during a step, or in hooks after a step that is not logged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from host_waits import HostWaitError, refused_waits
from waits_worker import CASES
from worker_processes import run_worker

WORKER = Path(__file__).with_name("waits_worker.py")
VALUE, ROWS, MASK = torch.ones(1), torch.ones(2, 3), torch.tensor([True, False])


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each process waited for."""
    folder = tmp_path_factory.mktemp("waits")
    run_worker(WORKER, folder, 2)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", [name for name in CASES if name != "fp16"])
def test_nothing_is_waited_for(ranks: list[Any], case: str) -> None:
    assert [rank[case] for rank in ranks] == [None, None]


def test_loss_scaling_has_to_know_of_overflows(ranks: list[Any]) -> None:
    """It decides on the host whether to update; the only wait, and what shows that waits in a step are seen."""
    assert [rank["fp16"] for rank in ranks] == ["aten::_local_scalar_dense"] * 2


@pytest.mark.parametrize(
    "wait",
    [
        lambda: float(VALUE),
        lambda: 1 if VALUE > 0 else 2,
        lambda: ROWS[MASK],
        lambda: ROWS.index_put_((MASK,), ROWS[0]),
        lambda: torch.equal(VALUE, VALUE),
        lambda: torch.cuda.synchronize(0),
        lambda: torch.tensor([1.0], device=torch.device("cpu")),  # as current_device names it on a CPU
    ],
)
def test_a_wait_is_refused(wait: Callable[[], object]) -> None:
    with refused_waits(), pytest.raises(HostWaitError):
        wait()


@pytest.mark.parametrize("method", ["item", "tolist", "cpu", "numpy", "nonzero"])
def test_a_method_that_waits_is_refused(method: str) -> None:
    with refused_waits(), pytest.raises(HostWaitError):
        getattr(VALUE, method)()


def test_what_needs_no_wait_is_not_refused() -> None:
    rows = ROWS.clone()
    with refused_waits():
        rows[MASK] = 0.0
        torch.tensor([1, 2])
    assert rows.tolist() == [[0, 0, 0], [1, 1, 1]]
