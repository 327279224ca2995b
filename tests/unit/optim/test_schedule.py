"""Learning rates against closed formulas and Hugging Face's schedules."""

import pytest
import torch

from megatron_ext.config.sections import OptimizerConfig
from megatron_ext.optim.schedule import learning_rate

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
