"""Rules about the shape of the model, whatever it runs on."""

from collections.abc import Iterator

from megatron_ext.config.nearest import nearest_divisors, nearest_multiples
from megatron_ext.config.sections import RunConfig
from megatron_ext.config.violation import Rule, Violation


def _attention_shape(run: RunConfig) -> Iterator[Violation]:
    model = run.model
    heads, groups = model.num_attention_heads, model.query_groups
    if heads % groups:
        yield Violation(
            ("model.num_query_groups",),
            f"model.num_query_groups={groups} does not divide num_attention_heads={heads}, and every "
            f"group serves as many heads; nearest: {nearest_divisors(heads, groups)}",
        )
    if model.kv_channels is None and model.hidden_size % heads:
        yield Violation(
            ("model.num_attention_heads", "model.hidden_size"),
            f"model.num_attention_heads={heads} does not divide hidden_size={model.hidden_size}; nearest: "
            f"{nearest_divisors(model.hidden_size, heads)}, or set kv_channels to the size of a head",
        )
    elif model.head_size % 2:
        key = "kv_channels" if model.kv_channels else "hidden_size"
        yield Violation(
            (f"model.{key}",),
            f"model.{key}: heads of size {model.head_size} are odd, and rotary embeddings turn pairs of "
            f"channels; nearest head sizes: {nearest_multiples(model.head_size, 2)}",
        )


def _family(run: RunConfig) -> Iterator[Violation]:
    features = ("add_qkv_bias", "qk_layernorm", "window_size")
    chosen = [name for name in features if getattr(run.model, name)]
    if len(chosen) > 1:
        yield Violation(
            tuple(f"model.{name}" for name in chosen),
            f"model.{' with model.'.join(chosen)}: no family of models has both, so that the result could not be "
            "exported; choose one",
        )


MODEL_RULES: tuple[Rule, ...] = (_attention_shape, _family)
