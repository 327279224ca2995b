"""Processes of layouts.py: they train one run after the other, in one layout after the other.

Usage: many_runs.py PLAN. PLAN is JSON: a list of {"folder", "resumes"}; each folder holds a resolved run.yaml, and
``resumes`` is null or the folder of a run whose checkpoint of step 10 this one goes on from. A run that ends leaves
folder/done.
"""

import json
import shutil
import sys
from pathlib import Path

import torch.distributed as dist

from megatron_ext.config.dump import load_resolved
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.train.loop import train
from megatron_ext.train.setup import build_run

STOP = "iter_0000010"


def main() -> None:
    environment = ProcessEnvironment.detect()
    for entry in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        folder = Path(entry["folder"])
        if entry["resumes"] is not None:
            take_checkpoint(Path(entry["resumes"]), folder, first=environment.rank == 0)
        run = build_run(load_resolved(folder / "run.yaml"), environment)
        train(run)
        for sink in run.sinks:
            sink.close()
        if environment.rank == 0:
            (folder / "done").touch()
    dist.destroy_process_group()


def take_checkpoint(source: Path, target: Path, *, first: bool) -> None:
    """Rank 0 copies it; the others, in processes that have trained before, wait."""
    if first:
        shutil.copytree(source / "checkpoints" / STOP, target / "checkpoints" / STOP)
        (target / "checkpoints/latest").write_text(STOP, encoding="utf-8")
    dist.barrier()


if __name__ == "__main__":
    main()
