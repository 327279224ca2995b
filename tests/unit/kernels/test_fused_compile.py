"""The interpreter accepts what the compiler does not: each kernel becomes machine code here, without a GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("compile_worker.py")
KERNELS = 17
REGISTERS, WARPS = 65536, 64
"""Of a processor."""


@pytest.mark.parametrize("capability", [80, 90], ids=["A100", "H100"])
def test_every_kernel_compiles_to_what_memory_keeps_up_with(capability: int, tmp_path: Path) -> None:
    """Nothing spills, programs fill half of a processor, and threads move at least 8 bytes in one piece."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(capability)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_DUMP_PTXAS_LOG": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    spills = re.findall(r"(\d+) bytes spill stores", done.stdout)
    assert spills == ["0"] * KERNELS
    registers = [int(used) for used in re.findall(r"Used (\d+) registers", done.stdout)]
    kernels = re.findall(r"^KERNEL (\w+) (\d+) (\d+)$", done.stdout, re.MULTILINE)
    filled = {
        (name, used): REGISTERS // (-(-used // 8) * 8 * 32 * int(warps)) * int(warps) / WARPS
        for used, (name, warps, _) in zip(registers, kernels, strict=True)
    }
    assert {kernel: part for kernel, part in filled.items() if part < 1 / 2} == {}
    assert {(name, moved) for name, _, moved in kernels if int(moved) < 8} == set()
