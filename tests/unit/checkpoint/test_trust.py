"""Hostile checkpoints: each would run code, or read elsewhere, if megatron-core opened it unchecked."""

import io
import json
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from megatron_ext.checkpoint.canonical import CanonicalReader, CanonicalWriter
from megatron_ext.checkpoint.trust import verify
from megatron_ext.errors import CheckpointError

KEY = "decoder.final_layernorm.weight"


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    path.mkdir()
    with CanonicalWriter(path, {KEY: (8,)}) as writer:
        writer.add(KEY, torch.arange(8.0))
    return path


def _metadata(folder: Path) -> Metadata:
    return FileSystemReader(folder).read_metadata()


def _rewrite(folder: Path, change: Callable[[Metadata], None]) -> None:
    metadata = _metadata(folder)
    change(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def _refused(folder: Path, complaint: str) -> None:
    for open_it in (verify, CanonicalReader):
        with pytest.raises(CheckpointError, match=complaint):
            open_it(folder)


def test_a_good_checkpoint_passes_with_any_pickle_protocol(folder: Path) -> None:
    metadata = _metadata(folder)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (folder / ".metadata").write_bytes(pickle.dumps(metadata, protocol))
        assert torch.equal(CanonicalReader(folder).read(KEY), torch.arange(8.0))


def test_every_class_that_torch_writes_is_allowed(folder: Path, tmp_path: Path) -> None:
    def enrich(metadata: Metadata) -> None:
        metadata.storage_meta = StorageMeta(checkpoint_id=tmp_path, save_id="a", modules=["b"])
        metadata.state_dict_metadata["x/shard_0_4"] = BytesStorageMetadata()
        metadata.planner_data = {KEY: (KEY,)}

    _rewrite(folder, enrich)
    verify(folder)


def test_metadata_that_calls_something_is_refused_and_not_called(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    _rewrite(folder, lambda metadata: metadata.state_dict_metadata.update({"x": Payload(mark)}))  # type: ignore[dict-item]
    _refused(folder, r"made to run code: refers to posix\.mkdir")
    assert not mark.exists()
    _metadata(folder)  # the proof that the payload is real: torch itself runs it
    assert mark.exists()


def test_a_whole_file_that_is_a_payload_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    _refused(folder, "run code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "builtins getattr", "torch load", "torch.serialization load", "functools partial",
     "torch.distributed.checkpoint.filesystem FileSystemReader", "pathlib Path.write_text"],
)  # fmt: skip
def test_globals_outside_the_list_are_refused(folder: Path, name: str) -> None:
    module, attribute = name.split(" ")
    (folder / ".metadata").write_bytes(f"c{module}\n{attribute}\n.".encode())
    _refused(folder, "refers to")


def test_a_pickle_that_changes_a_class_is_refused(folder: Path) -> None:
    """BUILD on a class sets attributes of the class itself: here it would make Metadata forget its fields."""
    code = (
        b"ctorch.distributed.checkpoint.metadata\nMetadata\n"
        b"(N}(V__reduce__\nctorch.distributed.checkpoint.metadata\nMetadata\nutb."
    )
    assert [opcode.name for opcode, _, _ in pickletools.genops(code)].count("BUILD") == 1
    (folder / ".metadata").write_bytes(code)
    _refused(folder, "changes the class Metadata")


def test_special_attributes_and_slots_are_refused(folder: Path) -> None:
    make = b"ctorch.distributed.checkpoint.metadata\nBytesStorageMetadata\n)\x81"
    (folder / ".metadata").write_bytes(make + b"}(V__setstate__\nNub.")
    _refused(folder, "special attribute")
    (folder / ".metadata").write_bytes(make + b"(N}(Va\nNutb.")
    _refused(folder, "slots")


def test_a_weight_that_is_a_pickled_object_is_refused(folder: Path, tmp_path: Path) -> None:
    """torch's load planner opens objects with weights_only=False, even when a tensor was asked for."""
    payload = io.BytesIO()
    torch.save(Payload(tmp_path / "ran"), payload)
    (folder / "__0_0.distcp").write_bytes(payload.getvalue())

    def disguise(metadata: Metadata) -> None:
        metadata.state_dict_metadata = {KEY: BytesStorageMetadata()}
        metadata.storage_data = {MetadataIndex(KEY): _StorageInfo("__0_0.distcp", 0, len(payload.getvalue()))}

    _rewrite(folder, disguise)
    _refused(folder, "is a pickled object where a tensor belongs")


def test_a_record_of_a_tensor_that_is_a_payload_is_refused(folder: Path, tmp_path: Path) -> None:
    payload = io.BytesIO()
    torch.save(Payload(tmp_path / "ran"), payload)
    (folder / "__0_0.distcp").write_bytes(payload.getvalue())
    size = len(payload.getvalue())
    _rewrite(
        folder,
        lambda m: m.storage_data.update({k: _StorageInfo("__0_0.distcp", 0, size) for k in m.storage_data}),
    )
    with pytest.raises(CheckpointError, match="damaged"):
        CanonicalReader(folder).read(KEY)
    assert not (tmp_path / "ran").exists()


def test_common_state_with_a_payload_is_refused(folder: Path, tmp_path: Path) -> None:
    torch.save({"args": Payload(tmp_path / "ran")}, folder / "common.pt")
    _refused(folder, r"common\.pt: damaged, or holds more than tensors")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../elsewhere", "/etc/hostname", "a/b"])
def test_entries_outside_the_folder_are_refused(folder: Path, name: str) -> None:
    _rewrite(folder, lambda m: m.storage_data.update({k: _StorageInfo(name, 0, 1) for k in m.storage_data}))
    _refused(folder, "outside the folder")


def test_entries_beyond_the_file_are_refused(folder: Path) -> None:
    data = folder / "__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-1])
    _refused(folder, "but an entry ends at")
    data.unlink()
    _refused(folder, "missing; the checkpoint is incomplete")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (".metadata", None, "missing"),
        (".metadata", b"", "damaged"),
        (".metadata", pickle.dumps({"a": 1}), "no checkpoint metadata"),
        ("common.pt", None, "missing"),
        ("common.pt", b"PK garbage", "damaged"),
        ("metadata.json", None, "not a torch_dist checkpoint"),
        ("metadata.json", b"{", "not JSON"),
        ("metadata.json", json.dumps({"sharded_backend": "zarr"}).encode(), "not supported"),
    ],
)
def test_missing_and_damaged_files_are_named(
    folder: Path, name: str, content: bytes | None, complaint: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    _refused(folder, rf"{name}: .*{complaint}")


def test_an_entry_of_another_kind_is_refused(folder: Path) -> None:
    def replace(metadata: Metadata) -> None:
        metadata.state_dict_metadata[KEY] = ChunkStorageMetadata(torch.Size([0]), torch.Size([8]))  # type: ignore[assignment]

    _rewrite(folder, replace)
    _refused(folder, "neither a tensor nor an object")


def test_a_tensor_that_its_files_do_not_fill_is_refused(folder: Path) -> None:
    def enlarge(metadata: Metadata) -> None:
        entry = TensorStorageMetadata(
            TensorProperties(dtype=torch.float32), torch.Size([16]), metadata.state_dict_metadata[KEY].chunks
        )
        metadata.state_dict_metadata[KEY] = entry

    _rewrite(folder, enlarge)
    with pytest.raises(CheckpointError, match="incomplete: 8 of 16 values"):
        CanonicalReader(folder).read(KEY)
