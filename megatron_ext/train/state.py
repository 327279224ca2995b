"""Where a run stands."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrainState:
    """Position of a run: ``consumed_samples`` alone says which samples come next, on any cluster shape."""

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0

    def advance(self, samples: int, tokens: int) -> "TrainState":
        """The state after one more optimizer step that read ``samples`` sequences of ``tokens`` tokens in all."""
        return TrainState(self.iteration + 1, self.consumed_samples + samples, self.consumed_tokens + tokens)
