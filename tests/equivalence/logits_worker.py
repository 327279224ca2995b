"""Process of test_transformers.py: logits of the imported checkpoint, from megatron-core's model in real processes."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megatron_ext.backend.device import select_backend
from megatron_ext.config.dump import load_resolved
from megatron_ext.config.sections import RunConfig
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.transformer import build_model, transformer_config
from megatron_ext.optim.optimizer import build_optimizer, wrap_data_parallel
from megatron_ext.train.checkpoints import load_start
from megatron_ext.train.setup import start_processes
from megatron_ext.train.start import find_start


def main() -> None:
    folder = Path(sys.argv[2])
    environment = ProcessEnvironment.detect()
    config = spread(load_resolved(Path(sys.argv[1])), environment.world_size, folder)
    start_processes(
        config, environment, select_backend("cpu", environment.local_rank, environment.world_size)
    )
    megatron_config = transformer_config(config, fused_kernels=False)
    model = wrap_data_parallel(config, megatron_config, build_model(config, megatron_config))
    load_start(find_start(config), model, build_optimizer(config, model))
    with torch.inference_mode():
        part = model[0](torch.load(folder / "tokens.pt"), None, None).contiguous()
    parts = [torch.empty_like(part) for _ in range(environment.world_size)]
    dist.all_gather(parts, part, group=parallel_state.get_tensor_model_parallel_group())
    if environment.rank == 0:
        torch.save(torch.cat(parts, dim=-1)[..., : config.model.vocab_size], folder / "logits.pt")
    dist.destroy_process_group()


def spread(config: RunConfig, processes: int, folder: Path) -> RunConfig:
    """The run over ``processes`` tensor-parallel ranks, with no checkpoint of its own to resume from."""
    parallel = config.parallel.model_copy(update={"tensor_model_parallel_size": processes})
    launch = config.launch.model_copy(update={"nproc_per_node": processes})
    return config.model_copy(update={"run_dir": str(folder), "parallel": parallel, "launch": launch})


if __name__ == "__main__":
    main()
