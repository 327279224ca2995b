"""Refuse a checkpoint that would run code when torch or megatron-core opens it.

A ``torch_dist`` folder holds three kinds of pickle: ``.metadata`` (read with plain ``pickle.load`` by torch,
and so by megatron-core), ``common.pt``, and the entries inside ``*.distcp``. ``verify`` reads the first two
without giving them anything to call, so that what opens them afterwards is safe too. Its docstring says what
it promises and what not.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch

from megatron_ext.errors import CheckpointError

BACKENDS = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
# megatron-core's name of a pickled object, never of a tensor: key/shard_<index>_<count>, with dots where it
# has more than one dimension.
_OBJECT_KEY = re.compile(r".+/shard_\d+(\.\d+)*_\d+(\.\d+)*")

_DCP = "torch.distributed.checkpoint"
# Data classes, enumerations, paths, and one look-up in a table of layouts: constructing these, or setting
# their attributes, runs nothing of the file's choosing.
_ALLOWED_GLOBALS: dict[str, frozenset[str]] = {
    f"{_DCP}.metadata": frozenset(
        {
            "Metadata",
            "MetadataIndex",
            "TensorStorageMetadata",
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "TensorProperties",
            "StorageMeta",
            "_MEM_FORMAT_ENCODING",
        }
    ),
    f"{_DCP}.filesystem": frozenset({"_StorageInfo", "_StoragePrefix"}),
    f"{_DCP}.planner": frozenset({"SavePlan", "WriteItem", "WriteItemType", "TensorWriteData"}),
    "torch.serialization": frozenset({"_get_layout"}),
    "torch": frozenset(
        {"Size"} | {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    ),
    "pathlib": frozenset({"PosixPath"}),
    "pathlib._local": frozenset({"PosixPath"}),
}
_BAD_PICKLE = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    RecursionError,
)


def verify(folder: Path) -> None:
    """Check that opening the checkpoint in ``folder`` runs no code but torch's and megatron-core's own.

    After it returns, and as long as nobody changes the files:

    - unpickling ``.metadata`` builds torch's checkpoint data classes and nothing else; each of its entries
      lies inside a file of this folder;
    - ``common.pt`` holds only what ``torch.load(weights_only=True)`` accepts;
    - ``metadata.json`` names the ``torch_dist`` and ``torch`` back ends: megatron-core uses no other reader;
    - only a key of the form ``…/shard_0_4`` can be a pickled object. Every other entry is a tensor, and torch
      reads those with ``weights_only=True``. (Without this rule a file could answer the request for a weight
      with a pickle, which torch opens with ``weights_only=False``.)

    What it does not promise: objects such as ``…_extra_state/shard_0_4`` are not looked into, and torch's
    ``DefaultLoadPlanner``, which megatron-core's derives from, unpickles with ``weights_only=False`` those
    that are asked for. So ask for none: drop every ``ShardedObject`` from the state dict that is given to
    ``dist_checkpointing.load``.

    Raises:
        CheckpointError: a file is missing or damaged, or names something to call that is not on the list.
    """
    _verify_backends(folder / "metadata.json")
    metadata = _read_inert(folder / ".metadata")
    _verify_entries(metadata, folder)
    _verify_common(folder / "common.pt")


def _verify_backends(path: Path) -> None:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; {path.parent} is not a torch_dist checkpoint") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if found != BACKENDS:
        raise CheckpointError(f"{path}: back ends {found} are not supported; expected {BACKENDS}")


def _verify_common(path: Path) -> None:
    try:
        common = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; the checkpoint is incomplete") from error
    except (*_BAD_PICKLE, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors and plain values: {reason}"
        ) from error
    if not isinstance(common, dict):
        raise CheckpointError(f"{path}: holds a {type(common).__name__}, not a dict")


class _InertType(type):
    """Type of the stand-ins. A pickle that sets the state of a *class* wants to change code: refused."""

    @property
    def __setstate__(cls) -> NoReturn:  # noqa: PLE0302 - a property, so that looking it up is what raises
        raise pickle.UnpicklingError(f"changes the class {cls.__name__}")


class _Inert(metaclass=_InertType):
    """Stands for an instance of an allowed class; keeps what the pickle says of it and does nothing."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.arguments = (*arguments, *keywords.values())
        self.attributes: dict[str, Any] = {}

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> "_Inert":
        inert = super().__new__(cls)
        inert.arguments = ()
        inert.attributes = {}
        return inert

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            if not all(isinstance(key, str) and not key.startswith("__") for key in state):
                raise pickle.UnpicklingError(f"sets a special attribute of {type(self).__name__}")
            self.attributes.update(state)
        elif type(self).__name__ != "TensorProperties":
            raise pickle.UnpicklingError(f"sets the slots of {type(self).__name__}")


class _InertUnpickler(pickle.Unpickler):
    """Follows the pickle step by step as pickle.load would, with stand-ins where that would import."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._classes: dict[tuple[str, str], _InertType] = {}

    def find_class(self, module_name: str, global_name: str, /) -> _InertType:
        """The stand-in for an allowed global."""
        if global_name not in _ALLOWED_GLOBALS.get(module_name, frozenset()):
            raise pickle.UnpicklingError(
                f"refers to {module_name}.{global_name}, which checkpoints have no use for"
            )
        key = (module_name, global_name)
        if key not in self._classes:
            self._classes[key] = _InertType(global_name, (_Inert,), {})
        return self._classes[key]


def _read_inert(path: Path) -> Mapping[str, Any]:
    """Attributes of the Metadata object in ``path``."""
    try:
        with path.open("rb") as stream:
            root = _InertUnpickler(stream).load()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: missing; {path.parent} is not a complete torch_dist checkpoint"
        ) from error
    except _BAD_PICKLE as error:
        raise CheckpointError(
            f"{path}: refused, this file is damaged or was made to run code: {error}"
        ) from error
    if not isinstance(root, _Inert) or type(root).__name__ != "Metadata":
        raise CheckpointError(f"{path}: holds no checkpoint metadata")
    return root.attributes


def _verify_entries(metadata: Mapping[str, Any], folder: Path) -> None:
    path = folder / ".metadata"
    entries, storage = metadata.get("state_dict_metadata"), metadata.get("storage_data")
    if not isinstance(entries, dict) or not isinstance(storage, dict):
        raise CheckpointError(f"{path}: lists no entries")
    for key, entry in entries.items():
        kind = type(entry).__name__
        is_object = kind == "BytesStorageMetadata"
        if not isinstance(key, str) or (is_object and _OBJECT_KEY.fullmatch(key) is None):
            raise CheckpointError(f"{path}: refused, {key!r} is a pickled object where a tensor belongs")
        if not is_object and kind != "TensorStorageMetadata":
            raise CheckpointError(f"{path}: {key!r} is a {kind}, neither a tensor nor an object")
    sizes: dict[str, int] = {}
    for info in storage.values():
        _verify_location(info, folder, sizes)


def _verify_location(info: object, folder: Path, sizes: dict[str, int]) -> None:
    path = folder / ".metadata"
    if not isinstance(info, _Inert) or type(info).__name__ != "_StorageInfo":
        raise CheckpointError(f"{path}: an entry has no place in a file")
    name, offset, length = (info.attributes.get(key) for key in ("relative_path", "offset", "length"))
    if not (isinstance(name, str) and isinstance(offset, int) and isinstance(length, int)):
        raise CheckpointError(f"{path}: an entry has no place in a file")
    if name != Path(name).name or info.attributes.get("transform_descriptors"):
        raise CheckpointError(f"{path}: refused, an entry lies outside the folder or is encoded: {name!r}")
    if name not in sizes:
        try:
            sizes[name] = (folder / name).stat().st_size
        except FileNotFoundError as error:
            raise CheckpointError(f"{folder / name}: missing; the checkpoint is incomplete") from error
    if not 0 <= offset <= offset + length <= sizes[name]:
        raise CheckpointError(
            f"{folder / name}: {sizes[name]:,} bytes, but an entry ends at {offset + length:,}"
        )
