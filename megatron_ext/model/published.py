"""Published training speeds, and what the model of ``step_time.py`` says to each. No torch here.

Sharded data parallelism (FSDP, ZeRO-3) is taken as data parallelism: at these sizes its traffic hides behind the
products. MPT is no Llama: its MLP of 4 h without a gate is entered as a gated one with as many weights, 8/3 h, and
its norms and GELU, which are a kernel each in torch, as fused ones. None of these adds weight gradients straight to its
main gradients.
"""

from dataclasses import dataclass, replace

from megatron_ext.config.section_data import DataConfig, DatasetConfig
from megatron_ext.config.section_optimizer import OptimizerConfig
from megatron_ext.config.sections import (
    KernelsConfig,
    LaunchConfig,
    ModelConfig,
    ParallelConfig,
    RunConfig,
    TokenizerConfig,
    TrainingConfig,
)
from megatron_ext.model.hardware import GPUS, HOPPER_ATTENTION_FLASH2
from megatron_ext.model.step_time import speed, step_time

FSDP = ParallelConfig(use_distributed_optimizer=True, overlap_grad_reduce=True, overlap_param_gather=True)
RECOMPUTED = FSDP.model_copy(update={"recompute_granularity": "full", "recompute_method": "uniform"})
HALF_RECOMPUTED = FSDP.model_copy(
    update={"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 16}
)
NEOX = ParallelConfig(
    tensor_model_parallel_size=2,
    use_distributed_optimizer=True,
    recompute_granularity="full",
    recompute_method="uniform",
)


def _shape(
    layers: int, hidden: int, ffn: int, heads: int, *, vocab: int, groups: int | None = None
) -> ModelConfig:
    return ModelConfig(
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        num_attention_heads=heads,
        num_query_groups=groups,
        vocab_size=vocab,
        max_position_embeddings=8192,
    )


LLAMA2_7B = _shape(32, 4096, 11008, 32, vocab=32000)
LLAMA2_13B = _shape(40, 5120, 13824, 40, vocab=32000)
LLAMA3_8B = _shape(32, 4096, 14336, 32, vocab=128256, groups=8)
OLMO_7B = _shape(32, 4096, 11008, 32, vocab=100352)
MPT_7B = _shape(32, 4096, 10923, 32, vocab=50368)
MPT_13B = _shape(40, 5120, 13653, 40, vocab=50368)


@dataclass(frozen=True)
class Published:
    """One row: who, on what, how fast.

    Attributes:
        who: code base, a name of ``SOURCES``, and model.
        model: its shape.
        gpu: a name of ``GPUS``.
        gpus: how many.
        micro_batch_size: sequences of a device at once; where it was not said, 1.
        seq_length: tokens of a sequence.
        parallel: layout and recomputation.
        tokens_per_second_per_gpu: as published.
        fused: whether its norms, RoPE and activation are a kernel each, by hand or compiled.
        flash2: FlashAttention-2 on Hopper, in the years before 3.
        accumulated: micro-batches a step.
        bandwidth: of the GPU's memory, bytes/s, where it is not that of the data sheet.
    """

    who: str
    model: ModelConfig
    gpu: str
    gpus: int
    micro_batch_size: int
    seq_length: int
    parallel: ParallelConfig
    tokens_per_second_per_gpu: float
    fused: bool = True
    flash2: bool = True
    accumulated: int = 2
    bandwidth: float | None = None

    def run(self) -> RunConfig:
        """The row as a run."""
        copies = self.gpus // self.parallel.model_parallel_size
        return RunConfig(
            name="published",
            model=self.model,
            parallel=self.parallel,
            kernels=KernelsConfig(fused=self.fused),
            tokenizer=TokenizerConfig(type="ByteTokenizer"),
            data=DataConfig(train=(DatasetConfig(path="text"),)),
            training=TrainingConfig(
                micro_batch_size=self.micro_batch_size,
                global_batch_size=self.micro_batch_size * copies * self.accumulated,
                seq_length=self.seq_length,
                train_iters=1,
                gradient_accumulation_fusion=False,
            ),
            optimizer=OptimizerConfig(lr=1e-4),
            launch=LaunchConfig(nnodes=-(-self.gpus // 8), nproc_per_node=min(8, self.gpus)),
        )

    @property
    def code_base(self) -> str:
        """Whose figure it is."""
        return next(name for name in SOURCES if self.who.startswith(name))

    def estimate(self, sustained: float | None = None) -> float:
        """Tokens/s and GPU by the model, with another ``sustained`` than the GPU's where one is given."""
        gpu = GPUS[self.gpu]
        if sustained is not None:
            gpu = replace(gpu, sustained=sustained)
        if self.flash2 and self.gpu.startswith("h"):
            gpu = replace(gpu, attention_efficiency=HOPPER_ATTENTION_FLASH2)
        if self.bandwidth is not None:
            gpu = replace(gpu, bandwidth=self.bandwidth)
        run = self.run()
        return speed(run, gpu, step_time(run, gpu).total).tokens_per_second_per_gpu

    def error(self, sustained: float | None = None) -> float:
        """Relative: above 0 where the model says more than was published."""
        return self.estimate(sustained) / self.tokens_per_second_per_gpu - 1


SOURCES = {
    "GPT-NeoX": "Llemma, arXiv 2310.10631: 23,000 GPU hours for 200 B tokens; the middle of 2,128 to 2,415",
    "PyTorch FSDP": "pytorch.org/blog/maximizing-training (2024); compiled, by its MFU of 68 % beside 57 %",
    "llm-foundry": "mosaicml/llm-foundry, scripts/train/benchmarking/README.md",
    "torchtitan": "pytorch/torchtitan, docs/performance.md (A100, 2024), benchmarks/llama3_h100_202412_torchtitan.md",
    "OLMo-core": "allenai/OLMo-core, README.md",
    "KempnerForge": "KempnerForge, docs, Benchmarks",
}
# torchtitan's "selective op" recomputes every second product, entered as every second layer, and its H100s have HBM2e
# and 500 W of 700.
PUBLISHED: tuple[Published, ...] = (
    Published(
        "GPT-NeoX, Llemma 7B", LLAMA2_7B, "a100-40", 256, 1, 4096, NEOX, 2272, fused=False, accumulated=8
    ),
    Published(
        "PyTorch FSDP, Llama 2 7B", LLAMA2_7B, "a100-80", 128, 2, 4096, FSDP, 3730, fused=False, accumulated=1
    ),
    Published(
        "PyTorch FSDP, Llama 2 7B, compiled", LLAMA2_7B, "a100-80", 128, 2, 4096, FSDP, 4450, accumulated=1
    ),
    Published("llm-foundry, MPT 7B, recompute", MPT_7B, "a100-80", 8, 16, 4096, RECOMPUTED, 3684),
    Published("llm-foundry, MPT 7B", MPT_7B, "a100-80", 8, 6, 2048, FSDP, 4641),
    Published("llm-foundry, MPT 13B, recompute", MPT_13B, "a100-80", 8, 10, 4096, RECOMPUTED, 2060),
    Published("llm-foundry, MPT 13B", MPT_13B, "a100-80", 8, 2, 2048, FSDP, 2262),
    Published(
        "torchtitan, Llama 2 13B", LLAMA2_13B, "a100-80", 64, 2, 4096, FSDP, 2162, fused=False, accumulated=1
    ),
    Published(
        "torchtitan, Llama 3 8B, half",
        LLAMA3_8B,
        "a100-80",
        64,
        1,
        8192,
        HALF_RECOMPUTED,
        2904,
        fused=False,
        accumulated=1,
    ),
    Published("llm-foundry, MPT 7B, recompute", MPT_7B, "h100", 8, 16, 4096, RECOMPUTED, 8611),
    Published("llm-foundry, MPT 7B", MPT_7B, "h100", 8, 6, 2048, FSDP, 10643),
    Published("llm-foundry, MPT 13B, recompute", MPT_13B, "h100", 8, 10, 4096, RECOMPUTED, 4717),
    Published("llm-foundry, MPT 13B", MPT_13B, "h100", 8, 2, 2048, FSDP, 4792),
    Published(
        "torchtitan, Llama 3.1 8B",
        LLAMA3_8B,
        "h100",
        8,
        2,
        8192,
        HALF_RECOMPUTED,
        5762,
        fused=False,
        accumulated=1,
        bandwidth=2.4e12,
    ),
    Published(
        "torchtitan, Llama 3.1 8B, compiled",
        LLAMA3_8B,
        "h100",
        8,
        2,
        8192,
        HALF_RECOMPUTED,
        6667,
        accumulated=1,
        bandwidth=2.4e12,
    ),
    Published("OLMo-core 7B", OLMO_7B, "h100", 8, 2, 4096, FSDP, 10000),
    Published("KempnerForge 8B, recompute", LLAMA3_8B, "h200", 1, 4, 4096, RECOMPUTED, 10471, flash2=False),
)
