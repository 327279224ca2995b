"""Memory that conversions share between tensors, and values that are read into it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from megatron_ext.convert.safetensors_files import SafetensorsReader
from megatron_ext.convert.streaming.memory import TwoTensors
from megatron_ext.errors import ConversionError


def test_neighbours_share_memory_and_never_overlap() -> None:
    kinds = [torch.float32, torch.bfloat16, torch.float16]
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        sizes = torch.randint(1, 300, (8,), generator=generator).tolist()
        unfilled = [torch.empty(size, dtype=kinds[size % 3], device="meta") for size in sizes]
        memory = TwoTensors(unfilled)
        before = None
        for number, like in enumerate(unfilled):
            tensor = memory.like(like).fill_(number)
            assert (tensor.shape, tensor.dtype) == (like.shape, like.dtype)
            assert tensor.untyped_storage().nbytes() == tensor.nbytes
            assert before is None or bool((before == number - 1).all())
            before = tensor


def test_a_small_neighbour_leaves_its_room_to_a_large_one() -> None:
    sizes = [10**8, 10, 10**8]
    memory = TwoTensors([torch.empty(size, dtype=torch.float16, device="meta") for size in sizes])
    assert memory._memory.nbytes < 2.1e8


@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_of_the_safetensors_package_are_read_where_they_belong(
    tmp_path: Path, wanted: torch.dtype
) -> None:
    values = {name: torch.randn(9, 5).bfloat16() for name in ("b", "a")} | {"c": torch.randn(9).bfloat16()}
    save_file(values, tmp_path / "model.safetensors", metadata={"note": "é" * 7})
    source = SafetensorsReader(tmp_path)
    for name, value in values.items():
        target = torch.full((8, *value.shape[1:]), torch.nan, dtype=wanted)
        source.read_rows(name, [(7, target[:2]), (0, target[2:6]), (3, target[6:])])
        assert torch.equal(target, torch.cat([value[7:], value[:4], value[3:5]]).to(wanted))


def test_a_file_that_has_become_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4, 4)}, path)
    source = SafetensorsReader(tmp_path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ConversionError, match=r"cannot read a: the file ends at byte [\d,]+, 4 too early"):
        source.read_rows("a", [(0, torch.empty(4, 4))])


def test_a_header_that_says_something_twice_is_no_way_out_of_the_file(tmp_path: Path) -> None:
    """JSON of two minds: whichever entry counts, no byte from elsewhere becomes a weight."""
    entry = json.dumps({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})
    other = json.dumps({"dtype": "F32", "shape": [2], "data_offsets": [1 << 40, (1 << 40) + 8]})
    header = f'{{"a":{entry},"a":{other}}}'.encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ConversionError):
        SafetensorsReader(tmp_path).read_rows("a", [(0, torch.empty(2))])
