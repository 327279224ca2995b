"""Megatron-LM saves its command line with each checkpoint: the model that it describes, as ``config.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_ext.convert.foreign.recipes import checked_vocab_size
from megatron_ext.errors import ConversionError

_REQUIRED = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "padded_vocab_size")
# What a Llama is, where Megatron-LM had an option for it: name, values that mean Llama (None: not saved).
_LLAMA: dict[str, tuple[Any, ...]] = {
    "normalization": ("RMSNorm",),
    "swiglu": (True,),
    "rotary_percent": (None, 1.0),
    "rotary_interleaved": (None, False),
    "apply_layernorm_1p": (None, False),
    "apply_residual_connection_post_layernorm": (None, False),
    "multi_latent_attention": (None, False),
    "num_experts": (None,),
    "sliding_window": (None,),
    "window_size": (None,),
}


def config_of(args: object, path: Path, vocab_size: int | None) -> dict[str, Any]:
    """``config.json`` of the model that Megatron-LM's arguments describe.

    Args:
        args: the ``args`` of a checkpoint, an ``argparse.Namespace``.
        path: the file that holds them, for messages.
        vocab_size: rows of the embedding that are tokens, where ``args`` do not say.

    Raises:
        ConversionError: an argument is missing, or asks for what no Llama has; or the vocabulary's size is not
            known.
    """
    values: Mapping[str, Any] = getattr(args, "__dict__", {})
    missing = [name for name in _REQUIRED if not isinstance(values.get(name), int)]
    if missing:
        raise ConversionError(f"{path}: its args lack {', '.join(missing)}; not a checkpoint of Megatron-LM")
    unlike = [
        f"{name}={values.get(name)!r}" for name, wanted in _LLAMA.items() if values.get(name) not in wanted
    ]
    # Before there was position_embedding_type, a switch said the same.
    has_rope = values.get("position_embedding_type") == "rope" or values.get("use_rotary_position_embeddings")
    if unlike or not has_rope:
        raise ConversionError(
            f"{path}: not a Llama: {', '.join(unlike) or 'its positions are not rotary (position_embedding_type)'}"
        )
    heads = values["num_attention_heads"]
    grouped = values.get("group_query_attention") and values.get("num_query_groups")
    return {
        "model_type": "llama",
        "vocab_size": checked_vocab_size(
            path, values["padded_vocab_size"], values.get("vocab_size") if vocab_size is None else vocab_size
        ),
        "hidden_size": values["hidden_size"],
        "intermediate_size": values["ffn_hidden_size"],
        "num_hidden_layers": values["num_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": grouped or heads,
        "head_dim": values.get("kv_channels"),
        "max_position_embeddings": values.get("max_position_embeddings") or values.get("seq_length") or 2048,
        "rms_norm_eps": values.get("norm_epsilon") or values.get("layernorm_epsilon") or 1e-5,
        "rope_theta": float(values.get("rotary_base") or 10000),
        "rope_scaling": _rope_scaling(values),
        "tie_word_embeddings": not values.get("untie_embeddings_and_output_weights", False),
    }


def _rope_scaling(values: Mapping[str, Any]) -> dict[str, Any] | None:
    if values.get("rotary_seq_len_interpolation_factor"):
        return {"rope_type": "linear", "factor": float(values["rotary_seq_len_interpolation_factor"])}
    if not values.get("use_rope_scaling"):
        return None
    # The other numbers are constants of megatron-core's RotaryEmbedding, and Llama 3.1's own.
    return {
        "rope_type": "llama3",
        "factor": float(values.get("rope_scaling_factor") or 8.0),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
