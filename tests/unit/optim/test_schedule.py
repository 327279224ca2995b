"""Learning rates against closed formulas, megatron-core's scheduler and Hugging Face's schedules."""

import math
from typing import Any

import pytest
import torch
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

from megatron_ext.config.section_optimizer import OptimizerConfig
from megatron_ext.optim.schedule import corners, learning_rate

transformers = pytest.importorskip("transformers")

LR, MIN_LR, ITERS = 0.02, 0.002, 40


def rates(iterations: int = ITERS, **settings: object) -> list[float]:
    """Of steps 1 to ``iterations`` of a run of ``ITERS``."""
    config = OptimizerConfig.model_validate({"lr": LR, **settings})
    return [learning_rate(config, ITERS, step) for step in range(1, iterations + 1)]


@pytest.mark.parametrize(
    ("style", "maker"),
    [("cosine", "get_cosine_schedule_with_warmup"), ("linear", "get_linear_schedule_with_warmup")],
)
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_equals_transformers_one_step_ahead(style: str, maker: str, warmup: int) -> None:
    """Theirs is 0 in the first step, which then learns nothing; ours begins with its second value."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = getattr(transformers, maker)(optimizer, warmup, ITERS)
    theirs = []
    for _ in range(ITERS):
        optimizer.step()
        scheduler.step()
        theirs.append(scheduler.get_last_lr()[0])
    assert rates(lr_decay_style=style, lr_warmup_iters=warmup) == pytest.approx(theirs, abs=1e-15)


@pytest.mark.parametrize("style", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 5, ITERS - 1])
def test_its_corners(style: str, warmup: int) -> None:
    found = rates(ITERS + 5, lr_decay_style=style, lr_warmup_iters=warmup, min_lr=MIN_LR)
    assert found[:warmup] == pytest.approx([LR * step / warmup for step in range(1, warmup + 1)])
    assert all(rate > 0 for rate in found)
    after = found[max(0, warmup - 1) : ITERS]
    assert after == sorted(after, reverse=True)
    end = LR if style == "constant" else MIN_LR
    assert found[ITERS - 1 :] == pytest.approx([end] * 6)


def test_half_way_it_is_half_way() -> None:
    for style in ("cosine", "linear"):
        found = rates(lr_decay_style=style, lr_warmup_iters=10, min_lr=MIN_LR)
        assert found[(10 + ITERS) // 2 - 1] == pytest.approx((LR + MIN_LR) / 2)
    quarter = rates(lr_decay_style="linear", min_lr=MIN_LR)[ITERS // 4 - 1]
    assert quarter == pytest.approx(0.75 * LR + 0.25 * MIN_LR)


def test_a_decay_may_end_before_the_run() -> None:
    found = rates(lr_decay_style="linear", lr_decay_iters=20, min_lr=MIN_LR)
    assert found[18] > MIN_LR
    assert found[19:] == pytest.approx([MIN_LR] * 21)


def megatron_rates(settings: dict[str, Any]) -> list[float]:
    """The same from megatron-core, which counts steps from 0 and takes the rate of the step before."""

    class Optimizer:
        def __init__(self) -> None:
            self.param_groups = [{"wd_mult": 1.0, "lr": 0.0}]

    scheduler = OptimizerParamScheduler(
        Optimizer(), 0.0, LR, settings.get("min_lr", 0.0), settings.get("lr_warmup_iters", 0),
        settings.get("lr_decay_iters", ITERS), settings["lr_decay_style"], 0.0, 0.0, ITERS, "constant",
        wsd_decay_steps=settings.get("lr_wsd_decay_iters"), lr_wsd_decay_style=settings.get("lr_wsd_decay_style"),
    )  # fmt: skip
    found = []
    for _ in range(ITERS):
        scheduler.step(1)
        found.append(scheduler.optimizer.param_groups[0]["lr"])
    return found


@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize(
    "style",
    [
        {"lr_decay_style": "cosine"},
        {"lr_decay_style": "linear", "lr_decay_iters": 30},
        {"lr_decay_style": "constant"},
        {"lr_decay_style": "inverse-square-root"},
        {"lr_decay_style": "inverse-square-root", "lr_decay_iters": 20},
        *(
            {"lr_decay_style": "WSD", "lr_wsd_decay_iters": steps, "lr_wsd_decay_style": shape}
            for steps in (1, 12)
            for shape in ("linear", "cosine", "minus_sqrt")
        ),
    ],
)
def test_equals_megatron_core(style: dict[str, Any], warmup: int) -> None:
    settings = {**style, "lr_warmup_iters": warmup, "min_lr": MIN_LR}
    assert rates(**settings) == pytest.approx(megatron_rates(settings), abs=1e-15)


def test_re_warming_begins_where_the_rate_is_and_decays_anew() -> None:
    """The formulas of both cycles, written down a second time: 16 steps, then 4 up and 20 down."""
    found = rates(
        lr_decay_style="cosine", lr_warmup_iters=4, min_lr=MIN_LR,
        rewarm_from_iters=16, rewarm_iters=4, rewarm_lr=0.01,
    )  # fmt: skip
    first = [LR * step / 4 for step in range(1, 5)]
    first += [MIN_LR + (LR - MIN_LR) * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(1, 13)]
    rise = [MIN_LR + (0.01 - MIN_LR) * step / 4 for step in range(1, 5)]
    fall = [MIN_LR + (0.01 - MIN_LR) * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(1, 21)]
    assert found == pytest.approx(first + rise + fall, abs=1e-15)


def test_re_warming_in_mid_decay_rises_from_there() -> None:
    settings = {"lr_decay_style": "constant", "rewarm_from_iters": 10, "rewarm_iters": 5, "rewarm_lr": 0.04}
    found = rates(**settings)
    assert found[:10] == [LR] * 10
    assert found[10:15] == pytest.approx([LR + (0.04 - LR) * step / 5 for step in range(1, 6)])
    assert found[15:] == [0.04] * 25


def test_a_re_warmed_wsd_is_stable_again_and_decays_at_the_end() -> None:
    found = rates(
        lr_decay_style="WSD",
        lr_wsd_decay_iters=5,
        lr_wsd_decay_style="linear",
        rewarm_from_iters=20,
        rewarm_iters=2,
    )
    fall = [LR * (1 - step / 5) for step in range(1, 6)]
    assert found[:20] == pytest.approx([LR] * 15 + fall, abs=1e-15)
    assert found[20:] == pytest.approx([LR / 2] + [LR] * 14 + fall, abs=1e-15)


def test_a_table_shows_every_turn() -> None:
    config = OptimizerConfig.model_validate(
        {
            "lr": LR, "lr_decay_style": "WSD", "lr_warmup_iters": 3, "lr_wsd_decay_iters": 5,
            "rewarm_from_iters": 20, "rewarm_iters": 2,
        }
    )  # fmt: skip
    assert corners(config, ITERS) == [1, 3, 15, 20, 22, 35, 40]
