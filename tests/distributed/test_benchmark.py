"""`benchmark` in real processes: with its peers, over two processes, and the host's overhead."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
TINY = ["--model", "tiny", "--seq-length", "32", "--steps", "2", "--warmup", "1"]
ON_CPU = ["device=cpu", "training.precision=fp32", "model.num_layers=2", "model.vocab_size=256"]


def benchmark(output: Path, *arguments: str, processes: int = 1) -> tuple[Any, str]:
    """What it wrote, and what it printed."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    launcher = torchrun if processes > 1 else []
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [
            sys.executable,
            *launcher,
            "tools/benchmark_training.py",
            *TINY,
            *ON_CPU,
            *arguments,
            "--output",
            str(output),
        ],
        cwd=ROOT,
        env={**inherited, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(output.read_text()), done.stdout


def test_ours_beside_peers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    peers = ["megatron-core", "transformers"]
    result, printed = benchmark(tmp_path / "r.json", "--micro-batches", "2", "--peers", *peers)
    assert result["command"].startswith("tools/benchmark_training.py --model tiny")
    assert result["versions"]["torch"] == torch.__version__
    assert (result["config"]["device"], result["left_out"]) == ("cpu", {})
    contenders = result["contenders"]
    assert [one["name"] for one in contenders] == ["megatron_ext", *peers]
    for one in contenders:
        assert one["name"] in printed
        assert one["tokens_per_second_per_gpu"] == pytest.approx(2 * 32 / one["seconds"])
        assert 0 < one["best_seconds"] <= one["seconds"]
        assert one["tflops"]["full"] > one["tflops"]["causal"] > 0
        assert one["mfu"] is None
        assert {"GEMM", "elementwise", "optimizer step", "remainder"} <= set(one["parts"])
        assert all(seconds > 0 for seconds in one["parts"].values())
    assert {"attention"} <= set(contenders[0]["parts"])
    assert result["config"]["training"]["global_batch_size"] == 2


def test_two_processes_share_a_step(tmp_path: Path) -> None:
    layout = ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"]
    result, _ = benchmark(tmp_path / "r.json", *layout, processes=2)
    (ours,) = result["contenders"]
    assert result["config"]["training"]["global_batch_size"] == 1  # one copy of the model
    assert ours["tokens_per_second_per_gpu"] == pytest.approx(32 / ours["seconds"] / 2)
    assert ours["parts"]["exposed communication"] > 0


def test_a_peer_that_fails_leaves_the_others_their_figures(tmp_path: Path) -> None:
    peers = ["--peers", "megatron-core", "liger"]
    result, _ = benchmark(tmp_path / "r.json", "model.qk_layernorm=true", *peers)
    assert [one["name"] for one in result["contenders"]] == ["megatron_ext"]
    assert "peers are Llama models" in result["left_out"]["megatron-core"]
    assert re.search("is not installed|need a GPU", result["left_out"]["liger"])


@pytest.mark.parametrize(
    "layout",
    [
        [
            "parallel.tensor_model_parallel_size=2",
            "model.num_query_groups=2",
            "parallel.sequence_parallel=true",
        ],
        [
            "parallel.pipeline_model_parallel_size=2",
            "parallel.virtual_pipeline_model_parallel_size=2",
            "--micro-batches=2",
        ],
    ],
)
def test_host_overhead_of_a_layout_is_its_slowest_process_s(tmp_path: Path, layout: list[str]) -> None:
    result, _ = benchmark(tmp_path / "r.json", "--host-overhead", "model.num_layers=8", *layout, processes=2)
    overhead = result["host_overhead"]
    assert overhead["num_layers"] == (4 if "--micro-batches=2" in layout else 8)
    assert 0 < overhead["seconds_per_layer"] < overhead["seconds"]


def test_host_overhead_grows_with_layers(tmp_path: Path) -> None:
    result, printed = benchmark(tmp_path / "r.json", "--host-overhead", "model.num_layers=6")
    overhead = result["host_overhead"]
    assert overhead["num_layers"] == 6
    assert 0 < overhead["seconds_per_layer"] * 5 < overhead["seconds"]
    assert "host's share" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps and --micro-batches are 1 or more, --warmup 0 or more"),
        (["--cuda-graphs", "device=cpu"], "kernels.cuda_graphs=true does not go with device=cpu"),
    ],
)
def test_wrong_values_are_one_message(arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "tools/benchmark_training.py", *TINY[:4], *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
