import importlib.util
from collections.abc import Iterator

import pytest

from megatron_ext.errors import ConfigError
from megatron_ext.kernels.choice import use_fused_kernels


@pytest.fixture(autouse=True)
def ask_anew() -> Iterator[None]:
    """Answers depend on the environment, which a process does not change."""
    use_fused_kernels.cache_clear()
    yield
    use_fused_kernels.cache_clear()


def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "triton" else find_spec(name, *rest)
    )


def test_auto_takes_the_kernels_on_gpus_only() -> None:
    assert use_fused_kernels("auto", on_cpu=False) is True
    assert use_fused_kernels("auto", on_cpu=True) is False


def test_auto_does_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    without_triton(monkeypatch)
    assert use_fused_kernels("auto", on_cpu=False) is False


def test_false_is_false() -> None:
    assert use_fused_kernels(False, on_cpu=False) is False


def test_true_on_a_cpu_needs_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert use_fused_kernels(True, on_cpu=True) is True
    use_fused_kernels.cache_clear()
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ConfigError, match="TRITON_INTERPRET=1"):
        use_fused_kernels(True, on_cpu=True)


def test_true_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    without_triton(monkeypatch)
    with pytest.raises(ConfigError, match="pip install triton"):
        use_fused_kernels(True, on_cpu=False)
