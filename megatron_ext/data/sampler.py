"""Which positions of the sample stream a process reads; the only state is how many samples were consumed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.config.batch_size import BatchSizes
from megatron_ext.errors import ConfigError


@dataclass(frozen=True)
class BatchSampler:
    """Deals each global batch out to data-parallel ranks, in Megatron's order: micro-batch by micro-batch.

    A global batch is always the next positions, ``global_batch_size`` of them or fewer while ``ramp`` says so:
    neither the micro-batch nor the number of ranks moves the data.
    """

    micro_batch_size: int
    global_batch_size: int
    data_parallel_rank: int
    data_parallel_size: int
    ramp: BatchSizes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.data_parallel_rank < self.data_parallel_size:
            raise ConfigError(
                f"data-parallel rank {self.data_parallel_rank} is not one of {self.data_parallel_size}"
            )
        wave = self.micro_batch_size * self.data_parallel_size
        if min(wave, self.global_batch_size) < 1 or self.global_batch_size % wave != 0:
            raise ConfigError(
                f"global_batch_size={self.global_batch_size} is not a multiple of micro_batch_size * "
                f"data_parallel_size = {self.micro_batch_size} * {self.data_parallel_size}"
            )

    def batch_size(self, consumed_samples: int) -> int:
        """Positions of the global batch that begins here."""
        return self.global_batch_size if self.ramp is None else self.ramp.at(consumed_samples)

    def positions(self, consumed_samples: int) -> NDArray[np.int64]:
        """Positions that this rank reads next, int64 [micro-batches, micro_batch_size]."""
        size = self.batch_size(consumed_samples)
        batch = np.arange(consumed_samples, consumed_samples + size, dtype=np.int64)
        return batch.reshape(-1, self.data_parallel_size, self.micro_batch_size)[:, self.data_parallel_rank]
