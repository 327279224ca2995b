"""Kernels on the GPU where there is one, and in Triton's interpreter (see tests/conftest.py) elsewhere."""

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if (request.param == "cuda") != torch.cuda.is_available():
        pytest.skip("no CUDA device" if request.param == "cuda" else "kernels run on the GPU here")
    return torch.device(request.param)
