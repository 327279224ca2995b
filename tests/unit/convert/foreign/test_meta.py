"""Meta's layout, written here as llama/model.py and fairscale's layers define it."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import (
    FFN,
    HEAD_SIZE,
    HEADS,
    HIDDEN,
    LAYERS,
    Hostile,
    TinyLlama,
    assert_imported,
    imported_frequencies,
)  # fmt: skip

from megatron_ext.cli.main import run_verb
from megatron_ext.convert.foreign.importing import import_foreign
from megatron_ext.convert.foreign.meta import read_meta
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.convert.verify import compare_model
from megatron_ext.errors import ConversionError

SPLIT_BY_ROWS = {"wq", "wk", "wv", "w1", "w3", "output"}
SPLIT_BY_COLUMNS = {"wo", "w2"}


def _interleaved(heads: list[torch.Tensor]) -> torch.Tensor:
    """Meta rotates dimensions (2i, 2i + 1) together where transformers rotates (i, i + half)."""
    order = [dimension for i in range(HEAD_SIZE // 2) for dimension in (i, i + HEAD_SIZE // 2)]
    return torch.cat([head[order] for head in heads])


def _state(llama: TinyLlama, is_tied: bool) -> dict[str, torch.Tensor]:
    state = {
        "tok_embeddings.weight": llama["model.embed_tokens.weight"],
        "norm.weight": llama["model.norm.weight"],
        "rope.freqs": torch.ones(HEAD_SIZE // 2),
    }
    if not is_tied:
        state["output.weight"] = llama["lm_head.weight"]
    for n in range(LAYERS):
        names = {
            "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj",
            "feed_forward.w2": "mlp.down_proj", "feed_forward.w3": "mlp.up_proj",
            "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
        }  # fmt: skip
        state |= {f"layers.{n}.{meta}.weight": llama.layer(n, hf) for meta, hf in names.items()}
        state[f"layers.{n}.attention.wq.weight"] = _interleaved(llama.heads(n, "q"))
        state[f"layers.{n}.attention.wk.weight"] = _interleaved(llama.heads(n, "k"))
    return state


def _write(
    folder: Path, llama: TinyLlama, ranks: int = 1, embedding_axis: int = 0, is_tied: bool = False
) -> Path:
    folder.mkdir()
    for rank in range(ranks):
        part = {}
        for name, value in _state(llama, is_tied).items():
            kind = name.split(".")[-2] if "." in name else name
            axis = 0 if kind in SPLIT_BY_ROWS else 1 if kind in SPLIT_BY_COLUMNS else None
            axis = embedding_axis if kind == "tok_embeddings" else axis
            part[name] = (value if axis is None else value.chunk(ranks, axis)[rank]).clone()
        torch.save(part, folder / f"consolidated.{rank:02d}.pth")
    params = {
        "dim": HIDDEN, "n_layers": LAYERS, "n_heads": HEADS, "vocab_size": -1, "multiple_of": 16, "norm_eps": 1e-5,
        "rope_theta": 5000.0, "n_kv_heads": llama.kv_heads,
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(params))
    return folder


@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize(("ranks", "embedding_axis"), [(1, 0), (2, 0), (2, 1)])
def test_transformers_computes_the_same(
    tmp_path: Path, kv_heads: int, ranks: int, embedding_axis: int
) -> None:
    llama = TinyLlama.make(kv_heads)
    folder = _write(tmp_path / "meta", llama, ranks, embedding_axis)
    assert_imported(llama, read_meta(folder, max_position_embeddings=64), folder, tmp_path)


def test_a_tied_embedding(tmp_path: Path) -> None:
    llama = TinyLlama.make(is_tied=True)
    folder = _write(tmp_path / "absent", llama, is_tied=True)
    assert_imported(llama, read_meta(folder, max_position_embeddings=64), folder, tmp_path / "a")
    folder = _write(tmp_path / "stored_twice", llama)
    assert_imported(llama, read_meta(folder, max_position_embeddings=64), folder, tmp_path / "b")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make())
    (folder / "tokenizer.model").write_bytes(b"model")
    command = ["from-meta", "--input", str(folder), "--output", str(tmp_path / "out")]
    assert run_verb("convert", command, program="p") == 2
    assert "--max-position-embeddings (Llama 1: 2048" in capsys.readouterr().err
    assert run_verb("convert", [*command, "--max-position-embeddings", "64"], program="p") == 0
    assert (tmp_path / "out/iter_0000000/hf/tokenizer.model").read_bytes() == b"model"


def _change(folder: Path, rank: int, **changes: torch.Tensor | None) -> None:
    path = folder / f"consolidated.{rank:02d}.pth"
    state = torch.load(path, weights_only=True) | {name.replace("__", "."): v for name, v in changes.items()}
    torch.save({name: value for name, value in state.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"layers__1__attention__wq__weight": None},
            r"only some ranks hold layers\.1\.attention\.wq\.weight",
        ),
        ({"norm__weight": torch.zeros(HIDDEN)}, r"norm\.weight should be the same on all ranks"),
        ({"tok_embeddings__weight": torch.tensor(1.0)}, r"tok_embeddings\.weight is a single number"),
        ({"output__weight": torch.zeros(7, HIDDEN)}, r"lm_head\.weight is \(27, 32\)"),
        ({"output__weight": torch.zeros(7, 5)}, r"parts of shapes \(20, 32\), \(7, 5\)"),
        ({"norm__weight": torch.zeros(HIDDEN, dtype=torch.int8)}, r"norm\.weight should be"),
    ],
)
def test_tensors_of_another_model_are_refused(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], complaint: str
) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make(), ranks=2)
    _change(folder, 1, **changes)
    with pytest.raises(ConversionError, match=complaint):
        import_foreign(read_meta(folder, max_position_embeddings=64), folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


def test_what_is_left_over_is_named(tmp_path: Path) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make())
    _change(folder, 0, layers__0__attention__wq__bias=torch.zeros(HIDDEN))
    with pytest.raises(
        ConversionError, match=r"not expected in a Llama model: layers\.0\.attention\.wq\.bias"
    ):
        read_meta(folder, max_position_embeddings=64)
    (folder / "consolidated.00.pth").rename(folder / "consolidated.01.pth")
    with pytest.raises(ConversionError, match=r"found consolidated\.01\.pth"):
        read_meta(folder)


def test_scaled_rope_needs_its_factor(tmp_path: Path) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make())
    params = json.loads((folder / "params.json").read_text()) | {"use_scaled_rope": True}
    (folder / "params.json").write_text(json.dumps(params))
    with pytest.raises(ConversionError, match=r"--rope-scaling-factor \(Llama 3\.1 and 3\.3: 8"):
        read_meta(folder, max_position_embeddings=64)
    _, config = read_meta(folder, max_position_embeddings=64, rope_scaling_factor=32.0)
    assert (config["rope_scaling"]["rope_type"], config["rope_scaling"]["factor"]) == ("llama3", 32.0)


def _scaled(frequency: float, factor: float, high: float) -> float:
    """``apply_scaling`` of Meta's llama3/model.py, for one frequency."""
    wavelength = 2 * math.pi / frequency
    if wavelength < 8192 / high:
        return frequency
    if wavelength > 8192:
        return frequency / factor
    smooth = (8192 / wavelength - 1) / (high - 1)
    return (1 - smooth) * frequency / factor + smooth * frequency


@pytest.mark.parametrize(("factor", "high"), [(8.0, None), (32.0, 4.0), (16.0, 2.5)])
def test_scaled_rope_is_metas(tmp_path: Path, factor: float, high: float | None) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make())
    scaling = {"use_scaled_rope": True, "rope_scaling_factor": factor, "rope_theta": 500_000.0}
    params = json.loads((folder / "params.json").read_text()) | scaling
    (folder / "params.json").write_text(
        json.dumps(params | ({} if high is None else {"rope_high_freq_factor": high}))
    )
    found = imported_frequencies(read_meta(folder, max_position_embeddings=64), folder, tmp_path)
    plain = [500_000.0 ** (-2 * i / HEAD_SIZE) for i in range(HEAD_SIZE // 2)]
    expected = [_scaled(frequency, factor, high or 4.0) for frequency in plain]
    kinds = [expected[0] / plain[0], expected[-1] / plain[-1]]
    assert kinds == pytest.approx([1, 1 / factor])  # not all are scaled alike
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_kv_heads_that_several_ranks_repeat(tmp_path: Path, kv_heads: int) -> None:
    llama = TinyLlama.make(kv_heads)
    folder = _write(tmp_path / "meta", llama, ranks=4)
    for rank in range(4):
        for n in range(LAYERS):
            head = rank * kv_heads // 4
            keys, values = (llama.heads(n, which)[head] for which in "kv")
            _change(
                folder, rank, **{f"layers__{n}__attention__wk__weight": _interleaved([keys])},
                **{f"layers__{n}__attention__wv__weight": values.clone()},
            )  # fmt: skip
    assert_imported(llama, read_meta(folder, max_position_embeddings=64), folder, tmp_path)
    _change(folder, 1, layers__2__attention__wv__weight=torch.zeros(HEAD_SIZE, HIDDEN))
    neighbours = "all" if kv_heads == 1 else "each 2 neighbouring"
    with pytest.raises(
        ConversionError, match=rf"layers\.2\.attention\.wv\.weight .* same on {neighbours} ranks"
    ):
        read_meta(folder, max_position_embeddings=64)


def test_kv_heads_that_do_not_divide_among_ranks_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make(2), ranks=4)
    (folder / "consolidated.03.pth").unlink()
    with pytest.raises(ConversionError, match=r"2 KV heads do not divide among 3 consolidated"):
        read_meta(folder, max_position_embeddings=64)


def test_the_command_rounds_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llama = TinyLlama.make()
    folder = _write(tmp_path / "meta", llama, ranks=2)
    command = ["from-meta", "--input", str(folder), "--output", str(tmp_path / "out"), "--dtype", "bf16"]
    arguments = [*command, "--max-position-embeddings", "64", "--verify"]
    assert run_verb("convert", arguments, program="p") == 0
    said = capsys.readouterr().out
    assert re.search(r"verified: 39 tensors .* equal by SHA-256, 39 of them after the same rounding", said)
    assert "not compared: logits, as transformers cannot read" in said
    export_hf(tmp_path / "out", tmp_path / "hf")
    for name, value in load_file(tmp_path / "hf" / "model.safetensors").items():
        assert torch.equal(value, llama[name].bfloat16()), name


def test_verify_finds_a_changed_weight(tmp_path: Path) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make())
    source, config = read_meta(folder, max_position_embeddings=64)
    import_foreign((source, config), folder, tmp_path / "out")
    assert compare_model(source, config, folder, tmp_path / "out", "checkpoint").tensors == 39
    _change(folder, 0, layers__1__feed_forward__w2__weight=torch.zeros(HIDDEN, FFN))
    source, config = read_meta(folder, max_position_embeddings=64)
    with pytest.raises(ConversionError, match=r"layers\.1\.mlp\.down_proj\.weight differs"):
        compare_model(source, config, folder, tmp_path / "out", "checkpoint")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_hostile_file_runs_nothing(tmp_path: Path, is_zip: bool) -> None:
    folder = _write(tmp_path / "meta", TinyLlama.make())
    content = {"norm.weight": Hostile(tmp_path / "trace")}
    torch.save(content, folder / "consolidated.00.pth", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ConversionError, match=r"consolidated\.00\.pth: refused.*GLOBAL"):
        read_meta(folder, max_position_embeddings=64)
    assert not (tmp_path / "trace").exists()
