import pytest

from megatron_ext.utils import stopwatch
from megatron_ext.utils.stopwatch import Stopwatch


class Device:
    """A clock, and work in flight that ``synchronize`` waits for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queued = 0.0

    def synchronize(self) -> None:
        self.now += self.queued
        self.queued = 0.0


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: device.now)
    return device


def test_laps_leave_no_second_out_and_count_none_twice(device: Device) -> None:
    watch = Stopwatch(device.synchronize)
    device.now += 2.0
    device.queued = 0.5
    assert watch.lap() == 2.5
    device.now += 1.0
    assert watch.lap() == 1.0


def test_pauses_are_left_out_and_queued_work_stays_on_its_side(device: Device) -> None:
    watch = Stopwatch(device.synchronize)
    device.now += 1.0
    device.queued = 0.25  # a training step still running when the pause begins
    with watch.paused():
        device.now += 10.0
        device.queued = 5.0  # validation still running when the pause ends
    device.now += 2.0
    assert watch.lap() == 3.25
