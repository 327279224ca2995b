"""What the forward pass keeps for the backward pass, tensor by tensor. No torch here.

After Korthikanti et al. (arXiv 2205.05198), section 4, adapted to this model: attention that keeps no score matrix
(flash attention), no dropout, RMSNorm, SwiGLU, grouped KV heads.
"""

from dataclasses import dataclass
from typing import Literal

from megatron_ext.config.sections import ModelConfig, ParallelConfig, RunConfig

Kernels = Literal["fused", "compiled", "plain"]
ACTIVATION_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Kept:
    """A tensor that one layer keeps.

    Attributes:
        name: what it is.
        elements: of it, for each token, on a device that holds whole layers.
        along: ``sequence`` if only sequence parallelism splits it, ``tensor`` if tensor parallelism does.
        freed_by: the member of ``recompute_modules`` that computes it again instead.
    """

    name: str
    elements: float
    along: str = "tensor"
    freed_by: str | None = None


def kernels_of(run: RunConfig) -> Kernels:
    """The kernels that ``kernels.fused`` chooses, Triton taken as installed on a GPU."""
    if run.kernels.fused is True:
        return "fused"
    if run.device == "cpu":
        return "plain"
    return "fused" if run.kernels.fused == "auto" else "compiled"


def kept_by_layer(model: ModelConfig, *, context: int = 1, kernels: Kernels = "fused") -> list[Kept]:
    """Tensors that one layer keeps of each token.

    Args:
        model: its shape.
        context: processes that share a sequence: attention keeps the keys and values of all of it.
        kernels: ``fused``: ours, which compute the SwiGLU product again; ``compiled``: torch's and megatron-core's on a
            GPU, which keep all inputs and no more; ``plain``: on a CPU, which keep what lies between as well.
    """
    hidden, ffn = model.hidden_size, model.ffn_hidden_size
    query, key_value = model.num_attention_heads * model.head_size, model.query_groups * model.head_size
    kept = [
        Kept("inputs of both norms", 2 * hidden, "sequence"),
        Kept("outputs of both norms", 2 * hidden, "sequence"),
        Kept("queries", query),
        Kept("keys and values", 2 * key_value * context),
        Kept("output of attention", query),
        Kept("gate and up", 2 * ffn, freed_by="mlp"),
    ]
    if model.qk_layernorm:
        kept += [
            Kept("projection, of which keys before their norm are a view", query + 2 * key_value),
            Kept("queries before their norm", query),
        ]
        if kernels == "plain":
            kept.append(Kept("queries and keys, normalised before the weight", query + key_value))
    if kernels != "fused":
        kept.append(Kept("their SwiGLU product", ffn, freed_by="mlp"))
    if kernels == "plain":
        kept += [
            Kept("normalised inputs before the weight", 2 * hidden, "sequence"),
            Kept("SiLU of the gate, and the halves copied", 2 * ffn, freed_by="mlp"),
        ]
    return kept


def bytes_per_token(model: ModelConfig, parallel: ParallelConfig, precision: str, kernels: Kernels) -> float:
    """Bytes that one layer keeps of one token of its device's, with selective recomputation taken into account."""
    again = recomputed_modules(parallel)
    shards = {"tensor": parallel.tensor_model_parallel_size, "sequence": sequence_shards(parallel)}
    kept = kept_by_layer(model, context=parallel.context_parallel_size, kernels=kernels)
    elements = sum(one.elements / shards[one.along] for one in kept if one.freed_by not in again)
    return elements * ACTIVATION_BYTES[precision]


def checkpoint_bytes_per_token(model: ModelConfig, parallel: ParallelConfig, precision: str) -> float:
    """Bytes that a layer keeps of one token under full recomputation: its input."""
    return model.hidden_size / sequence_shards(parallel) * ACTIVATION_BYTES[precision]


def recomputed_modules(parallel: ParallelConfig) -> frozenset[str]:
    """Parts of a layer that the backward pass computes again, by megatron-core's names; empty unless selective."""
    if parallel.recompute_granularity != "selective":
        return frozenset()
    return frozenset(parallel.recompute_modules or ("core_attn",))  # megatron-core's default


def layers_per_chunk(run: RunConfig, stage: int) -> int:
    """Layers of one model chunk: of a stage, or with an interleaved pipeline of a part of it."""
    parallel = run.parallel
    return parallel.stage_layers(run.model.num_layers)[stage] // parallel.chunks_per_stage


def recomputed_layers(run: RunConfig, stage: int) -> int:
    """Layers of one chunk whose whole forward pass is run again.

    ``uniform`` runs all of them again, in groups of ``recompute_num_layers``; ``block`` the first so many of them.
    """
    parallel, layers = run.parallel, layers_per_chunk(run, stage)
    if parallel.recompute_granularity != "full":
        return 0
    if parallel.recompute_method == "block":
        return min(layers, parallel.recompute_num_layers or 1)
    return layers


def chunks_in_flight(run: RunConfig, stage: int) -> int:
    """Micro-batches, counted once for each chunk, whose activations a stage holds at once.

    1F1B: one more than there are stages behind it. Interleaved, with v chunks a stage:
    2 (p - stage - 1) + (v - 1) p + 1 (Narayanan et al., arXiv 2104.04473, section 2.2, as in megatron-core's schedule).
    """
    stages = run.parallel.pipeline_model_parallel_size
    virtual = run.parallel.chunks_per_stage
    if virtual == 1:
        return min(run.num_microbatches, stages - stage)
    return min(run.num_microbatches * virtual, 2 * (stages - stage - 1) + (virtual - 1) * stages + 1)


def activation_bytes(run: RunConfig, stage: int) -> int:
    """Bytes kept on one device of a pipeline stage, over all micro-batches in flight.

    Recomputing a group of layers adds the working set of the group that the backward pass is at. What a chunk has
    handed on to the next stage stays as well (``deallocate_pipeline_outputs`` is off), but for the last one's loss.
    """
    model, parallel, precision = run.model, run.parallel, run.training.precision
    whole = bytes_per_token(model, parallel, precision, kernels_of(run))
    layers, again = layers_per_chunk(run, stage), recomputed_layers(run, stage)
    group = 1 if parallel.recompute_method == "block" else min(layers, parallel.recompute_num_layers or 1)
    checkpoints = -(-again // group) * checkpoint_bytes_per_token(model, parallel, precision)
    kept = (layers - again) * whole + checkpoints
    last = stage == parallel.pipeline_model_parallel_size - 1
    if not last or parallel.chunks_per_stage > 1:
        kept += checkpoint_bytes_per_token(model, parallel, precision)
    working = group * whole if again else 0.0
    head = 0.0
    if last:  # input and output of the final norm (section 4.3)
        head = (
            (3 if kernels_of(run) == "plain" else 2)
            * model.hidden_size
            / sequence_shards(parallel)
            * ACTIVATION_BYTES[precision]
        )
    return round(tokens_per_device(run) * (chunks_in_flight(run, stage) * kept + working + head))


def tokens_per_device(run: RunConfig) -> float:
    """Tokens of one micro-batch on one device, before sequence parallelism."""
    return run.training.micro_batch_size * run.training.seq_length / run.parallel.context_parallel_size


def sequence_shards(parallel: ParallelConfig) -> int:
    """Parts that the sequence outside of attention and MLP is split into within a tensor-parallel group."""
    return parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1
