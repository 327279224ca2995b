"""Processes of test_fused_model.py: two of them, each layout with plain operations and with Triton's kernels.

Usage: fused_worker.py FOLDER. Rank r leaves how far the two are apart in FOLDER/rank{r}.pt.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.utils import unwrap_model
from torch.utils._python_dispatch import TorchDispatchMode
from training_worker import Training, batch, fill, run_config

from megatron_ext.backend.device import select_backend
from megatron_ext.config.section_rope import RopeScalingConfig
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.kernels.attention.documents import Documents
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.transformer import build_model, to_training_precision, transformer_config
from megatron_ext.train.setup import form_groups, start_processes
from megatron_ext.train.step import _on_device, _rows, _run_schedule, add_by_set

VOCAB, SEQ, ROWS = 259, 8, 2
YARN = RopeScalingConfig(rope_type="yarn", factor=4.0, original_max_position_embeddings=4)
SEPARATE_GRADIENTS = {"training": {"gradient_accumulation_fusion": False}}
LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    "TP1": {},
    "TP2": {"parallel": {"tensor_model_parallel_size": 2}},
    "TP2 SP, loss in chunks": {
        "parallel": {"tensor_model_parallel_size": 2, "sequence_parallel": True},
        "kernels": {"loss_chunk_tokens": 5},
    },
    "TP2, loss in chunks": {
        "parallel": {"tensor_model_parallel_size": 2},
        "kernels": {"loss_chunk_tokens": 7},
    },
    "tied, loss in chunks": {
        "model": {"untie_embeddings_and_output_weights": False},
        "kernels": {"loss_chunk_tokens": 16},
    },
    "full recompute": {"parallel": {"recompute_granularity": "full"}},
    "attention recomputed": {"parallel": {"recompute_granularity": "selective"}},
    "MLP recomputed": {
        "parallel": {"recompute_granularity": "selective", "recompute_modules": ("mlp",)},
    },
    "documents": {"data": {"reset_attention_mask": True}},
    "CP2": {"parallel": {"context_parallel_size": 2}},
    "gradients in main gradients, loss in chunks": {
        "training": {"gradient_accumulation_fusion": True},
        "kernels": {"loss_chunk_tokens": 5},
    },
    "TP2, bias of queries, keys and values": {
        "model": {"add_qkv_bias": True},
        "parallel": {"tensor_model_parallel_size": 2},
    },
    "TP2, norms of queries and keys": {
        "model": {"qk_layernorm": True},
        "parallel": {"tensor_model_parallel_size": 2, "recompute_granularity": "selective"},
    },
    "window": {"model": {"window_size": 3}},
    "yarn": {"model": {"rope_scaling": YARN}},
    "bf16": {"training": {"precision": "bf16"}},
}


def changed(config: RunConfig, sections: dict[str, dict[str, Any]]) -> RunConfig:
    updates = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=updates)


def gradient_of(weight: Any) -> torch.Tensor:
    """What data parallelism has in its buffer: a weight that is also an embedding gets its gradient in two parts."""
    if not weight.grad_added_to_main_grad:
        return weight.grad
    return weight.main_grad + weight.grad if getattr(weight, "zero_out_wgrad", False) else weight.main_grad


class NoteCalls:
    """Which modules that hold weights of their own a pass has not called."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.uncalled = {name for name, module in model.named_modules() if list(module.parameters(False))}
        for name, module in model.named_modules():
            module.register_forward_pre_hook(lambda _module, _inputs, name=name: self.uncalled.discard(name))


def losses_and_gradients(config: RunConfig) -> tuple[Any, dict[str, torch.Tensor]]:
    """Losses with labels, logits without, and gradients by parameter, of one micro-batch."""
    torch.manual_seed(5)
    model_parallel_cuda_manual_seed(5)
    settings = transformer_config(config, fused_kernels=False)
    (bare,) = build_model(config, settings)
    fill(bare)
    for weight in bare.parameters():  # what data parallelism gives them
        weight.main_grad = torch.zeros_like(weight, dtype=torch.float32)
        weight.grad_added_to_main_grad = False
    (model,) = to_training_precision([bare], settings, torch.device("cpu"))
    calls = NoteCalls(bare)
    tokens = torch.randint(VOCAB, (ROWS, SEQ + 1), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1.0] * SEQ, [1.0, 0.0] * (SEQ // 2)])
    starts = Documents.on_device(np.array([0, 3, SEQ, ROWS * SEQ], np.int32), SEQ, torch.device("cpu"))
    documents = starts if config.data.reset_attention_mask else None
    labels = tokens[:, 1:].contiguous()
    losses = model(tokens[:, :-1], None, None, labels=labels, packed_seq_params=documents)
    uncalled = sorted(calls.uncalled)
    (losses * mask).sum().backward()
    gradients = {name: gradient_of(weight) for name, weight in bare.named_parameters()}
    with torch.no_grad():
        logits = model(tokens[:, :-1], None, None, packed_seq_params=documents)
    return (type(bare).__name__, losses.detach(), logits, uncalled), gradients


def compare(sections: dict[str, dict[str, Any]]) -> dict[str, Any]:
    config = changed(changed(run_config(), SEPARATE_GRADIENTS), sections)
    parallel_state.destroy_model_parallel()
    form_groups(config.parallel)
    kernels = config.kernels
    (plain_kind, right, right_logits, _), wanted = losses_and_gradients(
        config.model_copy(update={"kernels": kernels.model_copy(update={"fused": False})})
    )
    (fused_kind, losses, logits, uncalled), found = losses_and_gradients(
        config.model_copy(update={"kernels": kernels.model_copy(update={"fused": True})})
    )
    return {
        "kinds": (plain_kind, fused_kind),
        "uncalled": uncalled,
        "loss": float(right.mean()),
        "losses": float((losses - right).abs().max()),
        "logits": float((logits - right_logits).abs().max()),
        "gradients": {
            name: float((found[name] - grad).abs().max() / grad.abs().max()) for name, grad in wanted.items()
        },
    }


TRAINED: dict[str, dict[str, Any]] = {
    "PP2 tied": {"pipeline_model_parallel_size": 2, "tied": True},
    "PP2 VPP2 recomputed": {
        "pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2, "num_layers": 4,
        "recompute_granularity": "full",
    },
    "DP2 distributed overlapped": {
        "use_distributed_optimizer": True, "overlap_grad_reduce": True, "overlap_param_gather": True,
    },
}  # fmt: skip


def train_both(**settings: Any) -> dict[bool, list[tuple[float, ...]]]:
    """Losses and gradient norms of two steps, by whether the kernels are fused."""
    seen = {}
    for fused in (False, True):
        training = Training(fused=fused, **settings)
        for chunk in unwrap_model(training.model):
            fill(chunk)
            shared = chunk.shared_embedding_or_output_weight() if settings.get("tied") else None
            if shared is not None:  # by both ends of the pipeline
                shared.data.copy_(torch.randn(shared.shape, generator=torch.Generator().manual_seed(7)))
        seen[fused] = training.steps(1, 2)
    return seen


class CountWaits(TorchDispatchMode):
    """Counts what reads a value on the host: ``item``, ``tolist``, ``bool``; on a GPU each waits for all queued."""

    waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.waits += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def waits_of_a_step(**parallel: Any) -> int:
    """In the forward and backward passes over a global batch, the reduction of its gradients, and its losses by set."""
    training = Training(**parallel)
    tokens, mask = batch(1)
    rows = [MicroBatch(tokens[at : at + 2], mask[at : at + 2], None, np.zeros(2, np.int32)) for at in (0, 2)]
    totals = torch.zeros(1, 2, dtype=torch.float64)
    with CountWaits() as count:
        reports = _run_schedule(training.model, _on_device(training.model, rows), forward_only=False)
        add_by_set(totals, *_rows(reports, rows, totals.device))
    return count.waits


def main() -> None:
    environment = ProcessEnvironment.detect()
    backend = select_backend("cpu", environment.local_rank, environment.local_world_size)
    start_processes(run_config(), environment, backend)
    layouts = {name: compare(sections) for name, sections in LAYOUTS.items()}
    waits = {
        "DP2": waits_of_a_step(),
        "TP2 SP": waits_of_a_step(tensor_model_parallel_size=2, sequence_parallel=True),
        "PP2": waits_of_a_step(pipeline_model_parallel_size=2),
    }
    trained = {name: train_both(**settings) for name, settings in TRAINED.items()}
    seen = {"layouts": layouts, "waits": waits, "trained": trained}
    torch.save(seen, Path(sys.argv[1]) / f"rank{environment.rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
