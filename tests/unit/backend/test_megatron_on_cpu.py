"""What megatron-core asks of CUDA is answered by the CPU; in a process of its own, because a patch stays."""

import json
import subprocess
import sys
from typing import Any

import pytest

OBSERVE = """\
import json
import torch
from megatron.core.optimizer import clip_grads
from megatron.core.tensor_parallel import random as megatron_random
from megatron_ext.backend.megatron_on_cpu import patch_megatron_core

seen = {}
torch.cuda.is_initialized = lambda: True
try:
    patch_megatron_core()
except RuntimeError as error:
    seen["refusal"] = str(error)
    seen["untouched"] = torch.zeros.__name__ == "zeros" and not hasattr(torch.zeros, "__wrapped__")
torch.cuda.is_initialized = lambda: False
patch_megatron_core()
once = torch.zeros
patch_megatron_core()
seen["patched once"] = torch.zeros is once

literals = [torch.tensor([1.0], device="cuda"), torch.zeros(2, device=torch.device("cuda", 0))]
literals += [torch.ones(2, device=torch.cuda.current_device()), torch.empty(2, device="cuda:0")]
seen["devices"] = [str(one.device) for one in literals]
seen["meta"] = str(torch.empty(2, device="meta").device)
with torch.device("meta"):
    seen["in context"] = [str(one.device) for one in (torch.tensor([1.0]), torch.empty(2), torch.rand(2))]
seen["moved"] = str(literals[0].cuda().device)
torch.cuda.synchronize()
torch.cuda.manual_seed(1)

tracker = megatron_random.get_cuda_rng_tracker()
tracker.reset()
tracker.add("a", 7)
torch.manual_seed(3)
first = torch.rand(1).item()
with tracker.fork("a"):
    inside = [torch.rand(1).item()]
second = torch.rand(1).item()
with tracker.fork("a"):
    inside.append(torch.rand(1).item())
seen["outside"] = [first, second] == torch.rand(2, generator=torch.Generator().manual_seed(3)).tolist()
seen["inside"] = inside == torch.rand(2, generator=torch.Generator().manual_seed(7)).tolist()

weight = torch.nn.Parameter(torch.zeros(2))
weight.grad = torch.tensor([3.0, 4.0])
clip_grads.clip_grad_by_total_norm_fp32([weight], max_norm=1.0, total_norm=5.0)
seen["clipped"] = weight.grad.tolist()
try:
    clip_grads.clip_grad_by_total_norm_fp32([None], max_norm=1.0, total_norm=5.0)
except AttributeError:
    seen["type"] = weight.type()
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def seen() -> Any:
    done = subprocess.run([sys.executable, "-c", OBSERVE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_that_uses_a_gpu_is_refused_before_anything_changes(seen: Any) -> None:
    assert seen["refusal"] == "CUDA is in use in this process; start a CPU run in a process of its own"
    assert seen["untouched"]


def test_patching_twice_is_patching_once(seen: Any) -> None:
    assert seen["patched once"]


def test_tensors_meant_for_a_gpu_lie_on_the_cpu_and_others_where_they_belong(seen: Any) -> None:
    assert seen["devices"] == ["cpu"] * 4
    assert seen["moved"] == "cpu"
    assert seen["meta"] == "meta"


def test_a_devices_context_holds_for_the_patched_factories_too(seen: Any) -> None:
    """transformers builds its models in one, and takes it from torch.tensor whether it does."""
    assert seen["in context"] == ["meta"] * 3


def test_named_random_states_are_sequences_of_their_own(seen: Any) -> None:
    assert seen["inside"]
    assert seen["outside"]


def test_clipping_scales_and_the_types_are_true_again_afterwards(seen: Any) -> None:
    assert seen["clipped"] == pytest.approx([0.6, 0.8], rel=1e-5)
    assert seen["type"] == "torch.FloatTensor"
