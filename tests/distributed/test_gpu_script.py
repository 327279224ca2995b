"""benchmarks/gpu.sh: its dry mode runs every part on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_dry_mode_runs_every_part(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    settings = {"PYTHON": sys.executable, "RESULTS": str(tmp_path / "results"), "LIMIT": "500"}
    done = subprocess.run(
        [str(ROOT / "benchmarks/gpu.sh"), "--dry", str(wheels)],
        env={**os.environ, **settings, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    for part in ("wheels", "build", "checked", "attention", "slice", "host_overhead"):
        assert f"== {part}: ok" in done.stdout
    assert "PyTorch version" in (tmp_path / "results/machine.log").read_text()
    for result in ("attention", "slice", "host_overhead"):
        assert json.loads((tmp_path / f"results/{result}.json").read_text())
