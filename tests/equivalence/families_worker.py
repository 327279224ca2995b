"""Process of test_families.py: logits of every imported case in FOLDER, in the layouts of this many processes.

Usage: families_worker.py FOLDER. The last pipeline stage leaves FOLDER/CASE/logits-LAYOUT.pt.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from megatron.core import parallel_state
from megatron.core.utils import unwrap_model

from megatron_ext.backend.device import select_backend
from megatron_ext.config.sections import RunConfig
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.transformer import build_model, to_training_precision, transformer_config
from megatron_ext.optim.optimizer import build_optimizer, wrap_data_parallel
from megatron_ext.train.checkpoints import load_start
from megatron_ext.train.setup import form_groups, start_processes
from megatron_ext.train.start import find_start

LAYOUTS = {1: [(1, 1)], 2: [(2, 1), (1, 2)], 4: [(2, 2)]}


def run_config(case: Path, layout: tuple[int, int], precision: str) -> RunConfig:
    tensor, pipeline = layout
    seq_length = torch.load(case / "tokens.pt").shape[1]
    return RunConfig.model_validate(
        {
            "name": "families", "device": "cpu", "run_dir": f"{case}/run",
            "model": yaml.safe_load((case / "imported" / "model.yaml").read_text())["model"],
            "parallel": {"tensor_model_parallel_size": tensor, "pipeline_model_parallel_size": pipeline},
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {
                "micro_batch_size": 1, "global_batch_size": 1, "seq_length": seq_length, "train_iters": 1,
                "precision": precision,
            },
            "optimizer": {"lr": 1e-3},
            "checkpoint": {"load": f"{case}/imported"},
            "launch": {"nproc_per_node": tensor * pipeline},
        }
    )  # fmt: skip


def whole_logits(config: RunConfig, tokens: torch.Tensor) -> torch.Tensor | None:
    """[batch, seq, vocabulary] on ranks of the last stage, None on others."""
    settings = transformer_config(config, fused_kernels=False)
    placed = to_training_precision(build_model(config, settings), settings, torch.device("cpu"))
    model = wrap_data_parallel(config, settings, placed)
    load_start(find_start(config), model, build_optimizer(config, model))
    last = parallel_state.is_pipeline_last_stage()
    if not parallel_state.is_pipeline_first_stage():
        received = torch.empty(*tokens.T.shape, config.model.hidden_size, dtype=settings.params_dtype)
        dist.recv(received, parallel_state.get_pipeline_model_parallel_prev_rank())
        unwrap_model(model[0]).set_input_tensor(received)
    with torch.inference_mode():
        output = model[0](tokens, None, None).contiguous()
    if not last:
        dist.send(output.clone(), parallel_state.get_pipeline_model_parallel_next_rank())
        return None
    group = parallel_state.get_tensor_model_parallel_group()
    parts = [torch.empty_like(output) for _ in range(group.size())]
    dist.all_gather(parts, output, group=group)
    return torch.cat(parts, dim=-1)[..., : config.model.vocab_size]


def compute(case: Path, layout: tuple[int, int], precision: str) -> None:
    config = run_config(case, layout, precision)
    form_groups(config.parallel)
    logits = whole_logits(config, torch.load(case / "tokens.pt"))
    if logits is not None and parallel_state.get_tensor_model_parallel_rank() == 0:
        torch.save(logits.float().clone(), case / f"logits-TP{layout[0]}-PP{layout[1]}-{precision}.pt")


def main() -> None:
    environment = ProcessEnvironment.detect()
    backend = select_backend("cpu", environment.local_rank, environment.local_world_size)
    cases = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    layouts = LAYOUTS[environment.world_size]
    start_processes(run_config(cases[0], layouts[0], "fp32"), environment, backend)
    for case in cases:
        for layout in layouts:
            compute(case, layout, "fp32")
            compute(case, layout, "bf16")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
