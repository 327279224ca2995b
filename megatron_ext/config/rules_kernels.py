"""What goes with keys of ``kernels``; a CUDA graph repeats what it holds, whatever the host would decide anew."""

from collections.abc import Iterator

from megatron_ext.config.sections import RunConfig
from megatron_ext.config.violation import Rule, Violation


def _cuda_graphs(run: RunConfig) -> Iterator[Violation]:
    if not run.kernels.cuda_graphs:
        return
    obstacles = (
        (
            "device",
            run.device == "cpu",
            "device=cpu: only GPUs have graphs; set device=cuda",
        ),
        (
            "data.reset_attention_mask",
            run.data.reset_attention_mask,
            "data.reset_attention_mask=true: each micro-batch has its own number of documents, and a graph one for "
            "all; set it to false",
        ),
        (
            "parallel.virtual_pipeline_model_parallel_size",
            run.parallel.virtual_pipeline_model_parallel_size is not None,
            "virtual_pipeline_model_parallel_size: interleaved stages do not wait for the last they send, and a graph "
            "has to end all it begins; remove it",
        ),
        (
            "parallel.overlap_param_gather",
            run.parallel.overlap_param_gather,
            "overlap_param_gather=true: the host keeps account of which weights have been gathered, and would validate "
            "with old ones; set it to false, overlap_grad_reduce may stay",
        ),
        (
            "training.fp8",
            run.training.fp8 is not None,
            f"training.fp8={run.training.fp8}: Transformer Engine decides on the host, pass by pass, what to cast; "
            "remove it",
        ),
    )
    for key, stands, reason in obstacles:
        if stands:
            yield Violation(
                (key, "kernels.cuda_graphs"),
                f"kernels.cuda_graphs=true does not go with {reason}, or set kernels.cuda_graphs=false",
            )


def _loss_chunks(run: RunConfig) -> Iterator[Violation]:
    if run.kernels.loss_chunk_tokens is not None and run.kernels.fused is False:
        yield Violation(
            ("kernels.loss_chunk_tokens", "kernels.fused"),
            f"kernels.loss_chunk_tokens={run.kernels.loss_chunk_tokens}: only the fused loss works in chunks, and "
            "kernels.fused=false; remove it, or set kernels.fused to auto or true",
        )


def _attention_backend(run: RunConfig) -> Iterator[Violation]:
    """What no machine can serve; what this one lacks shows when the run starts."""
    name, window = run.kernels.attention_backend, run.model.window_size
    if name in ("auto", "torch"):
        return
    whole_rows_only = name == "cudnn"
    obstacles = (
        ("device", run.device == "cpu" and name != "sdpa_flash", "device=cpu: it needs an NVIDIA GPU"),
        (
            "training.precision",
            run.training.precision == "fp32" and (run.device == "cuda" or name != "sdpa_flash"),
            "training.precision=fp32: on a GPU it takes 16-bit values only",
        ),
        (
            "data.reset_attention_mask",
            whole_rows_only and run.data.reset_attention_mask,
            "data.reset_attention_mask=true: it does not attend inside documents",
        ),
        (
            "parallel.context_parallel_size",
            whole_rows_only and run.parallel.context_parallel_size > 1,
            "parallel.context_parallel_size above 1: it does not attend from a part of a row",
        ),
        (
            "model.window_size",
            whole_rows_only and window is not None and window < run.training.seq_length,
            f"model.window_size={window}: it has no sliding window",
        ),
    )
    for key, stands, reason in obstacles:
        if stands:
            yield Violation(
                ("kernels.attention_backend", key),
                f"kernels.attention_backend={name} does not go with {reason}; nearest: auto, the fastest that does",
            )


KERNEL_RULES: tuple[Rule, ...] = (_cuda_graphs, _loss_chunks, _attention_backend)
