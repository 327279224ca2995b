"""What inspect-checkpoint says of real folders, and that it sees every kind of difference."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_ext.checkpoint.canonical import EMBEDDING, CanonicalReader, CanonicalWriter, canonical_shapes
from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.cli.main import main
from megatron_ext.convert.contents import Contents, differences, norm, pieces
from megatron_ext.convert.from_hf import import_hf

WEIGHTS = "model.safetensors"
UP, EMBED = "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"
FC1 = "decoder.layers.mlp.linear_fc1.weight"
TOOL = Path(__file__).parents[3] / "tools/inspect_checkpoint.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``hf``, a model of transformers, and ``imported``."""
    folder = tmp_path_factory.mktemp("contents")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=37, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=3,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "hf")
    import_hf(folder / "hf", folder / "imported")
    return folder


def changed(made: Path, folder: Path, **changes: Any) -> Path:
    """A copy of ``hf`` whose tensors are changed: name to new tensor, or to None to leave it out."""
    shutil.copytree(made / "hf", folder)
    tensors: dict[str, Any] = {**load_file(folder / WEIGHTS), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def found(first: Path, second: Path) -> dict[str, tuple[str, float | None]]:
    compared = differences(Contents.open(first), Contents.open(second))
    return {item.key: (item.what, item.largest) for item in compared if item is not None}


def test_a_folder_is_described_with_its_shapes_config_and_tokens(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect-checkpoint", str(made / "imported")]) == 0
    shown = capsys.readouterr().out
    values = sum(tensor.numel() for tensor in load_file(made / "hf" / WEIGHTS).values())
    assert f"{values:,} in 9 tensors, {4 * values:,} bytes" in shown
    for expected in ("2 × 40 × 24", "float32", "0 samples, 0 tokens", "model.num_query_groups", "none"):
        assert expected in shown
    assert main(["inspect-checkpoint", str(made / "hf")]) == 0
    shown = capsys.readouterr().out
    assert f"{values:,} in 21 tensors" in shown
    for expected in ("20 × 24", UP, "num_key_value_heads"):
        assert expected in shown


def test_norms_are_those_of_torch(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(made / "hf" / WEIGHTS)
    assert main(["inspect-checkpoint", "--norms", str(made / "hf")]) == 0
    rows = {
        line.split("│")[1].strip(): line.split("│")
        for line in capsys.readouterr().out.splitlines()
        if "│" in line
    }
    assert float(rows[UP][5]) == pytest.approx(tensors[UP].double().norm().item(), rel=1e-5)
    imported = Contents.open(made / "imported")
    of_layers = dict(pieces(imported.tensors, FC1, imported.shape(FC1)))
    gate = tensors[UP.replace("up_proj", "gate_proj")]
    assert norm(of_layers[f"{FC1}[1]"]) == pytest.approx(
        torch.cat([gate, tensors[UP]]).double().norm().item()
    )
    assert math.isnan(norm(torch.tensor([1.0, math.inf])))


def test_a_folder_equals_itself_and_its_import(made: Path) -> None:
    hf, imported = made / "hf", made / "imported"
    for first, second in ((hf, hf), (imported, imported), (hf, imported), (imported, hf)):
        compared = list(differences(Contents.open(first), Contents.open(second)))
        assert compared == [None] * (21 if first == second == hf else 9)


def test_padding_of_the_vocabulary_is_no_difference(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = CanonicalReader(made / "imported/iter_0000000")
    manifest = Manifest.read(made / "imported/iter_0000000")
    shapes = {**canonical_shapes(manifest.model), EMBEDDING: (40, 24)}
    with CanonicalWriter(tmp_path, shapes) as writer:
        for key in shapes:
            whole = source.read(key)
            writer.add(key, torch.cat([whole, torch.ones(3, 24)]) if key == EMBEDDING else whole)
    counts = {"iteration": 4, "consumed_samples": 16, "consumed_tokens": 2048}
    manifest.model_copy(update=counts).write(tmp_path)
    assert found(tmp_path, made / "imported") == {}
    assert main(["inspect-checkpoint", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "16 samples, 2,048 tokens" in shown
    assert "37 × 24" in shown


def test_every_kind_of_difference_is_named(made: Path, tmp_path: Path) -> None:
    tensors = load_file(made / "hf" / WEIGHTS)
    up = tensors[UP].clone()
    up[3, 5] += 0.5
    half = tensors["model.norm.weight"].half()
    other = changed(
        made,
        tmp_path / "other",
        **{UP: up, EMBED: tensors[EMBED][:30].clone(), "model.norm.weight": half, "lm_head.weight": None},
    )
    seen = found(made / "hf", other)
    assert seen.keys() == {UP, EMBED, "model.norm.weight", "lm_head.weight"}
    assert seen[UP] == ("values", pytest.approx(0.5))
    assert seen[EMBED] == ("shape [37, 24] and [30, 24]", None)
    assert seen["model.norm.weight"] == ("dtype float32 and float16", 0.0)  # ones, in either
    assert seen["lm_head.weight"] == (f"missing in {other}", None)


def test_folders_of_two_kinds_are_compared_as_canonical_tensors(made: Path, tmp_path: Path) -> None:
    up = load_file(made / "hf" / WEIGHTS)[UP].clone()
    up[0, 0] = math.nan
    seen = found(made / "imported", changed(made, tmp_path / "other", **{UP: up}))
    assert seen.keys() == {FC1}
    assert math.isnan(seen[FC1][1] or 0.0)


def test_the_exit_code_says_whether_they_are_equal(made: Path, tmp_path: Path) -> None:
    up = load_file(made / "hf" / WEIGHTS)[UP] + 1
    other = changed(made, tmp_path / "other", **{UP: up})
    assert main(["inspect-checkpoint", "--diff", str(made / "hf"), str(made / "imported")]) == 0
    done = subprocess.run(
        [sys.executable, str(TOOL), "--diff", str(made / "hf"), str(other)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "20 of 21 tensors are identical" in done.stdout


@pytest.mark.parametrize(
    "case",
    [
        ([], "name one FOLDER"),
        (["--norms", "--diff", "a", "b"], "leave it out"),
        (["."], "neither a checkpoint"),
        (["cut"], "not a complete safetensors file"),
    ],
)
def test_what_cannot_be_read_is_a_message_and_exit_code_2(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    case: tuple[list[str], str],
) -> None:  # fmt: skip
    arguments, message = case
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/config.json").write_text(json.dumps({}))
    (tmp_path / "cut" / WEIGHTS).write_bytes((made / "hf" / WEIGHTS).read_bytes()[:-10])
    assert main(["inspect-checkpoint", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out == ""
