"""Whether a run computes with the Triton kernels of ``kernels/fused`` or with megatron-core's plain operations.

The kernels are our own because no library has all of them. Of liger-kernel 0.8 (Triton, too), RMSNorm and SwiGLU move
as many bytes as ours, but its cross entropy over a split vocabulary writes and keeps fp32 for every logit and counts
padded columns as tokens, and its RoPE does not know the packed qkv layout. quack needs a Hopper GPU; ``torch.compile``
leaves the vocabulary's exchange between ranks and the gradient in the logits' place to us. ``benchmarks/kernels.py``
measures ours beside them. Both choices compute the same.
"""

import functools
import importlib.util
import os
from typing import Literal

from megatron_ext.errors import ConfigError
from megatron_ext.utils.console import get_logger

OPERATIONS = "RMSNorm, RoPE, SwiGLU and cross entropy"

logger = get_logger(__name__)


@functools.cache  # said once, though each part of an interleaved model asks
def use_fused_kernels(setting: Literal["auto"] | bool, *, on_cpu: bool) -> bool:
    """Answer for ``kernels.fused``, and log it.

    Args:
        setting: ``auto`` takes the kernels on a GPU where Triton is installed.
        on_cpu: whether the model is on the CPU, where only Triton's interpreter runs them: for tests.

    Raises:
        ConfigError: the kernels are asked for and cannot run.
    """
    installed = importlib.util.find_spec("triton") is not None
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if setting is True and not installed:
        raise ConfigError(
            "kernels.fused=true, but Triton is not installed; pip install triton, or set kernels.fused=auto"
        )
    if setting is True and on_cpu and not interpreted:
        raise ConfigError(
            "kernels.fused=true, but Triton compiles for GPUs only; set kernels.fused=auto, or TRITON_INTERPRET=1 to "
            "run the kernels in its slow interpreter"
        )
    fused = setting is True or (setting == "auto" and installed and not on_cpu)
    missing = setting == "auto" and not installed and not on_cpu
    reason = "; install triton for faster ones" if missing else ""
    logger.info(f"{OPERATIONS}: {'Triton kernels' if fused else 'plain operations'}{reason}")
    return fused
