"""Process of test_fused_compile.py: compile every fused kernel to machine code, for GPUs that need not be there.

Usage: compile_worker.py CAPABILITY. Triton prints what its assembler says, where it is asked to.
"""

import sys
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from megatron_ext.kernels.adamw import BLOCK, QUIET_NAN
from megatron_ext.kernels.fused import adamw, cross_entropy, rms_norm, rope, swiglu
from megatron_ext.kernels.fused.tiles import row_tile, warps

TYPES: dict[str, Any] = {"eps": "fp32", "labels": "*i64"} | dict.fromkeys(
    ("rows", "size", "width", "real", "first", "batch", "groups", "heads_per_group"), "i32"
)
FLOATS = ("angles", "largest", "sum_exp", "predicted", "log_sum_exp", "grad_losses", "grad_weight_parts")
TYPES |= dict.fromkeys(("query_strides", "key_strides", "value_strides"), ("i32", "i32", "i32"))
TYPES |= dict.fromkeys(FLOATS, "*fp32")
TYPES |= {"blocks": "*i64", "grad_scale": "*fp32"} | dict.fromkeys(
    ("keep", "step_size", "correction2", "one_minus_beta1", "beta2", "one_minus_beta2"), "fp32"
)
# Gradients, master weights and moments at 18, 12 and 10 bytes a parameter.
ADAMW_TYPES = (("*fp32", "*fp32", "*fp32"), ("*bf16", "*fp32", "*bf16"), ("*bf16", "*i16", "*bf16"))


def kernels() -> Iterator[tuple[Any, int, dict[str, Any]]]:
    """Each kernel with its warps and constants, at the shapes of Llama 2, 7B or 70B; an argument of 1 is one, too."""
    for adds, hidden_size in ((False, 4096), (True, 8192)):
        rows, columns = row_tile(hidden_size)
        constants = {"ADDS": adds, "ROWS": rows, "COLUMNS": columns}
        yield rms_norm._forward_kernel, warps(rows * columns), constants
        yield rms_norm._backward_kernel, warps(rows * columns), constants
    for one in ({}, {"heads_per_group": 1, "batch": 1}):
        constants = {"HEADS": rope.HEADS_PER_PROGRAM, "HALF": 64, **one}
        yield rope._forward_kernel, 4, constants
        yield rope._backward_kernel, 4, constants
    block = {"COLUMNS": swiglu.LARGEST_BLOCK}
    yield swiglu._forward_kernel, warps(swiglu.LARGEST_BLOCK), block
    yield swiglu._backward_kernel, warps(swiglu.LARGEST_BLOCK), block
    block = {"COLUMNS": cross_entropy.LARGEST_BLOCK}
    yield cross_entropy._statistics_kernel, warps(cross_entropy.LARGEST_BLOCK), block
    yield cross_entropy._gradient_kernel, warps(cross_entropy.LARGEST_BLOCK), block


def adamw_kernels() -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The constants and types of the AdamW kernel for each choice of states."""
    for gradients, master, moments in ADAMW_TYPES:
        own = {"REMAINDER": master == "*i16", "OWN_MASTER": False, "SCALED": True}
        types = {"gradients": gradients, "master": master, "exp_avg": moments, "exp_avg_sq": moments}
        yield own | {"NAN_BITS": QUIET_NAN, "SIZE": BLOCK}, types


def compile_for(
    capability: int, kernel: Any, num_warps: int, constants: dict[str, Any], own: dict[str, str]
) -> None:
    """Down to machine code; ``own`` types of arguments go before those of their names."""
    names = kernel.arg_names
    known = TYPES | own
    types = {name: "constexpr" if name in constants else known.get(name, "*bf16") for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, types, constexprs=values)
    triton.compile(source, GPUTarget("cuda", capability, 32), options={"num_warps": num_warps})


if __name__ == "__main__":
    for kernel, num_warps, constants in kernels():
        compile_for(int(sys.argv[1]), kernel, num_warps, constants, {})
    for constants, own in adamw_kernels():
        compile_for(int(sys.argv[1]), adamw._adamw_kernel, 8, constants, own)
