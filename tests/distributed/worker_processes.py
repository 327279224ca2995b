"""Worker scripts in several processes on this machine."""

import os
import subprocess
import sys
from pathlib import Path


def run_worker(
    worker: Path, folder: Path, processes: int, *, timeout_s: float = 240, **environment: str
) -> None:
    """Start ``worker folder`` by torchrun, one thread a process, and wait for its success."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [*command, str(worker), str(folder)],
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
