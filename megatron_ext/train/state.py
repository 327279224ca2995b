"""Where a run stands."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainState:
    """Position of a run: ``consumed_samples`` alone says which samples come next, on any cluster shape.

    Attributes:
        skipped_iterations: steps whose fp16 gradients overflowed: they consumed samples and changed no weight, so the
            learning rate does not count them.
    """

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    skipped_iterations: int = 0

    @property
    def next_update(self) -> int:
        """Number of the next update of the weights, from 1."""
        return self.iteration - self.skipped_iterations + 1

    def advance(self, samples: int, tokens: int, *, skipped: bool = False) -> "TrainState":
        """The state after one more optimizer step that read ``samples`` sequences of ``tokens`` tokens in all."""
        return TrainState(
            self.iteration + 1,
            self.consumed_samples + samples,
            self.consumed_tokens + tokens,
            self.skipped_iterations + int(skipped),
        )
