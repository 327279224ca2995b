"""Parameters and FLOPs against published counts, and against products counted one by one."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.families import family_for
from megatron_ext.model.flops import attended_positions, flops_per_token, num_parameters

LLAMA2_7B = ModelConfig(
    num_layers=32, hidden_size=4096, ffn_hidden_size=11008, num_attention_heads=32, vocab_size=32000
)
LLAMA2_13B = ModelConfig(
    num_layers=40, hidden_size=5120, ffn_hidden_size=13824, num_attention_heads=40, vocab_size=32000
)
LLAMA2_70B = ModelConfig(
    num_layers=80,
    hidden_size=8192,
    ffn_hidden_size=28672,
    num_attention_heads=64,
    num_query_groups=8,
    vocab_size=32000,
)
GROUPED = ModelConfig(
    num_layers=3,
    hidden_size=48,
    ffn_hidden_size=80,
    num_attention_heads=6,
    num_query_groups=2,
    kv_channels=10,
    vocab_size=101,
)


@pytest.mark.parametrize(
    ("model", "published"),
    [(LLAMA2_7B, 6_738_415_616), (LLAMA2_13B, 13_015_864_320), (LLAMA2_70B, 68_976_648_192)],
    ids=["7b", "13b", "70b"],
)
def test_llama2_parameters_are_those_of_the_published_checkpoints(model: ModelConfig, published: int) -> None:
    assert num_parameters(model) == published


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_equal_those_of_transformers(tied: bool) -> None:
    transformers = pytest.importorskip("transformers")
    model = GROUPED.model_copy(update={"untie_embeddings_and_output_weights": not tied})
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            num_hidden_layers=model.num_layers,
            hidden_size=model.hidden_size,
            intermediate_size=model.ffn_hidden_size,
            num_attention_heads=model.num_attention_heads,
            num_key_value_heads=model.query_groups,
            head_dim=model.head_size,
            vocab_size=model.vocab_size,
            tie_word_embeddings=tied,
        )
    )
    assert num_parameters(model) == theirs.num_parameters()


@pytest.mark.parametrize("changes", [{"add_qkv_bias": True}, {"qk_layernorm": True}, {"window_size": 4}])
def test_parameters_of_other_families_equal_those_of_transformers(changes: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    model = GROUPED.model_copy(update=changes)
    config = transformers.AutoConfig.for_model(**family_for(model, None).hf_config(model))
    assert num_parameters(model) == transformers.AutoModelForCausalLM.from_config(config).num_parameters()


@pytest.mark.parametrize("window", [1, 5, 64, 100])
def test_a_window_limits_what_is_attended_to(window: int) -> None:
    model = GROUPED.model_copy(update={"window_size": window})
    seen = [min(position + 0.5, window) for position in range(64)]  # a query sees half of its own block
    assert attended_positions(model, 64, causal=False) == min(window, 64)
    assert attended_positions(model, 64, causal=True) == pytest.approx(sum(seen) / 64, abs=0.5 / 64)


def test_llama2_7b_flops_at_4096_in_both_conventions() -> None:
    assert flops_per_token(LLAMA2_7B, 4096, causal=False) / 1e9 == pytest.approx(46.08, abs=0.005)
    assert flops_per_token(LLAMA2_7B, 4096, causal=True) / 1e9 == pytest.approx(42.86, abs=0.005)


def test_flops_equal_torchs_own_count_of_a_transformers_model() -> None:
    """Torch's counter sees every matrix product of a forward and backward pass, attention unfused."""
    transformers = pytest.importorskip("transformers")
    seq_length = 24
    config = transformers.LlamaConfig(
        num_hidden_layers=GROUPED.num_layers,
        hidden_size=GROUPED.hidden_size,
        intermediate_size=GROUPED.ffn_hidden_size,
        num_attention_heads=GROUPED.num_attention_heads,
        num_key_value_heads=GROUPED.query_groups,
        head_dim=GROUPED.head_size,
        vocab_size=GROUPED.vocab_size,
        attn_implementation="eager",
    )
    model = transformers.LlamaForCausalLM(config)
    tokens = torch.zeros(2, seq_length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, labels=tokens).loss.backward()
    # Some releases, such as 5.17, turn positions into angles by a product, which is no part of the convention.
    angles = [sum(counts.values()) for name, counts in counter.get_flop_counts().items() if "rotary" in name]
    counted = (counter.get_total_flops() - sum(angles)) / tokens.numel()
    assert counted == flops_per_token(GROUPED, seq_length, causal=False)
