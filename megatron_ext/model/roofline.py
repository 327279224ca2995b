"""Seconds that one device computes for one micro-batch, from FLOPs, bytes and what kernels reach. No torch here.

Roofline model (Williams et al., 2009): a product takes its operations over the sustained rate, or its bytes over the
bandwidth where that is longer; what is elementwise takes its bytes.
"""

from dataclasses import dataclass

from megatron_ext.config.sections import ModelConfig, RunConfig
from megatron_ext.model.activations import (
    ACTIVATION_BYTES,
    recomputed_modules,
    sequence_shards,
    tokens_per_device,
)
from megatron_ext.model.flops import attended_positions
from megatron_ext.model.hardware import BANDWIDTH_EFFICIENCY, Gpu

TILE_ROWS, TILE_COLUMNS = (
    128,
    256,
)  # of cuBLAS's large bf16 kernels; a wave of tiles takes one turn of all processors
BACKWARD_ATTENTION = (
    2.5  # five products beside two: flash attention computes its scores again (arXiv 2307.08691)
)


@dataclass(frozen=True)
class Work:
    """Seconds by kind of kernel."""

    gemm: float = 0.0
    attention: float = 0.0
    elementwise: float = 0.0

    @property
    def total(self) -> float:
        """One kernel after the other."""
        return self.gemm + self.attention + self.elementwise

    def __add__(self, other: "Work") -> "Work":
        """Both after each other."""
        return Work(
            self.gemm + other.gemm, self.attention + other.attention, self.elementwise + other.elementwise
        )

    def __mul__(self, times: float) -> "Work":
        """The same work so many times."""
        return Work(self.gemm * times, self.attention * times, self.elementwise * times)


@dataclass(frozen=True)
class LayerWork:
    """One layer's forward pass, backward pass, and what selective or full recomputation runs again."""

    forward: Work
    backward: Work
    recompute: Work
    weight_gradients: float
    """Seconds of the backward products that give gradients of weights: communication hides behind them."""


def is_fused(run: RunConfig) -> bool:
    """Whether norms, RoPE, SwiGLU and cross entropy are a kernel each."""
    return run.kernels.fused is not False


def gemm_seconds(gpu: Gpu, rows: float, columns: float, inner: float, bytes_each: int = 2) -> float:
    """Seconds of one product [rows, inner] by [inner, columns].

    The last wave of tiles is as long as a full one, which is what makes narrow products slow (NVIDIA, Matrix
    Multiplication Background User's Guide, "Wave Quantization").
    """
    tiles = -(-rows // TILE_ROWS) * -(-columns // TILE_COLUMNS)
    waves = -(-tiles // gpu.processors)
    filled = tiles / (waves * gpu.processors)
    rate = gpu.peak_tflops * 1e12 * gpu.gemm_efficiency * gpu.sustained * max(filled, 1 / gpu.processors)
    moved = (rows * inner + inner * columns + rows * columns) * bytes_each
    return max(2 * rows * columns * inner / rate, memory_seconds(gpu, moved))


def memory_seconds(gpu: Gpu, moved: float) -> float:
    """Seconds that a kernel takes to read and write so many bytes."""
    return moved / (gpu.bandwidth * BANDWIDTH_EFFICIENCY)


def layer_work(run: RunConfig, gpu: Gpu) -> LayerWork:
    """What one layer costs one device of a tensor- and context-parallel group for one micro-batch."""
    products = _products(run.model, run.parallel.tensor_model_parallel_size)
    tokens = tokens_per_device(run)
    forward_gemm = {
        name: gemm_seconds(gpu, tokens, columns, inner) for name, (columns, inner) in products.items()
    }
    inputs = sum(gemm_seconds(gpu, tokens, inner, columns) for columns, inner in products.values())
    weights = sum(gemm_seconds(gpu, columns, inner, tokens) for columns, inner in products.values())
    attention = _attention_seconds(run, gpu)
    reads, writes = _elementwise_seconds(run, gpu)
    forward = Work(sum(forward_gemm.values()), attention, sum(reads.values()))
    backward = Work(inputs + weights, BACKWARD_ATTENTION * attention, sum(writes.values()))
    return LayerWork(forward, backward, _selective(run, forward_gemm, attention, reads), weights)


def _selective(
    run: RunConfig, gemm: dict[str, float], attention: float, elementwise: dict[str, float]
) -> Work:
    again = recomputed_modules(run.parallel)
    work = Work()
    if "core_attn" in again:
        work += Work(attention=attention)
    if "mlp" in again:
        work += Work(gemm=gemm["fc1"] + gemm["fc2"], elementwise=elementwise["swiglu"])
    return work


def head_work(run: RunConfig, gpu: Gpu) -> LayerWork:
    """Output layer and cross entropy.

    Ours reads 16-bit logits once forward, reads and writes them once backward; megatron-core's makes 4 passes over fp32
    logits forward and 2 backward.
    """
    model, tokens = run.model, tokens_per_device(run)
    columns = -(-model.vocab_size // run.parallel.tensor_model_parallel_size)
    weights = gemm_seconds(gpu, columns, model.hidden_size, tokens)
    inputs = gemm_seconds(gpu, tokens, model.hidden_size, columns)
    logits = tokens * columns * ACTIVATION_BYTES[run.training.precision]
    passes = (1, 2) if is_fused(run) else (8, 4)
    forward = Work(
        gemm_seconds(gpu, tokens, columns, model.hidden_size),
        elementwise=memory_seconds(gpu, passes[0] * logits),
    )
    backward = Work(inputs + weights, elementwise=memory_seconds(gpu, passes[1] * logits))
    return LayerWork(forward, backward, Work(), weights)


def accumulation_seconds(gpu: Gpu, parameters: int, gradient_bytes: int, *, fused: bool) -> float:
    """Adding one micro-batch's weight gradients to the main gradients.

    Fused, the product reads and writes the main gradient itself; else it writes 16 bits that another kernel adds.
    """
    moved = 2 * gradient_bytes if fused else 2 * gradient_bytes + 2 * 2
    return memory_seconds(gpu, parameters * moved)


def _products(model: ModelConfig, tensor: int) -> dict[str, tuple[float, float]]:
    """(columns, inner size) of each weight matrix on one device."""
    query, key_value = model.num_attention_heads * model.head_size, model.query_groups * model.head_size
    return {
        "qkv": ((query + 2 * key_value) / tensor, model.hidden_size),
        "projection": (model.hidden_size, query / tensor),
        "fc1": (2 * model.ffn_hidden_size / tensor, model.hidden_size),
        "fc2": (model.hidden_size, model.ffn_hidden_size / tensor),
    }


def _attention_seconds(run: RunConfig, gpu: Gpu) -> float:
    """Forward, causal: 4 * heads * head size operations for each key of a token, seq / 2 without a window."""
    model, parallel = run.model, run.parallel
    query = model.num_attention_heads * model.head_size / parallel.tensor_model_parallel_size
    keys = attended_positions(model, run.training.seq_length, causal=True)
    flops = 4 * query * keys * tokens_per_device(run)
    return flops / (gpu.peak_tflops * 1e12 * gpu.attention_efficiency * gpu.sustained)


def _elementwise_seconds(run: RunConfig, gpu: Gpu) -> tuple[dict[str, float], dict[str, float]]:
    """Forward and backward, by operation: elements read and written for each token.

    Fused (one kernel each): a norm reads and writes a row, backward reads two and writes one; a residual sum reads
    two and writes one; RoPE reads and writes queries and keys; SwiGLU reads two and writes one, once more in the
    backward pass, which then reads three and writes two. Plain torch in bf16 casts a norm to fp32 and back in 6
    kernels, turns RoPE in 5 and SwiGLU in 2.
    """
    model, parallel = run.model, run.parallel
    tensor, around = parallel.tensor_model_parallel_size, model.hidden_size / sequence_shards(parallel)
    rotated = (model.num_attention_heads + model.query_groups) * model.head_size / tensor
    ffn = model.ffn_hidden_size / tensor
    norm, rope, swiglu = ((2, 3), (2, 2), (3, 8)) if is_fused(run) else ((13, 20), (9, 9), (5, 10))
    elements = {
        "norm": (2 * norm[0] * around, 2 * norm[1] * around),
        "residual": (2 * 3 * around, 2 * 3 * around),
        "rope": (rope[0] * rotated, rope[1] * rotated),
        "swiglu": (swiglu[0] * ffn, swiglu[1] * ffn),
    }
    scale = tokens_per_device(run) * ACTIVATION_BYTES[run.training.precision]
    return (
        {name: memory_seconds(gpu, forward * scale) for name, (forward, _) in elements.items()},
        {name: memory_seconds(gpu, backward * scale) for name, (_, backward) in elements.items()},
    )
