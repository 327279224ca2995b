"""How a continuation is chosen. Knows no torch."""

from dataclasses import dataclass

from megatron_ext.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: of the continuation; it ends earlier at an EOS.
        temperature: 0 takes the likeliest token each time.
        top_p: with a temperature, choose among the likeliest tokens that together have this probability.
        seed: of the choice.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        problems = []
        if self.max_new_tokens < 1:
            problems.append(f"max_new_tokens={self.max_new_tokens}: must be at least 1")
        if self.temperature < 0:
            problems.append(f"temperature={self.temperature}: must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            problems.append(f"top_p={self.top_p}: must be above 0 and at most 1")
        if problems:
            raise ConfigError(problems)
