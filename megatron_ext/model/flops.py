"""Parameters and floating-point operations of a Llama-family decoder, by closed formulas. No torch here.

A multiplication and the addition that follows it count as two operations. The backward pass of a matrix
product costs twice its forward pass, so each weight of a matrix costs 2 + 4 = 6 operations per token: the
"6 N" of Kaplan et al. (arXiv 2001.08361) and of PaLM, where MFU comes from (arXiv 2204.02311, appendix B).
Recomputed activations do not count: these are the FLOPs that the model needs, not those that a run spends.
"""

from megatron_ext.config.sections import ModelConfig


def matrix_parameters_per_layer(model: ModelConfig) -> int:
    """Weights of one layer's matrix products: query, key, value, projection, gate, up and down."""
    query = model.hidden_size * model.num_attention_heads * model.head_size
    key_and_value = 2 * model.hidden_size * model.query_groups * model.head_size
    projection = query
    gate_up_and_down = 3 * model.hidden_size * model.ffn_hidden_size
    return query + key_and_value + projection + gate_up_and_down


def qkv_biases(model: ModelConfig) -> int:
    """Weights of one layer's bias of queries, keys and values, if it has one."""
    return (model.num_attention_heads + 2 * model.query_groups) * model.head_size * model.add_qkv_bias


def qk_norm_parameters(model: ModelConfig) -> int:
    """Weights of one layer's norms of queries and of keys, if it has them; all heads share them."""
    return 2 * model.head_size * model.qk_layernorm


def attended_positions(model: ModelConfig, seq_length: int, causal: bool) -> float:
    """Keys a query is multiplied with, on average: a causal window w sees w - w² / 2s of s, without one w = s."""
    window = min(model.window_size or seq_length, seq_length)
    return window - window**2 / (2 * seq_length) if causal else window


def embedding_parameters(model: ModelConfig) -> int:
    """Weights of the embedding table, and of the output layer when it has its own."""
    return model.vocab_size * model.hidden_size


def num_parameters(model: ModelConfig) -> int:
    """All weights, with no row for padding the vocabulary; a tied output layer counts once."""
    norms = (2 * model.num_layers + 1) * model.hidden_size
    extra = model.num_layers * (qkv_biases(model) + qk_norm_parameters(model))
    tables = 2 if model.untie_embeddings_and_output_weights else 1
    layers = model.num_layers * matrix_parameters_per_layer(model)
    return layers + norms + extra + tables * embedding_parameters(model)


def flops_per_token(model: ModelConfig, seq_length: int, causal: bool) -> float:
    """Floating-point operations that training on one token takes: forward and backward, nothing recomputed.

        6 * (weights of all matrix products) + 12 * layers * (heads * head size) * (positions attended to)

    The first term takes the layers' matrices and the output layer, tied or not. It leaves out the embedding,
    which is looked up and not multiplied, and the norms, which are elementwise. The second term is the two
    products of attention, with the keys and with the values: each takes 2 * heads * head size operations per
    attended position, three times over with the backward pass.

    Args:
        model: shape of the decoder.
        seq_length: tokens in a sequence.
        causal: False counts ``seq_length`` attended positions (or the window), as PaLM and most published figures
            do; True counts ``seq_length / 2`` without a window, which is what a causal kernel computes.
    """
    matrices = model.num_layers * matrix_parameters_per_layer(model) + embedding_parameters(model)
    attended = attended_positions(model, seq_length, causal)
    return 6 * matrices + 12 * model.num_layers * model.num_attention_heads * model.head_size * attended
