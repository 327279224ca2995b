"""GPT-NeoX's layouts, written here as its transformer.py projects and DeepSpeed names the files."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_llama import HEADS, HIDDEN, LAYERS, VOCABULARY, Hostile, TinyLlama, assert_imported

from megatron_ext.cli.main import run_verb
from megatron_ext.convert.foreign.importing import import_foreign
from megatron_ext.convert.foreign.neox import read_neox
from megatron_ext.errors import ConversionError

PADDED = 48


def _settings(llama: TinyLlama, mlp: str) -> dict[str, Any]:
    return {
        "num-layers": LAYERS, "hidden-size": HIDDEN, "num_attention_heads": HEADS, "num-kv-heads": llama.kv_heads,
        "max-position-embeddings": 64, "norm": "rmsnorm", "rms_norm_epsilon": 1e-5, "pos-emb": "rotary",
        "rotary-emb-base": 5000, "activation": "swiglu" if mlp == "linear1" else "silu",
        "no-weight-tying": not llama.module.config.tie_word_embeddings,
    }  # fmt: skip


def _padded(matrix: torch.Tensor) -> torch.Tensor:
    return torch.cat([matrix, torch.full((PADDED - VOCABULARY, HIDDEN), 9.0)])


def _qkv(llama: TinyLlama, layer: int, layout: str | None, rank: int, ranks: int) -> torch.Tensor:
    """What one rank's projection computes, row by row."""
    queries, keys, values = (torch.cat(llama.heads(layer, w)).chunk(ranks)[rank] for w in "qkv")
    if layout == "concatenated":
        return torch.cat([queries, keys, values])
    # One block for each query head; with grouped heads a block has only its share of the keys' rows.
    blocks = [matrix.chunk(HEADS // ranks) for matrix in (queries, keys, values)]
    return torch.cat([rows for block in zip(*blocks, strict=True) for rows in block])


def _sequence(
    llama: TinyLlama, layout: str | None, mlp: str, rank: int, ranks: int
) -> dict[str, torch.Tensor]:
    """One rank's tensors, by number in GPT-NeoX's sequence of layers and name."""
    state = {
        "0.word_embeddings.weight": _padded(llama["model.embed_tokens.weight"]).chunk(ranks)[rank],
        f"{LAYERS + 3}.norm.scale": llama["model.norm.weight"],
    }
    if not llama.module.config.tie_word_embeddings:
        state[f"{LAYERS + 4}.final_linear.weight"] = _padded(llama["lm_head.weight"]).chunk(ranks)[rank]
    for layer in range(LAYERS):
        gate, up = (llama.layer(layer, f"mlp.{w}_proj").chunk(ranks)[rank] for w in ("gate", "up"))
        down = llama.layer(layer, "mlp.down_proj").chunk(ranks, 1)[rank]
        names = {
            "attention.query_key_value.weight": _qkv(llama, layer, layout, rank, ranks),
            "attention.dense.weight": llama.layer(layer, "self_attn.o_proj").chunk(ranks, 1)[rank],
            "attention.rotary_emb.inv_freq": torch.ones(4),
            "input_layernorm.scale": llama.layer(layer, "input_layernorm"),
            "post_attention_layernorm.scale": llama.layer(layer, "post_attention_layernorm"),
        }
        if mlp == "linear1":  # x, gate = linear1(h).chunk(2); silu(gate) * x
            names |= {"mlp.linear1.weight": torch.cat([up, gate]), "mlp.linear2.weight": down}
        else:  # w2(silu(w1(h)) * w3(h))
            names |= {"mlp.w1.weight": gate, "mlp.w3.weight": up, "mlp.w2.weight": down}
        state |= {f"{layer + 2}.{name}": value for name, value in names.items()}
    return {name: value.clone() for name, value in state.items()}


def _write(
    folder: Path, llama: TinyLlama, *, ranks: int = 1, layout: str | None = None, mlp: str = "linear1",
    pipeline: bool = False, **client: Any,
) -> Path:  # fmt: skip
    step = folder / "global_step20"
    (step / "configs").mkdir(parents=True)
    (step / "configs/model.yml").write_text(yaml.safe_dump(_settings(llama, mlp)))
    (step / "configs/data.yml").write_text("data-path: text\nhidden-size: 32\n")
    (folder / "latest").write_text("global_step20")
    for rank in range(ranks):
        state = _sequence(llama, layout, mlp, rank, ranks)
        module = None if pipeline else {f"sequential.{name}": value for name, value in state.items()}
        extra = {"iteration": 20, "param_shapes": [torch.Size([2])], "sparse": set(), **client}
        torch.save({"module": module, **extra}, step / f"mp_rank_{rank:02d}_model_states.pt")
        for number in {name.partition(".")[0] for name in state} if pipeline else ():
            own = {n.partition(".")[2]: value for n, value in state.items() if n.partition(".")[0] == number}
            torch.save(own, step / f"layer_{int(number):02d}-model_{rank:02d}-model_states.pt")
    return folder


@pytest.mark.parametrize(("kv_heads", "layout"), [(4, None), (2, "concatenated"), (2, "by-query-head")])
@pytest.mark.parametrize(
    "form",
    [
        {"ranks": 1, "pipeline": False, "mlp": "linear1"},
        {"ranks": 2, "pipeline": False, "mlp": "w1"},
        {"ranks": 2, "pipeline": True, "mlp": "linear1"},
        {"ranks": 1, "pipeline": True, "mlp": "w1"},
    ],
)
def test_transformers_computes_the_same(
    tmp_path: Path, kv_heads: int, layout: Any, form: dict[str, Any]
) -> None:
    llama = TinyLlama.make(kv_heads)
    folder = _write(tmp_path / "in", llama, layout=layout, **form)
    model = read_neox(folder, gqa_layout=layout, vocab_size=VOCABULARY)
    assert_imported(llama, model, folder, tmp_path)


def test_a_tied_embedding(tmp_path: Path) -> None:
    llama = TinyLlama.make(kv_heads=4, is_tied=True)
    folder = _write(tmp_path / "in", llama, pipeline=True)
    assert_imported(llama, read_neox(folder, vocab_size=VOCABULARY), folder, tmp_path)


def test_the_command_asks_for_what_files_do_not_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _write(tmp_path / "in", TinyLlama.make(), layout="concatenated")
    command = ["from-neox", "--input", str(folder), "--output", str(tmp_path / "out")]
    assert run_verb("convert", command, program="p") == 2
    assert "--gqa-layout concatenated (trained with" in capsys.readouterr().err
    command += ["--gqa-layout", "concatenated"]
    assert run_verb("convert", command, program="p") == 2
    assert "48 rows" in capsys.readouterr().err
    assert run_verb("convert", [*command, "--vocab-size", "40"], program="p") == 0
    assert (tmp_path / "out/iter_0000000/manifest.json").is_file()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"norm": "layernorm"}, "not a Llama: norm='layernorm'"),
        ({"num-kv-heads": -2}, "lacks num_kv_heads, or it is not a positive integer"),
        ({"rotary-pct": 0.25}, r"not a Llama: rotary_pct=0\.25"),
        ({"activation": "silu"}, "linear1 is there, which does not go with activation 'silu'"),
        ({"hidden-size": 64}, "hidden-size is 64, and 32 in another file"),
        ({"num-layers": 5}, r"6\.attention\.query_key_value\.weight is missing"),
        ({"no-weight-tying": False}, r"not expected in a Llama model: 8\.final_linear\.weight"),
    ],
)
def test_settings_of_another_model_are_refused(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    llama = TinyLlama.make(kv_heads=4)
    folder = _write(tmp_path / "in", llama)
    settings = _settings(llama, "linear1") | changes
    (folder / "global_step20/configs/model.yml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConversionError, match=complaint):
        import_foreign(read_neox(folder, vocab_size=VOCABULARY), folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "in", TinyLlama.make(kv_heads=4), ranks=2, pipeline=True)
    step = folder / "global_step20"
    (step / "layer_03-model_01-model_states.pt").unlink()
    with pytest.raises(ConversionError, match=r"only some ranks hold 3\.attention"):
        read_neox(folder, vocab_size=VOCABULARY)
    for path in step.glob("layer_*-model_00-*"):
        path.unlink()
    with pytest.raises(ConversionError, match=r"found ranks \[1\]"):
        read_neox(folder, vocab_size=VOCABULARY)
    for name in ("../elsewhere", "..", "", "global_step30"):
        (folder / "latest").write_text(name)
        with pytest.raises(ConversionError, match=f"names '{name}', which is not a checkpoint in"):
            read_neox(folder)


@pytest.mark.parametrize("pipeline", [True, False])
def test_a_hostile_file_runs_nothing(tmp_path: Path, pipeline: bool) -> None:
    hostile = Hostile(tmp_path / "trace")
    folder = _write(tmp_path / "in", TinyLlama.make(kv_heads=4), pipeline=pipeline, hook=hostile)
    if pipeline:
        torch.save(
            {"norm.scale": hostile}, folder / f"global_step20/layer_{LAYERS + 3:02d}-model_00-model_states.pt"
        )
    with pytest.raises(ConversionError, match=r"model_states\.pt: refused.*GLOBAL"):
        read_neox(folder, vocab_size=VOCABULARY)
    assert not (tmp_path / "trace").exists()
