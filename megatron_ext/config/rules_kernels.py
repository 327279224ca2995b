"""What ``kernels.cuda_graphs`` goes with: a graph repeats what it holds, whatever the host would decide anew."""

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


KERNEL_RULES: tuple[Rule, ...] = (_cuda_graphs,)
