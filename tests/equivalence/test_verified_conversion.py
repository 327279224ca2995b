"""convert --verify, in a process of its own as a user has it: megatron-core's logits beside transformers'."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

TOOL = """
import sys
from megatron_ext.cli.main import run_verb
sys.exit(run_verb("convert", sys.argv[1:]))
"""
# What a table of rules that agrees with itself in both directions can get wrong, and hashes cannot see.
WRONG_RULES = """
from megatron_ext.convert.rules import FuseGateUp
fuse, split = FuseGateUp.fuse, FuseGateUp.split
FuseGateUp.fuse = lambda rule, parts, model: fuse(rule, parts[::-1], model)
FuseGateUp.split = lambda rule, whole, model: split(rule, whole, model)[::-1]
"""


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("verify") / "hf"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def _convert(*arguments: str | Path, before: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", before + TOOL, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_both_directions_say_what_agrees(hf: Path, tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    imported = _convert("from-hf", "--hf-path", hf, "--output", checkpoint, "--verify")
    assert imported.returncode == 0, imported.stderr
    assert "verified: 21 tensors (0.09 MB) equal by SHA-256\n" in imported.stdout
    difference = re.search(
        r"logits of 32 tokens, from megatron-core and from transformers in fp32, differ by (\S+) at most",
        imported.stdout,
    )
    assert difference is not None
    assert float(difference[1]) < 1e-4
    exported = _convert("to-hf", "--checkpoint", checkpoint, "--output", out, "--dtype", "bf16", "--verify")
    assert exported.returncode == 0, exported.stderr
    assert "equal by SHA-256, 21 of them after the same rounding\n" in exported.stdout
    assert "verified: logits" in exported.stdout


def test_rules_that_are_wrong_in_both_directions_are_found_by_logits(hf: Path, tmp_path: Path) -> None:
    arguments = ("from-hf", "--hf-path", hf, "--output", tmp_path / "checkpoint", "--verify")
    ended = _convert(*arguments, before=WRONG_RULES)
    assert "verified: 21 tensors" in ended.stdout
    assert ended.returncode == 2
    assert "error: the conversion is not right, do not use it: logits" in ended.stderr
