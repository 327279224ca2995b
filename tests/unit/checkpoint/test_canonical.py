import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from megatron_ext.checkpoint.canonical import CanonicalReader, CanonicalWriter, canonical_shapes
from megatron_ext.checkpoint.trust import BACKENDS
from megatron_ext.config.sections import ModelConfig
from megatron_ext.errors import CheckpointError

SHAPES = {"a.weight": (3, 4, 5), "b.weight": (7,), "c.weight": (6, 2)}


def _values(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}


def _write(folder: Path, values: dict[str, torch.Tensor]) -> None:
    with CanonicalWriter(folder, {key: value.shape for key, value in values.items()}) as writer:
        for layer in (2, 0, 1):  # in any order
            writer.add("a.weight", values["a.weight"][layer], layer)
        writer.add("b.weight", values["b.weight"])
        writer.add("c.weight", values["c.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_written_is_read_back(tmp_path: Path, dtype: torch.dtype) -> None:
    values = {key: value.to(dtype) for key, value in _values().items()}
    _write(tmp_path, values)
    reader = CanonicalReader(tmp_path)
    assert sorted(reader.keys()) == sorted(SHAPES)
    for key, value in values.items():
        assert reader.dtype(key) == dtype
        assert reader.shape(key) == SHAPES[key]
        assert torch.equal(reader.read(key), value)
    assert torch.equal(reader.read_layer("a.weight", 1), values["a.weight"][1])


def test_any_box_equals_numpy_slicing(tmp_path: Path) -> None:
    values = _values()
    _write(tmp_path, values)
    reader = CanonicalReader(tmp_path)
    choose = np.random.default_rng(0)
    for _ in range(100):
        offsets = [int(choose.integers(size)) for size in SHAPES["a.weight"]]
        sizes = [
            int(choose.integers(1, size - at + 1))
            for size, at in zip(SHAPES["a.weight"], offsets, strict=True)
        ]
        box = tuple(slice(at, at + n) for at, n in zip(offsets, sizes, strict=True))
        expected = values["a.weight"].numpy()[box]
        np.testing.assert_array_equal(reader.read_slice("a.weight", offsets, sizes).numpy(), expected)
        out = torch.full(sizes, torch.nan)
        assert reader.read_slice("a.weight", offsets, sizes, out=out) is out
        np.testing.assert_array_equal(out.numpy(), expected)


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
def test_torchs_own_records_are_read_into_memory_that_is_there(tmp_path: Path, kind: torch.dtype) -> None:
    """Neither a transposed tensor, as torch saves it, nor one of another type is what the file's bytes say."""
    values = torch.arange(12, dtype=kind).view(3, 4)
    state = {"plain": values, "turned": values.T, "view": torch.arange(20, dtype=kind)[7:13]}
    save(state, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    (tmp_path / "metadata.json").write_text(json.dumps(BACKENDS))
    torch.save({}, tmp_path / "common.pt")
    reader = CanonicalReader(tmp_path)
    for key, value in state.items():
        out = torch.empty(value.shape)
        reader.read_slice(key, [0] * value.dim(), value.shape, out=out)
        assert torch.equal(out, value.float())


def test_a_record_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, _values())
    reader = CanonicalReader(tmp_path)
    data = tmp_path / "__0_0.distcp"
    os.truncate(data, data.stat().st_size - 700)
    out = torch.empty(SHAPES["c.weight"])
    with pytest.raises(CheckpointError, match=r"c\.weight at byte .* is damaged"):
        reader.read_slice("c.weight", [0] * out.dim(), out.shape, out=out)


def test_a_view_is_written_without_the_rest_of_its_storage(tmp_path: Path) -> None:
    large = torch.zeros(1_000_000)
    with CanonicalWriter(tmp_path, {"x": (10,)}) as writer:
        writer.add("x", large[5:15])
    assert (tmp_path / "__0_0.distcp").stat().st_size < 10_000


def test_a_tensor_that_is_not_written_leaves_no_metadata(tmp_path: Path) -> None:
    with (
        pytest.raises(CheckpointError, match="not written in full: a"),
        CanonicalWriter(tmp_path, {"a": (2, 3)}) as w,
    ):
        w.add("a", torch.zeros(3), layer=1)
    assert not (tmp_path / ".metadata").exists()


@pytest.mark.parametrize(
    ("tensor", "layer", "complaint"),
    [
        (torch.zeros(4), 0, "does not fit"),
        (torch.zeros(3), 2, "does not fit"),
        (torch.zeros(3), 1, "comes twice"),
        (torch.zeros(3, dtype=torch.float16), 0, "dtype"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, tensor: torch.Tensor, layer: int, complaint: str
) -> None:
    with CanonicalWriter(tmp_path, {"a": (2, 3)}) as writer:
        writer.add("a", torch.zeros(3), layer=1)
        with pytest.raises(CheckpointError, match=complaint):
            writer.add("a", tensor, layer)
        writer.add("a", torch.zeros(3), layer=0)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    _write(tmp_path, _values())
    with pytest.raises(CheckpointError, match=r"no tensor d\.weight"):
        CanonicalReader(tmp_path).read("d.weight")


def test_shapes_of_llama_2_7b() -> None:
    model = ModelConfig(
        num_layers=32, hidden_size=4096, ffn_hidden_size=11008, num_attention_heads=32, vocab_size=32000
    )
    total = sum(torch.Size(shape).numel() for shape in canonical_shapes(model).values())
    assert total == 6_738_415_616  # Llama 2 7B, published
    tied = model.model_copy(update={"untie_embeddings_and_output_weights": False})
    assert total - sum(torch.Size(shape).numel() for shape in canonical_shapes(tied).values()) == 32000 * 4096
