"""Process of test_measured_memory.py: bytes that a training step keeps on the CPU, as JSON on standard output.

Usage: measured_process.py PRECISION
"""

import dataclasses
import json
import sys
from typing import Any

import numpy as np
import torch

from megatron_ext.backend.device import select_backend
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.transformer import build_model, to_training_precision, transformer_config
from megatron_ext.optim.fused_adamw import FusedAdamW
from megatron_ext.optim.optimizer import build_optimizer, wrap_data_parallel
from megatron_ext.train.setup import start_processes
from megatron_ext.train.step import connect_schedule, train_step

ROWS, SEQ, VOCAB = 2, 128, 512


def run_config(precision: str, num_layers: int) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "device": "cpu",
            "model": {
                "num_layers": num_layers, "hidden_size": 256, "ffn_hidden_size": 704, "num_attention_heads": 4,
                "num_query_groups": 2, "vocab_size": VOCAB,
            },
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {
                "micro_batch_size": ROWS, "global_batch_size": ROWS, "seq_length": SEQ, "train_iters": 10,
                "precision": precision,
            },
            "optimizer": {"lr": 1e-3},
        }
    )  # fmt: skip


def saved_bytes(model: torch.nn.Module) -> int:
    """Distinct storage that autograd keeps of a forward pass, without weights and without the logits' softmax."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape[-1:] != (VOCAB,):
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address is used twice
        return tensor

    tokens = torch.zeros(ROWS, SEQ, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(tokens, None, None, labels=tokens)
    return sum(size for size, _ in kept.values())


def state_bytes(config: RunConfig, megatron_config: Any, chunks: list[torch.nn.Module]) -> dict[str, int]:
    """Weights, gradient buffers, and what the optimizer keeps after a step, which is one kernel."""
    wrapped = wrap_data_parallel(config, megatron_config, chunks)
    optimizer = build_optimizer(config, wrapped)
    connect_schedule(wrapped, optimizer)
    tokens = np.zeros((ROWS, SEQ + 1), dtype=np.uint16)
    train_step(config, wrapped, optimizer, [MicroBatch(tokens, None, None, np.zeros(ROWS, np.int32))], 1)
    if not isinstance(optimizer.chained_optimizers[0].optimizer, FusedAdamW):
        raise TypeError("megatron-core built another optimizer")
    parameters, buffers = list(wrapped[0].parameters()), wrapped[0].buffers
    states = optimizer.optimizer.state.values()
    moments = [one for state in states for name, one in state.items() if name != "step"]
    masters = [one.main_param for one in parameters if hasattr(one, "main_param")]
    return {
        "weights": sum(one.nbytes for one in parameters),
        "gradients": sum(buffer.grad_data.nbytes for buffer in buffers),
        "optimizer": sum(one.nbytes for one in [*moments, *masters]),
    }


def main() -> None:
    precision = sys.argv[1]
    backend = select_backend("cpu", 0, 1)
    start_processes(run_config(precision, 1), ProcessEnvironment.detect(), backend)
    measured: dict[str, Any] = {"activations": {}}
    for num_layers in (1, 3):
        config = run_config(precision, num_layers)
        plain = transformer_config(config, fused_kernels=False)
        normed = config.model_copy(update={"model": config.model.model_copy(update={"qk_layernorm": True})})
        chunks = build_model(normed, transformer_config(normed, fused_kernels=False))
        measured["activations"].setdefault("qk_layernorm", []).append(saved_bytes(chunks[0]))
        for name, fused in (("plain", False), ("fused", True)):
            megatron_config = dataclasses.replace(plain, bias_activation_fusion=fused)
            chunks = to_training_precision(
                build_model(config, megatron_config), megatron_config, backend.device
            )
            measured["activations"].setdefault(name, []).append(saved_bytes(chunks[0]))
    measured["states"] = state_bytes(config, megatron_config, chunks)
    sys.stdout.write(json.dumps(measured))


if __name__ == "__main__":
    main()
