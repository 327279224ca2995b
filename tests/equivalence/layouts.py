"""Layouts by name, and many runs in one set of processes: starting these takes longer than the runs."""

import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from comparable_runs import Finished, World, read_finished

from megatron_ext.config.dump import run_to_yaml
from megatron_ext.config.load import load_run_config

WORKER = Path(__file__).with_name("many_runs.py")
SIZES = {
    "TP": "tensor_model_parallel_size",
    "PP": "pipeline_model_parallel_size",
    "VPP": "virtual_pipeline_model_parallel_size",
    "CP": "context_parallel_size",
}
SWITCHES = {
    "SP": ["sequence_parallel"],
    "distributed": ["use_distributed_optimizer"],
    "overlapped": ["overlap_grad_reduce", "overlap_param_gather"],
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        layout: such as ``TP2 PP2 VPP2 DP2 SP``: sizes, and the switches that are on.
        overrides: of the configuration, beside those of the layout.
        variant: name of the reference it is compared with: one process, and the same overrides.
        resumes: the case whose checkpoint of step 10 it goes on from.
    """

    layout: str
    overrides: tuple[str, ...] = ()
    variant: str = "plain"
    resumes: "Case | None" = None

    @property
    def processes(self) -> int:
        return math.prod(int(size) for size in re.findall(r"(?<!V)[TPCD]P(\d+)", self.layout))

    @property
    def name(self) -> str:
        extras = [override.partition(".")[2].replace("recompute_", "") for override in self.overrides]
        variant = [] if self.variant == "plain" else [self.variant]
        after = [] if self.resumes is None else ["after", self.resumes.name]
        return " ".join([self.layout, *extras, *variant, *after])

    def settings(self) -> list[str]:
        """The layout as overrides of the configuration."""
        found = [f"launch.nproc_per_node={self.processes}", "checkpoint.save_interval=10"]
        for word in self.layout.split():
            match = re.fullmatch(r"([A-Z]+)(\d+)", word)
            if match is None:
                found += [f"parallel.{key}=true" for key in SWITCHES[word]]
            elif match[1] != "DP":
                found.append(f"parallel.{SIZES[match[1]]}={match[2]}")
        return [*found, *self.overrides]


class Runs:
    """Runs of many cases: those that need as many processes share them, and start when the first is asked for.

    Args:
        world: where the data and the model are.
        folder: to work in.
        variants: overrides of the configuration, by name.
        cases: in an order in which each comes after what it resumes from, which needs no more processes than it.
    """

    def __init__(
        self, world: World, folder: Path, variants: dict[str, list[str]], cases: Sequence[Case]
    ) -> None:
        self.world, self.folder, self.variants, self.cases = world, folder, variants, cases
        self.errors: dict[int, str] = {}

    def finished(self, case: Case) -> Finished:
        """The run of a case, which must have ended well."""
        for processes in sorted({other.processes for other in self.cases}):
            if processes <= case.processes and processes not in self.errors:
                self.errors[processes] = self._run(processes)
        assert (self._folder(case) / "done").exists(), self.errors[case.processes]
        return read_finished(self._folder(case))

    def _run(self, processes: int) -> str:
        """Train all cases that need ``processes``; what was written about errors."""
        plan = [
            {
                "folder": str(self._resolved(case)),
                "resumes": None if case.resumes is None else str(self._folder(case.resumes)),
            }
            for case in self.cases
            if case.processes == processes
        ]
        path = self.folder / f"plan{processes}.json"
        path.write_text(json.dumps(plan), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        limit_s = 120 + 30 * len(plan)
        try:
            done = subprocess.run(
                [*command, f"--nproc-per-node={processes}", str(WORKER), str(path)],
                env={**inherited, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:  # those that ended by then count
            return f"{len(plan)} runs of {processes} processes took more than {limit_s} s"
        return done.stderr[-6000:]

    def _folder(self, case: Case) -> Path:
        """By number, for names can be longer than a file system takes."""
        return self.folder / f"{self.cases.index(case):02}_{re.sub(r'[^A-Z0-9]+', '_', case.layout)}"

    def _resolved(self, case: Case) -> Path:
        folder = self._folder(case)
        folder.mkdir()
        source = folder / "config.yaml"
        source.write_text(yaml.safe_dump(self.world.config), encoding="utf-8")
        overrides = [f"run_dir={folder}", *case.settings(), *self.variants[case.variant]]
        (folder / "run.yaml").write_text(run_to_yaml(load_run_config([source], overrides)), encoding="utf-8")
        return folder
