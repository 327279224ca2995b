"""How rows are cut into tiles for Triton programs; sizes of tiles are powers of two."""

import torch
import triton

ELEMENTS_PER_WARP = 256
"""8 for each of 32 threads: one 16-byte load of bf16. With 16, whole rows of 8,192 spill registers."""

MOST_WARPS = 32

LARGEST_TILE = 2048
"""Elements up to which short rows share a program."""

LARGEST_AHEAD = 8192
"""Elements of three tensors that shared memory holds while others are computed: 96 KiB in fp32, of an A100's 163."""

WARPS_PER_PROCESSOR = 32
"""That the backward pass of a norm keeps there at once: half of what fits, for each of its threads has 58 registers."""
INTERPRETED_PROGRAMS = 3
"""More than one, so that the interpreter, too, adds up partial sums; odd, so that rows do not share out evenly."""


def row_tile(columns: int) -> tuple[int, int]:
    """Rows and columns of the tile that holds whole rows."""
    width = triton.next_power_of_2(columns)
    return max(1, min(16, LARGEST_TILE // width)), width


def warps(elements: int) -> int:
    """Warps of a program whose tile holds so many elements, a power of two."""
    return min(MOST_WARPS, max(1, elements // ELEMENTS_PER_WARP))


def persistent_programs(device: torch.device, tiles: int, num_warps: int) -> int:
    """Programs of so many warps that share ``tiles`` tiles, each taking every n-th: as many as run at once."""
    if device.type != "cuda":
        return min(tiles, INTERPRETED_PROGRAMS)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return min(tiles, WARPS_PER_PROCESSOR // num_warps * processors)
