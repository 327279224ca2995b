"""The sections of a run, one frozen pydantic model each, with megatron-core's names; unknown keys refused.

These hold and type values. Rules that span sections are in ``rules.py``, reading and merging in ``load.py``.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from megatron_ext.config.batch_size import BatchSizes
from megatron_ext.config.section import NonNegativeInt, PositiveInt, Section
from megatron_ext.config.section_data import DataConfig
from megatron_ext.config.section_optimizer import OptimizerConfig
from megatron_ext.config.section_rope import RopeScalingConfig


class ModelConfig(Section):
    """Shape of a Llama-family decoder."""

    num_layers: PositiveInt
    hidden_size: PositiveInt
    ffn_hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    num_query_groups: PositiveInt | None = Field(
        default=None, description="KV heads; default: one per attention head"
    )
    kv_channels: PositiveInt | None = Field(
        default=None, description="head size; default: hidden_size / num_attention_heads"
    )
    vocab_size: PositiveInt = Field(description="rows of the embedding that hold a token, before padding")
    max_position_embeddings: PositiveInt = 4096
    rotary_base: Annotated[float, Field(gt=0)] = 10000.0
    rope_scaling: RopeScalingConfig | None = Field(
        default=None, description="for positions beyond those of the first training; default: none"
    )
    layernorm_epsilon: Annotated[float, Field(gt=0)] = 1e-5
    untie_embeddings_and_output_weights: bool = True
    add_qkv_bias: bool = Field(default=False, description="bias of queries, keys and values, as in Qwen 2")
    qk_layernorm: bool = Field(
        default=False, description="RMSNorm of each head's query and key, as in Qwen 3"
    )
    window_size: PositiveInt | None = Field(
        default=None, description="keys a query sees at most, its own among them, as in Mistral; default: all"
    )
    init_method_std: Annotated[float, Field(gt=0)] = 0.02

    @property
    def query_groups(self) -> int:
        """Number of KV heads."""
        return self.num_query_groups or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.kv_channels or self.hidden_size // self.num_attention_heads


class ParallelConfig(Section):
    """How the model and the batch are spread over processes; data parallelism takes what is left."""

    tensor_model_parallel_size: PositiveInt = 1
    pipeline_model_parallel_size: PositiveInt = 1
    virtual_pipeline_model_parallel_size: Annotated[int, Field(gt=1)] | None = Field(
        default=None,
        description="interleaved pipeline: parts of the model on each stage; default: one, not interleaved",
    )
    num_layers_in_first_pipeline_stage: PositiveInt | None = Field(
        default=None,
        description="where stages hold unequal numbers of layers; default: as many as the others",
    )
    num_layers_in_last_pipeline_stage: PositiveInt | None = Field(default=None, description="likewise")
    context_parallel_size: PositiveInt = Field(
        default=1, description="processes that share each sequence, in all layers"
    )
    sequence_parallel: bool = False
    use_distributed_optimizer: bool = False
    overlap_grad_reduce: bool = False
    overlap_param_gather: bool = False
    recompute_granularity: Literal["none", "selective", "full"] = Field(
        default="none", description="what the backward pass computes again: nothing, parts of layers, layers"
    )
    recompute_method: Literal["uniform", "block"] | None = Field(
        default=None,
        description="of full: uniform (default) keeps the input of every recompute_num_layers layers, "
        "block recomputes the first recompute_num_layers layers of each part and keeps all of the others",
    )
    recompute_num_layers: PositiveInt | None = Field(default=None, description="of full; default: 1")
    recompute_modules: tuple[Literal["core_attn", "mlp"], ...] | None = Field(
        default=None, strict=False, min_length=1, description="of selective; default: core_attn"
    )  # megatron-core's "layernorm" needs Transformer Engine: without it, it fails on a name that is not defined

    @property
    def model_parallel_size(self) -> int:
        """Processes that together hold one copy of the model."""
        return self.tensor_model_parallel_size * self.pipeline_model_parallel_size

    @property
    def replica_size(self) -> int:
        """Processes that together work on one micro-batch."""
        return self.model_parallel_size * self.context_parallel_size

    @property
    def chunks_per_stage(self) -> int:
        """Parts of the model that each pipeline stage holds."""
        return self.virtual_pipeline_model_parallel_size or 1

    def stage_layers(self, num_layers: int) -> list[int]:
        """Layers of each pipeline stage, in a run that passed its rules."""
        stages = self.pipeline_model_parallel_size
        first, last = self.num_layers_in_first_pipeline_stage, self.num_layers_in_last_pipeline_stage
        between = stages - sum(given is not None for given in (first, last))
        share = (num_layers - (first or 0) - (last or 0)) // max(1, between)
        layers = [share] * stages
        if first is not None:
            layers[0] = first
        if last is not None:
            layers[-1] = last
        return layers

    def chunk_layers(self, num_layers: int) -> list[list[range]]:
        """Of each stage, which layers its parts hold: the first parts of all stages come first, then the second."""
        chunks = self.chunks_per_stage
        sizes = [layers // chunks for layers in self.stage_layers(num_layers)]
        return [
            [range(first, first + size) for first in range(sum(sizes[:stage]), num_layers, sum(sizes))]
            for stage, size in enumerate(sizes)
        ]


class KernelsConfig(Section):
    """Which implementations compute what matters for speed; every choice computes the same."""

    attention_backend: Literal["auto", "flash4", "flash3", "flash2", "cudnn", "sdpa_flash", "torch"] = Field(
        default="auto", description="auto: the fastest that is installed and fits dtype, head size and device"
    )
    fused: Literal["auto", True, False] = Field(
        default="auto",
        description="Triton kernels for all but products and attention; auto: on GPUs with Triton",
    )
    loss_chunk_tokens: PositiveInt | None = Field(
        default=None,
        description="with fused: tokens whose logits exist at a time, computed twice; default: all, computed once",
    )
    cuda_graphs: bool = Field(
        default=False,
        description="from the fourth step on, replay forward and backward passes as one CUDA graph, which keeps their "
        "memory: for micro-batches so small that a GPU waits for the host",
    )


class TokenizerConfig(Section):
    """The tokenizer the shards were made with: checked against them and against ``model.vocab_size``."""

    type: Literal["SentencePieceTokenizer", "HuggingFaceTokenizer", "ByteTokenizer"]
    model: str | None = Field(default=None, description="model file, or folder for HuggingFaceTokenizer")


class TrainingConfig(Section):
    """Length, batch and precision of the run."""

    micro_batch_size: PositiveInt
    global_batch_size: PositiveInt
    rampup_batch_size: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], Field(strict=False)] | None = (
        Field(
            default=None,
            description="[start, increment, samples]: the batch grows from start to global_batch_size in steps "
            "of increment, spread evenly over so many samples; default: full from the start",
        )
    )
    seq_length: PositiveInt
    train_iters: PositiveInt
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    fp8: Literal["hybrid", "e4m3"] | None = Field(
        default=None,
        description="products of the decoder's layers in FP8, by Transformer Engine; hybrid: gradients in e5m2",
    )
    gradient_accumulation_fusion: bool = Field(
        default=True,
        description="add weight gradients straight to the main gradient, without a tensor between",
    )
    seed: NonNegativeInt = 1234
    eval_interval: PositiveInt | None = Field(
        default=None, description="iterations between validations; default: at the end only"
    )
    eval_iters: PositiveInt | None = Field(
        default=None, description="global batches a validation reads; default: all held-out text"
    )
    eval_at_start: bool = False
    exit_interval: PositiveInt | None = Field(
        default=None, description="save and stop when iteration is a multiple of this"
    )

    @property
    def tokens_per_iteration(self) -> int:
        """Tokens that one optimizer step consumes, after the ramp-up of the batch."""
        return self.global_batch_size * self.seq_length

    @property
    def batch_sizes(self) -> BatchSizes:
        """The global batch at each position."""
        full = self.global_batch_size
        return BatchSizes(full, *(self.rampup_batch_size or (full,)))

    @property
    def train_samples(self) -> int:
        """Samples that the whole run consumes."""
        return self.batch_sizes.samples_after(self.train_iters)


class CheckpointConfig(Section):
    """Where a run starts from and what it leaves."""

    load: str | None = Field(
        default=None, description="checkpoint whose weights a fresh run starts from; default: random"
    )
    load_hf: str | None = Field(
        default=None,
        description="Hugging Face folder whose weights a fresh run starts from, without an import",
    )
    export_hf: bool = Field(
        default=False, description="write Hugging Face format to <run_dir>/hf when training is complete"
    )
    save: str | None = Field(
        default=None, description="folder; default: <run_dir>/checkpoints. A run resumes from its latest"
    )
    save_interval: PositiveInt | None = Field(
        default=None, description="iterations; default: at the end only"
    )
    keep: PositiveInt | None = Field(default=None, description="newest checkpoints kept; default: all")


class LoggingConfig(Section):
    """What a run says and where."""

    log_interval: PositiveInt = 10
    per_label: bool | None = Field(
        default=None,
        description="loss and tokens of each label in metrics.jsonl; default: where data has groups",
    )
    label_interval: PositiveInt = Field(
        default=1, description="training records from one with labels to the next; saves end an interval too"
    )
    tensorboard: bool = Field(default=False, description="event files under <run_dir>/tensorboard")
    wandb_project: str | None = None
    track_labels: bool = Field(
        default=False, description="labels in TensorBoard and W&B too, beside the other groups"
    )
    peak_tflops: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="peak of one device for MFU, in TFLOP/s; default: looked up by device name"
    )


class LaunchConfig(Section):
    """How processes are started; every value can be overridden on the command line."""

    launcher: Literal["torchrun", "mpirun", "deepspeed", "none"] = "torchrun"
    nnodes: PositiveInt = 1
    nproc_per_node: PositiveInt = 1
    node_rank: NonNegativeInt = 0
    master_addr: str = "127.0.0.1"
    master_port: Annotated[int, Field(gt=0, lt=65536)] = 29500
    hostfile: str | None = None
    threads_per_process: PositiveInt | None = Field(
        default=None, description="OMP_NUM_THREADS; default: left as it is"
    )

    @property
    def world_size(self) -> int:
        """Processes altogether."""
        return self.nnodes * self.nproc_per_node


class RunConfig(Section):
    """Everything one training run needs; written to ``<run_dir>/run.yaml`` and into each checkpoint."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    run_dir: str = Field(default="", description="default: runs/<name>")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    model: ModelConfig
    parallel: ParallelConfig = ParallelConfig()
    kernels: KernelsConfig = KernelsConfig()
    tokenizer: TokenizerConfig
    data: DataConfig
    training: TrainingConfig
    optimizer: OptimizerConfig
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    launch: LaunchConfig = LaunchConfig()

    @model_validator(mode="before")
    @classmethod
    def _default_folders(cls, values: object) -> object:
        if isinstance(values, dict) and not values.get("run_dir") and "name" in values:
            return {**values, "run_dir": f"runs/{values['name']}"}
        return values

    @property
    def data_parallel_size(self) -> int:
        """Copies of the model that read different samples."""
        return self.launch.world_size // self.parallel.replica_size

    @property
    def num_microbatches(self) -> int:
        """Micro-batches that each copy accumulates in one step."""
        return self.training.global_batch_size // (self.training.micro_batch_size * self.data_parallel_size)

    @property
    def checkpoint_dir(self) -> str:
        """Folder of this run's own checkpoints."""
        return self.checkpoint.save or f"{self.run_dir}/checkpoints"

    @property
    def hf_dir(self) -> str:
        """Folder of the Hugging Face model that ``checkpoint.export_hf`` writes."""
        return f"{self.run_dir}/hf"
