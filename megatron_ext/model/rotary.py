"""Frequencies of rotary embeddings, scaled for positions beyond those a model was first trained on.

megatron-core knows llama3 with one set of constants and no other scaling for this model, so they are computed here.
"""

import math

import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding

from megatron_ext.config.section_rope import RopeScalingConfig
from megatron_ext.config.sections import ModelConfig
from megatron_ext.kernels.reference import rope_table


class RotaryTable(RotaryEmbedding):  # type: ignore[misc]
    """Cosines and sines where megatron-core's holds angles, twice each: once for all layers and micro-batches.

    megatron-core keeps what it returns, and cuts it for context parallelism.
    """

    def get_emb(self, max_seq_len: int, offset: int = 0) -> torch.Tensor:
        """fp32 [max_seq_len, 1, 1, head_size], as the fused kernel reads it."""
        return rope_table(super().get_emb(max_seq_len, offset).chunk(2, dim=-1)[0])


def rotary_frequencies(model: ModelConfig) -> torch.Tensor:
    """Radians by which each pair of channels turns from one position to the next, before and after scaling.

    Unscaled: base^(-2i / head_size) (Su et al., arXiv 2104.09864, section 3.4.2).

    Returns:
        fp32 [head_size / 2], on the CPU.
    """
    channels = torch.arange(0, model.head_size, 2, dtype=torch.float32, device="cpu")
    frequencies = 1.0 / model.rotary_base ** (channels / model.head_size)
    scaling = model.rope_scaling
    if scaling is None:
        return frequencies
    if scaling.rope_type == "linear":  # position interpolation: Chen et al., arXiv 2306.15595, equation 4
        return frequencies / scaling.factor
    if scaling.rope_type == "llama3":
        return _interpolated(frequencies, scaling.factor, _llama3_kept(frequencies, scaling))
    return _interpolated(frequencies, scaling.factor, _yarn_kept(model, scaling))


def attention_factor(scaling: RopeScalingConfig | None) -> float:
    """What yarn multiplies sines and cosines with (arXiv 2309.00071, section 3.4); 1 for every other type.

    With ``mscale`` and ``mscale_all_dim``, the quotient that DeepSeek's models introduced.
    """
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    growth = 0.1 * math.log(scaling.factor)
    if scaling.mscale and scaling.mscale_all_dim:
        return (growth * scaling.mscale + 1) / (growth * scaling.mscale_all_dim + 1)
    return growth + 1


def softmax_scale(model: ModelConfig) -> float | None:
    """Factor of attention scores; None: head_size^-½.

    Queries and keys both carry ``attention_factor``, as every one of their channels is turned: their products carry
    its square, wherever the rotation itself is computed.
    """
    factor = attention_factor(model.rope_scaling)
    return None if factor == 1.0 else float(model.head_size**-0.5 * factor**2)


def _interpolated(frequencies: torch.Tensor, factor: float, kept: torch.Tensor) -> torch.Tensor:
    """``kept`` is 1 where a frequency stays and 0 where it is divided by ``factor``."""
    return frequencies / factor * (1 - kept) + frequencies * kept


def _llama3_kept(frequencies: torch.Tensor, scaling: RopeScalingConfig) -> torch.Tensor:
    """Linear in the turns within the original positions (``apply_scaling`` in Meta's llama-models, llama3/model.py)."""
    original, low = scaling.original_max_position_embeddings or 0, scaling.low_freq_factor or 0.0
    turns = original * frequencies / (2 * math.pi)
    return ((turns - low) / ((scaling.high_freq_factor or 0.0) - low)).clamp(0, 1)


def _yarn_kept(model: ModelConfig, scaling: RopeScalingConfig) -> torch.Tensor:
    """Linear in the channel, between those that turn ``beta_fast`` and ``beta_slow`` times (arXiv 2309.00071, 3.2).

    The paper's ramp is over turns; its code, and every implementation since, ramps over channels, rounded outwards.
    """
    original, pairs = scaling.original_max_position_embeddings or 0, model.head_size // 2

    def channel(turns: float) -> float:
        return (
            model.head_size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(model.rotary_base))
        )

    first, last = channel(scaling.beta_fast or 32.0), channel(scaling.beta_slow or 1.0)
    if scaling.truncate is not False:
        first, last = float(math.floor(first)), float(math.ceil(last))
    first, last = max(first, 0.0), min(last, model.head_size - 1.0)
    if first == last:
        last += 0.001  # a step instead of a ramp
    ramp = (torch.arange(pairs, dtype=torch.float32, device="cpu") - first) / (last - first)
    return 1 - ramp.clamp(0, 1)
