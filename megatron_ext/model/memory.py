"""Memory that training takes on the fullest device, by closed formulas. No torch here.

States are those of ``config/state_bytes.py``, shared as in ZeRO (Rajbhandari et al., arXiv 1910.02054, section 3.1);
activations are in ``activations.py``. CUDA, its libraries and NCCL take a constant, fragmentation a part of the card.
"""

from dataclasses import dataclass

from megatron_ext.config.sections import ModelConfig, ParallelConfig, RunConfig
from megatron_ext.config.state_bytes import state_bytes
from megatron_ext.model.activations import (
    ACTIVATION_BYTES,
    activation_bytes,
    kernels_of,
    sequence_shards,
    tokens_per_device,
)
from megatron_ext.model.flops import matrix_parameters_per_layer, qk_norm_parameters, qkv_biases

MIB = 2**20
GIB = 2**30

# CUDA context, loaded kernels, cuBLAS workspaces and NCCL's buffers: 2 to 3 GiB on A100 and H100, as nvidia-smi shows
# beside what torch has reserved.
FRAMEWORK_BYTES = int(2.5 * GIB)
# What fragmentation leaves of a card: torch's allocator reserves up to a twentieth more than it hands out.
USABLE_PART = 0.95
# megatron-core's cross entropy keeps its softmax in fp32; the logits, or the gradient that leaves, lie beside it.
SOFTMAX_BYTES = 4
PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers", "framework")


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
        logits: of one micro-batch, with their softmax; only the last stage has any.
        buffers: gradients of the activations of the layer that the backward pass is at.
        framework: CUDA, its libraries, NCCL; nothing on a CPU.
    """

    stage: int
    parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int = 0
    framework: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(int(getattr(self, part)) for part in PARTS)

    @property
    def allocated(self) -> int:
        """Bytes that torch allocates itself: all but the framework's."""
        return self.total - self.framework

    def rows(self) -> list[tuple[str, str]]:
        """The estimate as (name, amount) rows of a table, the total last; one unit for all."""
        unit, size = ("GiB", GIB) if self.total >= GIB else ("MiB", MIB)
        return [(part, f"{getattr(self, part) / size:,.2f} {unit}") for part in (*PARTS, "total")]


def estimate(run: RunConfig) -> MemoryEstimate:
    """Memory of the pipeline stage whose devices need the most."""
    stages = range(run.parallel.pipeline_model_parallel_size)
    return max((estimate_stage(run, stage) for stage in stages), key=lambda one: one.total)


def estimate_stage(run: RunConfig, stage: int) -> MemoryEstimate:
    """Memory of one device of pipeline stage ``stage``, counted from 0."""
    states = state_bytes(run)
    parameters = stage_parameters(run.model, run.parallel, stage)
    shards = optimizer_shards(run)
    return MemoryEstimate(
        stage=stage,
        parameters=parameters,
        weights=parameters * states.weight,
        gradients=parameters * states.gradient,
        optimizer=_ceil_div(parameters * states.optimizer, shards),
        activations=activation_bytes(run, stage),
        logits=_logit_bytes(run) if _is_last(run.parallel, stage) else 0,
        buffers=_buffer_bytes(run),
        framework=0 if run.device == "cpu" else FRAMEWORK_BYTES,
    )


def optimizer_shards(run: RunConfig) -> int:
    """Devices that share the optimizer's state of the same weights."""
    if not run.parallel.use_distributed_optimizer:
        return 1
    return run.data_parallel_size * run.parallel.context_parallel_size


def stage_parameters(model: ModelConfig, parallel: ParallelConfig, stage: int) -> int:
    """Weights on one device of a pipeline stage.

    Tensor parallelism splits matrices and vocabulary, not the norms. A tied output layer that lies on another
    stage than the embedding is a copy of it.
    """
    tensor, pipeline = parallel.tensor_model_parallel_size, parallel.pipeline_model_parallel_size
    layers = parallel.stage_layers(model.num_layers)[stage]
    table = _ceil_div(model.vocab_size, tensor) * model.hidden_size
    split = matrix_parameters_per_layer(model) + qkv_biases(model)
    weights = layers * (_ceil_div(split, tensor) + 2 * model.hidden_size + qk_norm_parameters(model))
    if stage == 0:
        weights += table
    if _is_last(parallel, stage):
        weights += model.hidden_size  # final norm
        if model.untie_embeddings_and_output_weights or pipeline > 1:
            weights += table
    return weights


def _logit_bytes(run: RunConfig) -> int:
    """Ours puts the gradient where the logits were, of a chunk of tokens if that is set; else a softmax is kept."""
    columns = _ceil_div(run.model.vocab_size, run.parallel.tensor_model_parallel_size)
    tokens, each = tokens_per_device(run), ACTIVATION_BYTES[run.training.precision]
    if kernels_of(run) == "fused":
        return round(min(tokens, run.kernels.loss_chunk_tokens or tokens) * columns * each)
    return round(tokens * columns * (SOFTMAX_BYTES + each))


def _buffer_bytes(run: RunConfig) -> int:
    """Gradients of gate, up and their product, of the layer's output and of the residual: the widest moment."""
    model, parallel = run.model, run.parallel
    split = 3 * model.ffn_hidden_size / parallel.tensor_model_parallel_size
    around = 2 * model.hidden_size / sequence_shards(parallel)
    gathered = model.hidden_size if parallel.sequence_parallel else 0  # the norm's output, gathered again
    return round(
        tokens_per_device(run) * (split + around + gathered) * ACTIVATION_BYTES[run.training.precision]
    )


def _is_last(parallel: ParallelConfig, stage: int) -> bool:
    return stage == parallel.pipeline_model_parallel_size - 1


def _ceil_div(amount: int, parts: int) -> int:
    return -(-amount // parts)
