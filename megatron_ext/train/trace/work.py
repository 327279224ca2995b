"""What an operation or a kernel does: operations and bytes, from the shapes of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from megatron_ext.kernels.adamw import BLOCK
from megatron_ext.observe.profile import part_of

ATTENTION = {
    "_scaled_dot_product_flash_attention": (0, 1, 1.0),
    "_scaled_dot_product_flash_attention_backward": (1, 2, 2.5),
    "_varlen_attn": (0, 1, 1.0),
    "_varlen_attn_backward": (1, 2, 2.5),
}
"""Places of queries and keys among the arguments, and products beside the forward pass's two: see ``roofline.py``."""
OVERWRITTEN = frozenset({"zero_", "fill_", "copy_"})
"""Their first argument is written and not read."""
UPDATED = frozenset({"master", "exp_avg", "exp_avg_sq", "logits"})
"""Arguments that our kernels read and then write in place."""


@dataclass(frozen=True)
class Work:
    """Of one kernel.

    Attributes:
        kind: as ``observe/profile.py`` names it.
        flops: of products; 0 for what is elementwise.
        moved: bytes read and written, each tensor once.
    """

    kind: str
    flops: int
    moved: int


def work_of_operation(function: Any, args: Any, kwargs: Mapping[str, Any], output: Any) -> Work | None:
    """Of what torch dispatches; None if it launches nothing: views, and memory that is only allocated."""
    name = function.name().split("::")[1].split(".")[0]
    passed = dict(zip((one.name for one in function._schema.arguments), args, strict=False)) | dict(kwargs)
    written = _device_tensors(
        [passed.get(one.name) for one in function._schema.arguments if _is_written(one)]
    )
    outputs = written or _device_tensors(output)
    inputs = _device_tensors([value for argument, value in passed.items() if argument != "out"])
    if not outputs or name.startswith(("empty", "new_empty", "detach")):
        return None
    places = {tensor.untyped_storage()._cdata for tensor in inputs}
    if not written and all(tensor.untyped_storage()._cdata in places for tensor in outputs):
        return None
    read = inputs[1:] if name in OVERWRITTEN else inputs
    moved = sum(_nbytes(tensor) for tensor in [*read, *outputs])
    kind = "attention" if name in ATTENTION else part_of(function.name())
    return Work(kind, _flops(function, name, args, kwargs, output), moved)


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and bool(argument.alias_info.is_write)


def work_of_kernel(arguments: Mapping[str, Any]) -> Work:
    """Of one of our Triton kernels, by the names of its arguments.

    The blocks of a flat buffer say how much of it is updated.
    """
    values = arguments["blocks"].size(0) * BLOCK if "blocks" in arguments else None
    moved = 0
    for name, tensor in arguments.items():
        if isinstance(tensor, torch.Tensor):
            numel = tensor.numel() if values is None else min(values, tensor.numel())
            moved += numel * tensor.element_size() * (2 if name in UPDATED else 1)
    return Work(part_of("adamw" if values is not None else ""), 0, moved)


def _flops(function: Any, name: str, args: Any, kwargs: Mapping[str, Any], output: Any) -> int:
    if name in ATTENTION:
        query_at, key_at, factor = ATTENTION[name]
        return round(_causal_flops(args[query_at], args[key_at]) * factor)
    if name.startswith("addmm"):  # in place, too, and with another dtype of the output
        return int(2 * args[1].numel() * args[2].size(-1))
    formula = flop_registry.get(function._overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=output))


def _causal_flops(query: torch.Tensor, key: torch.Tensor) -> int:
    """Two products over the keys up to each query's own; of documents that are packed, as if they were one row.

    [batch, heads, seq, head_size], or [tokens, heads, head_size].
    """
    packed = query.dim() == 3
    seq_q, seq_k = (query.size(0), key.size(0)) if packed else (query.size(2), key.size(2))
    return round(4 * query.numel() * (seq_k - seq_q / 2))


def _device_tensors(values: Any) -> list[torch.Tensor]:
    leaves = tree_leaves(values)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.device.type == "meta"]


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
