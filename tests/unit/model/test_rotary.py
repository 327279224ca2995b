"""Scaled rotary frequencies against transformers, and what a type's settings must be."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from megatron_ext.config.section_rope import RopeScalingConfig
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.llama import LLAMA
from megatron_ext.model.rotary import attention_factor, rotary_frequencies, softmax_scale

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 2.5},
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn, all settings": YARN
    | {"mscale": 0.7, "mscale_all_dim": 1.0, "truncate": False, "beta_fast": 8.0, "beta_slow": 2.0},
    "yarn, given factor": YARN | {"attention_factor": 1.25},
    "yarn, a step": YARN | {"original_max_position_embeddings": 2},
}


def _model(scaling: dict[str, Any] | None, head_size: int = 16) -> ModelConfig:
    return ModelConfig(
        num_layers=1, hidden_size=64, ffn_hidden_size=8, num_attention_heads=4, kv_channels=head_size,
        vocab_size=8, rotary_base=5000.0, max_position_embeddings=256,
        rope_scaling=None if scaling is None else RopeScalingConfig(**scaling),
    )  # fmt: skip


@pytest.mark.parametrize("head_size", [2, 16, 128])
@pytest.mark.parametrize("name", SCALINGS)
def test_frequencies_are_those_of_transformers(name: str, head_size: int) -> None:
    transformers = pytest.importorskip("transformers")
    model = _model(SCALINGS[name], head_size)
    config = transformers.AutoConfig.for_model(**LLAMA.hf_config(model))
    functions = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS
    frequencies, factor = functions[SCALINGS[name]["rope_type"]](config)
    torch.testing.assert_close(rotary_frequencies(model), frequencies, rtol=1e-6, atol=0)
    assert attention_factor(model.rope_scaling) == pytest.approx(factor)
    scale = softmax_scale(model)
    assert (head_size**-0.5 if scale is None else scale) == pytest.approx(head_size**-0.5 * factor**2)


def test_unscaled_frequencies_are_powers_of_the_base() -> None:
    expected = torch.tensor([5000.0 ** (-2 * pair / 16) for pair in range(8)])
    torch.testing.assert_close(rotary_frequencies(_model(None)), expected)
    assert softmax_scale(_model(None)) is None


@pytest.mark.parametrize(
    ("scaling", "complaint"),
    [
        ({"rope_type": "llama3", "factor": 8.0}, "lacks high_freq_factor, low_freq_factor, original_max"),
        ({"rope_type": "yarn", "factor": 8.0}, "yarn lacks original_max_position_embeddings"),
        ({"rope_type": "linear", "factor": 2.0, "beta_fast": 1.0}, "linear does not know beta_fast"),
        (LLAMA3 | {"low_freq_factor": 4.0}, "high_freq_factor must be above low_freq_factor"),
        ({"rope_type": "linear", "factor": 0.5}, "greater than or equal to 1"),
        ({"rope_type": "dynamic", "factor": 2.0}, "'linear', 'llama3' or 'yarn'"),
    ],
)
def test_settings_of_another_type_are_refused(scaling: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        RopeScalingConfig.model_validate(scaling)
