"""Bytes that training keeps for each parameter, by the precision of weights, gradients and optimizer states.

    weight + gradient + master + moments
    4        4          0        4 + 4     16   fp32: the weight is its own master
    2        4          4        4 + 4     18   bf16 or fp16, the default
    2        2          4        2 + 2     12   bf16 with bf16 gradients and moments
    2        2          2        2 + 2     10   the same, with the master's lower 16 bits beside the bf16 weight

Every other combination of the four keys has its sum; the distributed optimizer shards master and moments.
"""

from dataclasses import dataclass

from megatron_ext.config.sections import RunConfig

SIZES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class StateBytes:
    """Bytes a parameter: ``weight`` and ``gradient`` on every rank, ``optimizer`` where a shard of it lies."""

    weight: int
    gradient: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of them, on one data-parallel rank."""
        return self.weight + self.gradient + self.optimizer


def state_bytes(run: RunConfig) -> StateBytes:
    """What the keys of a checked run come to."""
    precision, optimizer = run.training.precision, run.optimizer
    master = 0 if precision == "fp32" else 2 if optimizer.store_param_remainders else 4
    moments = SIZES[optimizer.exp_avg_dtype] + SIZES[optimizer.exp_avg_sq_dtype]
    return StateBytes(SIZES[precision], SIZES[optimizer.main_grads_dtype], master + moments)
