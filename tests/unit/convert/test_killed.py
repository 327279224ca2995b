"""A conversion that is killed, wherever that is, leaves its output absent or, when overwriting, as it was."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.llama import LLAMA, hf_config
from megatron_ext.convert.rules import steps
from megatron_ext.convert.to_hf import export_hf

MODEL = ModelConfig(num_layers=2, hidden_size=16, ffn_hidden_size=24, num_attention_heads=4, vocab_size=32)
FORKER = """
import importlib, json, os, signal, sys
from pathlib import Path
from megatron_ext.convert import from_hf, to_hf  # once, for all children

def kill_at(where, call):
    name, attribute = where.split(":")
    owner = importlib.import_module(name)
    *parents, last = attribute.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original, calls = getattr(owner, last), iter(range(1, 10**6))
    def counted(*arguments, **keywords):
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)
    setattr(owner, last, counted)

source, folder, direction, points = sys.argv[1:]
convert = from_hf.import_hf if direction == "from-hf" else to_hf.export_hf
for number, (where, call, overwrite) in enumerate(json.loads(points)):
    output = Path(folder) / ("kept" if overwrite else f"killed{number}")
    child = os.fork()
    if child == 0:
        kill_at(where, call)
        convert(Path(source), output, overwrite=overwrite)
        os._exit(0)
    print(json.dumps([output.name, os.waitpid(child, 0)[1]]))
"""
IMPORT_POINTS = (
    ("megatron_ext.checkpoint.canonical:CanonicalWriter.add", 1, False),
    ("megatron_ext.checkpoint.canonical:CanonicalWriter.add", 9, False),
    ("megatron_ext.checkpoint.canonical:CanonicalWriter._finish", 1, False),
    ("megatron_ext.convert.assets:copy_assets", 1, False),
    ("megatron_ext.checkpoint.manifest:write_text", 1, False),
    ("megatron_ext.checkpoint.store:commit_directory", 1, False),
    ("megatron_ext.convert.from_hf:write_text", 1, False),  # model.yaml, after the checkpoint has its name
    ("os:fsync", 1, False),
    ("megatron_ext.utils.atomic:commit_directory", 1, False),
    ("megatron_ext.checkpoint.canonical:CanonicalWriter.add", 9, True),
)
EXPORT_POINTS = (
    ("megatron_ext.checkpoint.canonical:CanonicalReader.read_slice", 1, False),
    ("megatron_ext.checkpoint.canonical:CanonicalReader.read_slice", 9, False),
    ("megatron_ext.convert.assets:write_json", 1, False),
    ("megatron_ext.convert.assets:write_json", 2, False),
    ("os:fsync", 2, False),
    ("megatron_ext.utils.atomic:commit_directory", 1, False),
    ("megatron_ext.checkpoint.canonical:CanonicalReader.read_slice", 9, True),
)


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    h, f = MODEL.hidden_size, MODEL.ffn_hidden_size
    shapes = {"embed_tokens": (32, h), "lm_head": (32, h), "gate": (f, h), "up": (f, h), "down": (h, f)}
    weights = {}
    for step in steps(LLAMA.rules(MODEL), MODEL.num_layers):
        for name in step.hf_names:
            kind = next((kind for kind in shapes if kind in name), None)
            weights[name] = torch.randn((h,) if "norm" in name else shapes[kind] if kind else (h, h))
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(MODEL)))
    return folder


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("direction", ["from-hf", "to-hf"])
def test_killed_at_several_points(hf: Path, tmp_path: Path, direction: str) -> None:
    import_hf(hf, tmp_path / "checkpoint")
    source, points = (
        (hf, IMPORT_POINTS) if direction == "from-hf" else (tmp_path / "checkpoint", EXPORT_POINTS)
    )
    convert = import_hf if direction == "from-hf" else export_hf
    work = tmp_path / "work"
    convert(source, work / "kept")
    before = _snapshot(work / "kept")
    ended = subprocess.run(
        [sys.executable, "-c", FORKER, source, work, direction, json.dumps(points)],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    outcomes = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [status for _, status in outcomes] == [signal.SIGKILL] * len(points), ended.stderr
    assert [path.name for path in work.iterdir() if not path.name.startswith(".")] == ["kept"]
    assert _snapshot(work / "kept") == before
    assert len(list(work.glob(".*.tmp"))) == len(points)
    # What was left behind is in nobody's way, and goes with the next conversion to the same place.
    for number in range(len(points)):
        convert(source, work / f"killed{number}")
    convert(source, work / "kept", overwrite=True)
    assert not list(work.glob(".*"))
    if direction == "to-hf":
        for name, value in load_file(hf / "model.safetensors").items():
            assert torch.equal(load_file(work / "killed0" / "model.safetensors")[name], value)
