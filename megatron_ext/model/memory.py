"""Memory that training takes on the fullest device, by closed formulas. No torch here.

States follow mixed-precision Adam as in ZeRO (Rajbhandari et al., arXiv 1910.02054, section 3.1) with fp32
main gradients. Activations follow Korthikanti et al. (arXiv 2205.05198), section 4, adapted to this model:
attention that keeps no score matrix (flash attention), no dropout, RMSNorm, SwiGLU and grouped KV heads.

Not counted: the CUDA context and libraries, communication buffers, workspaces and fragmentation (a few GiB).
The formulas assume kernels that keep their inputs only; composed from plain operations, SwiGLU keeps more.
"""

from dataclasses import dataclass

from megatron_ext.config.sections import ModelConfig, ParallelConfig, RunConfig
from megatron_ext.model.flops import matrix_parameters_per_layer

MIB = 2**20
GIB = 2**30

# Bytes per weight. bf16: bf16 weight, fp32 main gradient, fp32 master weight with two fp32 moments.
# fp32: the weight is its own master.
WEIGHT_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
GRADIENT_BYTES = {"bf16": 4, "fp16": 4, "fp32": 4}
OPTIMIZER_BYTES = {"bf16": 12, "fp16": 12, "fp32": 8}
ACTIVATION_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
LOGIT_BYTES = 4  # the cross entropy works in fp32 and keeps its softmax in place of the logits


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device of the pipeline stage that needs the most.

    Attributes:
        stage: that pipeline stage, counted from 0.
        parameters: weights that one of its devices holds.
        weights: the weights the forward pass reads.
        gradients: the buffer that gradients are accumulated in.
        optimizer: master weights and both moments of Adam.
        activations: what the forward pass keeps for the backward pass, over all micro-batches in flight.
        logits: fp32 logits of one micro-batch; only the last stage has any.
    """

    stage: int
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    def rows(self) -> list[tuple[str, str]]:
        """The estimate as (name, amount) rows of a table, the total last; one unit for all."""
        parts = ("weights", "gradients", "optimizer", "activations", "logits", "total")
        unit, size = ("GiB", GIB) if self.total >= GIB else ("MiB", MIB)
        return [(part, f"{getattr(self, part) / size:,.2f} {unit}") for part in parts]


def estimate(run: RunConfig) -> MemoryEstimate:
    """Memory of the pipeline stage whose devices need the most."""
    stages = range(run.parallel.pipeline_model_parallel_size)
    return max((estimate_stage(run, stage) for stage in stages), key=lambda one: one.total)


def estimate_stage(run: RunConfig, stage: int) -> MemoryEstimate:
    """Memory of one device of pipeline stage ``stage``, counted from 0."""
    precision = run.training.precision
    parameters = stage_parameters(run.model, run.parallel, stage)
    optimizer_shards = run.data_parallel_size if run.parallel.use_distributed_optimizer else 1
    return MemoryEstimate(
        stage=stage,
        parameters=parameters,
        weights=parameters * WEIGHT_BYTES[precision],
        gradients=parameters * GRADIENT_BYTES[precision],
        optimizer=_ceil_div(parameters * OPTIMIZER_BYTES[precision], optimizer_shards),
        activations=_activation_bytes(run, stage),
        logits=_logit_bytes(run) if _is_last(run.parallel, stage) else 0,
    )


def stage_parameters(model: ModelConfig, parallel: ParallelConfig, stage: int) -> int:
    """Weights on one device of a pipeline stage.

    Tensor parallelism splits matrices and vocabulary, not the norms. A tied output layer that lies on another
    stage than the embedding is a copy of it.
    """
    tensor, pipeline = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    layers = _ceil_div(model.num_layers, pipeline)
    table = _ceil_div(model.vocab_size, tensor) * model.hidden_size
    weights = layers * (_ceil_div(matrix_parameters_per_layer(model), tensor) + 2 * model.hidden_size)
    if stage == 0:
        weights += table
    if _is_last(parallel, stage):
        weights += model.hidden_size  # final norm
        if model.untie_embeddings_and_output_weights or pipeline > 1:
            weights += table
    return weights


def activation_bytes_per_token(model: ModelConfig, parallel: ParallelConfig, precision: str) -> float:
    """Bytes that one layer keeps of one token for the backward pass, recomputing nothing, on one device.

    Tensors kept, in elements (h hidden size, q query heads * head size, k KV heads * head size, f FFN size):
    input and output of the attention norm (2 h), queries (q), keys and values (2 k), attention output (q),
    input and output of the MLP norm (2 h), gate and up (2 f), their SwiGLU product (f).
    Tensor parallelism splits all but the four of size h; sequence parallelism splits those too.
    """
    tensor = parallel.tensor_model_parallel_size
    query = model.num_attention_heads * model.head_size
    key_and_value = 2 * model.query_groups * model.head_size
    split = (2 * query + key_and_value + 3 * model.ffn_hidden_size) / tensor
    around_norms = 4 * model.hidden_size / _sequence_shards(parallel)
    return (split + around_norms) * ACTIVATION_BYTES[precision]


def checkpoint_bytes_per_token(model: ModelConfig, parallel: ParallelConfig, precision: str) -> float:
    """Bytes that one layer keeps of one token under full recomputation, on one device: the layer's input."""
    return model.hidden_size / _sequence_shards(parallel) * ACTIVATION_BYTES[precision]


def microbatches_in_flight(run: RunConfig, stage: int) -> int:
    """Micro-batches whose activations a stage holds at once under 1F1B: one more for each stage behind it."""
    return min(run.num_microbatches, run.parallel.pipeline_model_parallel_size - stage)


def _activation_bytes(run: RunConfig, stage: int) -> int:
    model, parallel, precision = run.model, run.parallel, run.training.precision
    tokens = run.training.micro_batch_size * run.training.seq_length
    layers = _ceil_div(model.num_layers, parallel.pipeline_model_parallel_size)
    whole_layer = activation_bytes_per_token(model, parallel, precision)
    if parallel.recompute_granularity == "full":
        kept = layers * checkpoint_bytes_per_token(model, parallel, precision)
        working = whole_layer  # the layer that the backward pass is recomputing
    else:
        kept, working = layers * whole_layer, 0.0
    head = 0.0
    if _is_last(parallel, stage):  # input and output of the final norm (section 4.3 of the paper)
        head = 2 * model.hidden_size / _sequence_shards(parallel) * ACTIVATION_BYTES[precision]
    return round(tokens * (microbatches_in_flight(run, stage) * kept + working + head))


def _logit_bytes(run: RunConfig) -> int:
    tokens = run.training.micro_batch_size * run.training.seq_length
    return tokens * _ceil_div(run.model.vocab_size, run.parallel.tensor_model_parallel_size) * LOGIT_BYTES


def _sequence_shards(parallel: ParallelConfig) -> int:
    return parallel.tensor_model_parallel_size if parallel.sequence_parallel else 1


def _is_last(parallel: ParallelConfig, stage: int) -> bool:
    return stage == parallel.pipeline_model_parallel_size - 1


def _ceil_div(amount: int, parts: int) -> int:
    return -(-amount // parts)
