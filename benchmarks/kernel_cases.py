"""What benchmarks/kernels.py measures: each operation in our kernels, in plain torch and in liger-kernel."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from megatron_ext.kernels import reference
from megatron_ext.kernels.fused.cross_entropy import VocabularyPart, cross_entropy
from megatron_ext.kernels.fused.linear_cross_entropy import linear_cross_entropy
from megatron_ext.kernels.fused.rms_norm import add_rms_norm, rms_norm
from megatron_ext.kernels.fused.rope import rope_packed
from megatron_ext.kernels.fused.swiglu import swiglu

EPS = 1e-5
LOSS_CHUNKS = 4


@dataclass(frozen=True)
class Shapes:
    """Of one micro-batch on one rank."""

    tokens: int
    hidden: int
    ffn: int
    heads: int
    vocabulary: int


LLAMA2_7B = Shapes(tokens=4096, hidden=4096, ffn=11008, heads=32, vocabulary=32000)
TINY = Shapes(tokens=6, hidden=48, ffn=20, heads=3, vocabulary=35)


@dataclass(frozen=True)
class Case:
    """One operation.

    Attributes:
        inputs: tensors it is differentiated for.
        ours: on the inputs.
        plain: the same in torch; also what is compiled, and what is right in float64.
        liger: the same in liger-kernel, where that is there and has it.
        elements: values that must be read or written, forward and backward; None where products take the time.
    """

    name: str
    inputs: tuple[torch.Tensor, ...]
    ours: Callable[..., Any]
    plain: Callable[..., Any]
    liger: Callable[..., Any] | None
    elements: int | None


def cases(shapes: Shapes, device: torch.device, dtype: torch.dtype) -> list[Case]:
    """All operations at these shapes."""
    torch.manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype).requires_grad_()

    liger = liger_functions()
    tokens, hidden, vocabulary = shapes.tokens, shapes.hidden, shapes.vocabulary
    rows, weight = random(tokens, 1, hidden), random(hidden)
    labels = torch.randint(vocabulary, (tokens, 1), device=device)
    whole = VocabularyPart(0, vocabulary)
    chunk = -(-tokens // LOSS_CHUNKS)
    table = reference.rope_table(torch.rand(tokens, hidden // shapes.heads // 2, device=device) * tokens)
    return [
        Case(
            "RMSNorm", (rows, weight),
            lambda x, w: rms_norm(x, w, EPS), lambda x, w: reference.rms_norm(x, w, EPS),
            liger.get("rms_norm"), 5 * tokens * hidden,
        ),
        Case(
            "residual addition and RMSNorm", (rows, random(tokens, 1, hidden), weight),
            lambda x, r, w: add_rms_norm(x, r, w, EPS), lambda x, r, w: reference.add_rms_norm(x, r, w, EPS),
            liger.get("add_rms_norm"), 8 * tokens * hidden,
        ),
        Case(
            "RoPE on packed qkv", (random(tokens, 1, 3 * hidden),),
            lambda x: rope_packed(x, table, shapes.heads, 1),
            lambda x: reference.rope_packed(x, table, shapes.heads, 1),
            None, 12 * tokens * hidden,
        ),
        Case(
            "SwiGLU", (random(tokens, 1, 2 * shapes.ffn),),
            swiglu, reference.swiglu, liger.get("swiglu"), 8 * tokens * shapes.ffn,
        ),
        Case(
            "cross entropy", (random(tokens, 1, vocabulary),),
            lambda x: cross_entropy(x, labels, whole),
            lambda x: reference.cross_entropy(x.float() if x.dtype == torch.bfloat16 else x, labels, vocabulary),
            liger["cross_entropy"](labels) if liger else None, 3 * tokens * vocabulary,
        ),
        Case(
            "output projection and cross entropy", (rows, random(vocabulary, hidden)),
            lambda x, w: linear_cross_entropy(x, w, labels, whole, chunk),
            lambda x, w: reference.linear_cross_entropy(x, w, labels, vocabulary),
            None, None,
        ),
    ]  # fmt: skip


def liger_functions() -> dict[str, Callable[..., Any]]:
    """Those of liger-kernel that do what ours do; none where it is not installed, or cannot run for want of a GPU."""
    if importlib.util.find_spec("liger_kernel") is None or not torch.cuda.is_available():
        return {}
    from liger_kernel.ops.swiglu import LigerFusedGateUpSiLUMulFunction  # noqa: PLC0415
    from liger_kernel.ops.vocab_parallel_cross_entropy import LigerVocabParallelCEFunction  # noqa: PLC0415
    from liger_kernel.transformers import functional  # noqa: PLC0415

    no_smoothing = (None, -100, 0.0, "megatron", "partition")
    return {
        "rms_norm": lambda x, w: functional.liger_rms_norm(x, w, EPS, in_place=False),
        "add_rms_norm": lambda x, r, w: functional.liger_fused_add_rms_norm(x, r, w, EPS, in_place=False),
        "swiglu": lambda x: LigerFusedGateUpSiLUMulFunction.apply(x.flatten(0, 1)).view(*x.shape[:-1], -1),
        "cross_entropy": lambda labels: (
            lambda x: LigerVocabParallelCEFunction.apply(x, labels, *no_smoothing)
        ),
    }
