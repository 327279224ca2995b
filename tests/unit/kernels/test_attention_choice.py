"""Which back end is chosen for which device, dtype and head size, and what is said about it."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import get_args

import pytest
import torch

from megatron_ext.config.sections import KernelsConfig
from megatron_ext.errors import ConfigError
from megatron_ext.kernels.attention import choice
from megatron_ext.kernels.attention.base import AttentionNeeds
from megatron_ext.kernels.attention.choice import choose_attention

CPU = AttentionNeeds(None, torch.float32, 128)
A100 = AttentionNeeds((8, 0), torch.bfloat16, 128)
H100 = AttentionNeeds((9, 0), torch.bfloat16, 128)
B200 = AttentionNeeds((10, 0), torch.bfloat16, 128)
V100 = AttentionNeeds((7, 0), torch.float16, 128)
MODULES = {"flash4": "flash_attn.cute", "flash3": "flash_attn_interface", "flash2": "flash_attn"}
ALL = frozenset(MODULES)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes these packages importable, and no others; cuDNN is there."""
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91600)
    monkeypatch.setitem(sys.modules, "flash_attn_3", None)

    def install(names: frozenset[str]) -> None:
        monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
        for name, module_name in MODULES.items():
            if name in names:
                module = sys.modules.get(module_name) or ModuleType(module_name)
                vars(module).update(flash_attn_func=print, flash_attn_varlen_func=print)
                monkeypatch.setitem(sys.modules, module_name, module)
            elif module_name != "flash_attn":
                monkeypatch.setitem(sys.modules, module_name, None)

    return install


@pytest.fixture(autouse=True)
def log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.Logger("attention", logging.INFO)
    logger.addHandler(caplog.handler)
    monkeypatch.setattr(choice, "logger", logger)
    choose_attention.cache_clear()
    yield caplog
    choose_attention.cache_clear()


def with_(needs: AttentionNeeds, **changes: object) -> AttentionNeeds:
    return dataclasses.replace(needs, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("needs", "packages", "expected"),
    [
        (CPU, ALL, "sdpa_flash"),
        (with_(CPU, dtype=torch.float64, head_size=10, documents=True), ALL, "sdpa_flash"),
        (H100, ALL, "flash4"),
        (H100, ALL - {"flash4"}, "flash3"),
        (H100, frozenset({"flash2"}), "cudnn"),
        (with_(H100, documents=True), frozenset({"flash2"}), "flash2"),
        (with_(H100, longer_keys=True), frozenset(), "sdpa_flash"),
        (with_(H100, window=True), frozenset(), "sdpa_flash"),
        (with_(H100, head_size=256), frozenset(), "sdpa_flash"),
        (with_(H100, dtype=torch.float32), ALL, "torch"),
        (with_(H100, head_size=512), ALL, "torch"),
        (with_(H100, head_size=100), ALL, "torch"),
        (B200, ALL, "flash4"),
        (with_(B200, head_size=256), ALL, "flash2"),
        (B200, ALL - {"flash4"}, "cudnn"),
        (A100, ALL, "flash2"),
        (A100, frozenset({"flash4", "flash3"}), "sdpa_flash"),
        (V100, ALL, "torch"),
    ],
)
def test_auto_takes_the_fastest_that_fits(
    *, needs: AttentionNeeds, packages: frozenset[str], expected: str, installed: Callable[..., None]
) -> None:
    installed(packages)
    assert choose_attention("auto", needs).name == expected


def test_a_choice_is_explained_once(installed: Callable[..., None], log: pytest.LogCaptureFixture) -> None:
    installed(frozenset())
    needs = with_(H100, documents=True)
    assert choose_attention("auto", needs) is choose_attention("auto", needs)
    (message,) = log.messages
    assert message.startswith("attention: sdpa_flash, the fastest that fits here (flash4: ")
    assert "flash_attn.cute is needed to attend; install it with: pip install --pre flash-attn-4" in message
    assert "cudnn: does not attend inside documents (data.reset_attention_mask)" in message


def test_on_a_cpu_one_reason_says_it_for_all(log: pytest.LogCaptureFixture) -> None:
    choose_attention("auto", CPU)
    reason = "flash4, flash3, cudnn, flash2: needs an NVIDIA GPU"
    assert log.messages == [f"attention: sdpa_flash, the fastest that fits here ({reason})"]


@pytest.mark.parametrize(
    ("name", "needs", "reason"),
    [
        ("flash4", CPU, "needs an NVIDIA GPU; what can serve here: auto, sdpa_flash, torch"),
        (
            "flash4",
            H100,
            "flash_attn.cute is needed to attend; .*what can serve here: auto, cudnn, flash2, sdpa_flash, torch",
        ),
        ("flash4", A100, "has no kernel for compute capability 8.0, but from 9.0, 10.0 on; what can serve"),
        ("flash3", B200, "has no kernel for compute capability 10.0, but from 9.0 on"),
        ("flash2", with_(A100, dtype=torch.float32), "takes bfloat16 and float16, not float32"),
        ("flash2", with_(A100, head_size=260), "takes head sizes up to 256 in steps of 8, not 260"),
        ("sdpa_flash", with_(A100, head_size=100), "up to 256 in steps of 8, not 100"),
        ("cudnn", with_(A100, longer_keys=True), r"part of a row \(parallel.context_parallel_size\)"),
        ("cudnn", with_(A100, window=True), "has no sliding window"),
    ],
)
def test_a_back_end_that_cannot_serve(
    *, name: str, needs: AttentionNeeds, reason: str, installed: Callable[..., None]
) -> None:
    installed(frozenset({"flash2"}))
    with pytest.raises(ConfigError, match=rf"^kernels.attention_backend={name}: .*{reason}"):
        choose_attention(name, needs)


@pytest.mark.parametrize("version", [None, 91002])
def test_an_old_cudnn_is_not_trusted(
    *, version: int | None, installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(frozenset())
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    assert choose_attention("auto", H100).name == "sdpa_flash"
    with pytest.raises(ConfigError, match=rf"cuDNN 9.15.1 is needed to attend \(here: {version or 'none'}\)"):
        choose_attention("cudnn", H100)


def test_the_one_asked_for_is_taken(installed: Callable[..., None], log: pytest.LogCaptureFixture) -> None:
    installed(ALL)
    assert choose_attention("torch", H100).name == "torch"
    assert log.messages == ["attention: torch, as kernels.attention_backend asks"]


def test_the_configuration_knows_every_back_end() -> None:
    known = get_args(KernelsConfig.model_fields["attention_backend"].annotation)
    assert set(known) == {"auto", *choice.SUPPORT}
    for order in (choice.FASTEST_FIRST, choice.FASTEST_FIRST_BEFORE_HOPPER):
        assert sorted(order) == sorted(choice.SUPPORT)
