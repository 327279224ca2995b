"""Loss and tokens by group of sets, between records of training."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from megatron_ext.observe.groups import LABEL, Groups
from megatron_ext.observe.metrics import GroupLoss
from megatron_ext.train.step import StepOutcome, add_by_set


class GroupLosses:
    """Adds steps up on the device, set by set: one ``index_add_`` each. A record sums sets to groups, on the host.

    Args:
        groups: of the training sets; where there are none, nothing is added.
        num_sets: of the blend.
        device: where losses are.

    Attributes:
        sums: float64 [sets, 2], Σ loss in nats and Σ tokens of this process since they were last taken; [0, 2] without
            groups. What reduces them over processes takes them.
    """

    def __init__(self, groups: Groups, num_sets: int, device: torch.device) -> None:
        self.groups = groups
        self.sums = torch.zeros(num_sets if groups else 0, 2, dtype=torch.float64, device=device)
        self._for_labels = np.zeros(tuple(self.sums.shape))

    def add(self, outcome: StepOutcome) -> None:
        """Count a step; nothing is waited for."""
        if self.groups:
            add_by_set(self.sums, outcome.row_losses, outcome.row_sets)

    def take(self) -> torch.Tensor:
        """The sums, float64 [2 * sets] for ``scores`` once they are reduced; from here they start at zero."""
        taken = self.sums.flatten()
        self.sums = torch.zeros_like(self.sums)
        return taken

    def scores(
        self, reduced: Sequence[float], consumed_tokens: NDArray[np.int64], *, with_labels: bool
    ) -> dict[str, dict[str, GroupLoss]]:
        """Scores of the groups that were read, by dimension and value.

        Args:
            reduced: what was taken, summed over all processes.
            consumed_tokens: of each set since the run began, int64 [sets].
            with_labels: whether labels are among the dimensions; what is left out is in the next that are.
        """
        sums = np.reshape(reduced, (-1, 2))
        self._for_labels += sums
        found = {}
        for dimension, values in self.groups.items():
            if dimension != LABEL:
                found[dimension] = _scores(values, sums, consumed_tokens)
            elif with_labels:
                found[dimension] = _scores(values, self._for_labels, consumed_tokens)
                self._for_labels = np.zeros_like(sums)
        return {dimension: scores for dimension, scores in found.items() if scores}


def _scores(
    values: Mapping[str, Sequence[int]], sums: NDArray[np.float64], consumed_tokens: NDArray[np.int64]
) -> dict[str, GroupLoss]:
    found = {}
    for value, sets in values.items():
        loss_sum, tokens = sums[sets].sum(axis=0).tolist()
        if tokens > 0:
            found[value] = GroupLoss(
                lm_loss=loss_sum / tokens,
                tokens=round(tokens),
                consumed_tokens=int(consumed_tokens[sets].sum()),
            )
    return found
