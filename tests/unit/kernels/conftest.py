"""Triton's kernels on the GPU where there is one, and in Triton's interpreter elsewhere."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    # Read when a kernel is decorated, hence before any test imports one.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if (request.param == "cuda") != torch.cuda.is_available():
        pytest.skip("no CUDA device" if request.param == "cuda" else "kernels run on the GPU here")
    return torch.device(request.param)
