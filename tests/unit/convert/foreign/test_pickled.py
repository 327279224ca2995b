"""What training frameworks save beside tensors is passed over; their real objects, where they are installed."""

import argparse
import random
import signal
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch

from megatron_ext.convert.foreign.pickled import Ignored, load
from megatron_ext.errors import ConversionError


def _loaded(tmp_path: Path, content: Any) -> Any:
    torch.save(content, tmp_path / "file.pt")
    return load(tmp_path / "file.pt")


def test_random_states_and_settings(tmp_path: Path) -> None:
    state = {
        "args": argparse.Namespace(
            exit_signal=signal.SIGTERM, path=PosixPath("a"), params_dtype=torch.bfloat16, lr=0.5
        ),
        "rng_state": [
            {"random": random.getstate(), "np": np.random.RandomState(0).get_state(), "x": np.float32(1)}
        ],
        "weight": torch.arange(3),
    }
    loaded = _loaded(tmp_path, state)
    assert torch.equal(loaded["weight"], torch.arange(3))
    assert (loaded["args"].lr, loaded["args"].params_dtype) == (0.5, torch.bfloat16)
    assert isinstance(loaded["args"].exit_signal, Ignored)
    assert isinstance(loaded["rng_state"][0]["np"][1], Ignored)


def test_other_packages_do_not_widen_what_is_accepted(tmp_path: Path) -> None:
    before = torch.serialization.get_safe_globals()
    # Not what is there already, as it is where megatron-core was imported: torch would take it away in the end.
    added = [kind for kind in (random.Random, np.ndarray) if kind not in before]
    with torch.serialization.safe_globals(added):
        inside = torch.serialization.get_safe_globals()
        with pytest.raises(ConversionError, match=r"GLOBAL random\.Random"):
            _loaded(tmp_path, {"a": random.Random(0)})
        assert set(torch.serialization.get_safe_globals()) == set(inside)
        assert isinstance(_loaded(tmp_path, {"a": np.zeros(2)})["a"], Ignored)
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_enumerations_of_megatron_core(tmp_path: Path) -> None:
    enums = pytest.importorskip("megatron.core.transformer.enums")
    model_type = pytest.importorskip("megatron.core.enums").ModelType.encoder_or_decoder
    loaded = _loaded(tmp_path, {"a": enums.AttnBackend.auto, "b": enums.AttnMaskType.causal, "c": model_type})
    assert all(isinstance(value, Ignored) for value in loaded.values())


def test_objects_of_deepspeed(tmp_path: Path) -> None:
    scaler = pytest.importorskip("deepspeed.runtime.fp16.loss_scaler").LossScaler(1.0)
    stage = pytest.importorskip("deepspeed.runtime.zero.config").ZeroStageEnum.weights
    assert all(isinstance(value, Ignored) for value in _loaded(tmp_path, {"a": scaler, "b": stage}).values())


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 not a zip", b"\x80\x02."])
def test_what_is_no_file_of_torch_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ConversionError, match=r"file\.pt: refused, this file is damaged"):
        load(tmp_path / "file.pt")
