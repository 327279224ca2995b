"""The global batch as a function of the samples consumed, so that a run resumes inside its ramp-up exactly."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchSizes:
    """Megatron's ``rampup_batch_size``: the batch grows by ``increment`` in equal parts of ``ramp_samples``.

    With n = (full - start) / increment, the batch at position c < ramp_samples is
    ``start + ⌊c · n / ramp_samples⌋ · increment``, and ``full`` from there on.

    Attributes:
        full: sequences of a global batch after the ramp.
        start: sequences of the first batch; ``full`` where nothing ramps.
        increment: sequences that each part adds.
        ramp_samples: samples consumed when the full batch is reached.
    """

    full: int
    start: int
    increment: int = 1
    ramp_samples: int = 0

    def at(self, consumed_samples: int) -> int:
        """Sequences of the batch that is read next."""
        if consumed_samples >= self.ramp_samples:
            return self.full
        return self.start + consumed_samples * self._parts // self.ramp_samples * self.increment

    def samples_after(self, iterations: int) -> int:
        """Samples that the first ``iterations`` batches of a run hold."""
        consumed = 0
        for part in range(1, self._parts + 1):
            end = -(-part * self.ramp_samples // self._parts)  # the first position with a larger batch
            size = self.at(consumed)
            steps = min(iterations, max(0, -(-(end - consumed) // size)))
            consumed += steps * size
            iterations -= steps
        return consumed + iterations * self.full

    @property
    def _parts(self) -> int:
        return (self.full - self.start) // self.increment
