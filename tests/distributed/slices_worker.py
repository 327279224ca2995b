"""Processes of test_load_slices.py: four of them, one layout after the other.

Usage: slices_worker.py FOLDER. FOLDER/{tied,untied}/hf is a Hugging Face folder, …/imported its import. Rank r leaves
the names of the layouts whose weights and master weights it found equal in FOLDER/rank{r}.json.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from load_layouts import LAYOUTS, MODEL, MODELS

from megatron_ext.backend.device import select_backend
from megatron_ext.checkpoint.distributed import load_distributed, load_slices
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.sections import RunConfig
from megatron_ext.convert.hf_slices import HFSlices
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.train.setup import build_trainable, start_processes


def main() -> None:
    environment = ProcessEnvironment.detect()
    folder = Path(sys.argv[1])
    backend = select_backend("cpu", environment.local_rank, environment.local_world_size)
    equal: dict[str, int] = {}
    for kind in MODELS:
        for name, parallel in LAYOUTS.items():
            config = run_config(kind, parallel)
            start_processes(config, environment, backend)
            model, optimizer, _ = build_trainable(config, backend)
            load_slices(HFSlices(folder / kind / "hf"), model, optimizer)
            sliced = weights(model, optimizer)
            model, optimizer, _ = build_trainable(config, backend)
            imported = CheckpointStore.resolve(folder / kind / "imported")
            load_distributed(imported, model, optimizer, with_optimizer=False)
            loaded = weights(model, optimizer)
            same = [torch.equal(a, b) for a, b in zip(sliced, loaded, strict=True)]
            equal[f"{kind} {name}"] = len(same) if all(same) else 0
    (folder / f"rank{environment.rank}.json").write_text(json.dumps(equal))
    dist.destroy_process_group()


def weights(model: list[Any], optimizer: Any) -> list[torch.Tensor]:
    """Copies of this process's weights and of what the optimizer keeps of them."""
    of_model = [weight for chunk in model for weight in chunk.parameters()]
    masters = [weight for group in optimizer.param_groups for weight in group["params"]]
    return [weight.detach().clone() for weight in (*of_model, *masters)]


def run_config(kind: str, parallel: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "device": "cpu",
            "model": {**MODEL, "untie_embeddings_and_output_weights": kind == "untied"},
            "parallel": {**parallel, "use_distributed_optimizer": True},
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {"micro_batch_size": 1, "global_batch_size": 4, "seq_length": 8, "train_iters": 2},
            "optimizer": {"lr": 0.1},
            "launch": {"nproc_per_node": 4},
        }
    )


if __name__ == "__main__":
    main()
