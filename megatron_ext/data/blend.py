"""Many sets as one stream of training samples, and many held-out sets as one list of windows."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megatron_ext import _C
from megatron_ext.data.indexed import DatasetStatistics
from megatron_ext.data.position import BlendRecord, DataPosition, StageRecord
from megatron_ext.data.samples import DocumentRules, TokenSet, megatron_samples, window_samples
from megatron_ext.data.stages import Stage, StagedBlend, normalised
from megatron_ext.errors import DataError

# megatron-core lays out this part more samples of each set than its weight asks for, because the blend is
# greedy.
MEGATRON_SURPLUS = 0.005


class BlendedDataset:
    """Endless training samples of many sets, in megatron-core's greedy order.

    Which sample comes at which position follows from the weights and the starts of stages alone. The state of
    a reader is a `StagedBlend`; `blend` makes a fresh one, so that several readers do not disturb each other.

    Args:
        sets: what to read, in whatever stage.
        weights: float [sets], share of the samples; normalised here. 0: not in the first stage.
        order: ``permuted`` or ``megatron``.
        seq_length: tokens of a sample.
        seed: of the samples' order.
        train_samples: length of the run: ``megatron`` order depends on it, ``permuted`` does not.
        rules: what the end-of-document token means.
        later_stages: start, after 0 and ascending, and weights as above.

    Attributes:
        names: of the sets; positions in it are what ``dataset_index`` of a batch holds.
        groups: of each set, value by dimension.
        stages: the first one, then the later ones.
        samples_per_epoch: int64 [sets], windows that read every token of a set once.
        num_samples: windows that read every token of every set once.
        record: all that decides which sample comes when.

    Raises:
        DataError: ``megatron`` order is to have stages, or more documents or samples than its format holds.
    """

    def __init__(
        self,
        sets: Sequence[TokenSet],
        weights: ArrayLike,
        *,
        order: str,
        seq_length: int,
        seed: int,
        train_samples: int,
        rules: DocumentRules,
        later_stages: Sequence[Stage] = (),
    ) -> None:
        self.names = tuple(tokens.name for tokens in sets)
        self.groups = tuple(tokens.groups for tokens in sets)
        once = normalised(weights)
        # megatron-core normalises in its builder and again in its BlendedDataset; the second time may move a
        # bit.
        self.stages = (
            Stage(0, normalised(once)),
            *(Stage(stage.start, normalised(normalised(stage.weights))) for stage in later_stages),
        )
        self.rules = rules
        self.seq_length = seq_length
        windows = [window_samples(tokens, seq_length, seed) for tokens in sets]
        self.samples_per_epoch = np.array([window.samples_per_epoch for window in windows], dtype=np.int64)
        self.num_samples = int(self.samples_per_epoch.sum())
        sources: list[_C.SampleSource] = list(windows)
        if order == "megatron":
            if later_stages:
                raise DataError("data.stages: megatron-core has none to repeat; use data.order=permuted")
            sources = [
                megatron_samples(
                    tokens, seq_length, seed, _megatron_size(train_samples, float(weight), len(sets))
                )
                for tokens, weight in zip(sets, once, strict=True)
            ]
        self._samples = _C.SampleGather(sources)
        self.record = BlendRecord(
            order=order,
            seed=seed,
            seq_length=seq_length,
            train_samples=train_samples if order == "megatron" else None,
            names=self.names,
            samples_per_epoch=tuple(self.samples_per_epoch.tolist()),
            stages=tuple(StageRecord(start=s.start, weights=tuple(s.weights.tolist())) for s in self.stages),
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """Shares of the first stage, float64 [sets], adding up to 1."""
        return self.stages[0].weights

    def samples_of_stages(self, train_samples: int) -> NDArray[np.int64]:
        """How many of a run's samples each stage has, int64 [stages]; 0 where the run ends before."""
        starts = np.array([stage.start for stage in self.stages] + [max(train_samples, 0)])
        return np.asarray(np.diff(np.minimum(starts, train_samples)), dtype=np.int64)

    def epochs(self, train_samples: int) -> NDArray[np.float64]:
        """How often a run of ``train_samples`` reads each set, float64 [sets]."""
        weights = np.stack([stage.weights for stage in self.stages])
        read = self.samples_of_stages(train_samples) @ weights
        return np.asarray(read / self.samples_per_epoch, dtype=np.float64)

    def blend(self, position: int = 0, saved: DataPosition | None = None) -> StagedBlend:
        """A reader's state: draws the set and the sample for each position from ``position`` on.

        Args:
            position: found by drawing what comes before it, some 30 ms for a million samples,
            saved: or at once, by counters of that position that `position.usable` passed.
        """
        blend = StagedBlend(self.stages)
        if saved is not None and saved.consumed_samples == position:
            blend.restore(position, saved.counters(self.names))
        else:
            blend.seek(position)
        return blend

    def position(self, blend: StagedBlend) -> DataPosition:
        """What a checkpoint keeps of a reader's state."""
        counters = blend.counters()
        return DataPosition(
            consumed_samples=blend.position,
            blend=self.record,
            before=tuple(counters.before.tolist()),
            drawn=tuple(counters.drawn.tolist()),
        )

    def prefetch(self, dataset_index: NDArray[np.int32], sample_index: NDArray[np.int64]) -> None:
        """Tell the kernel which parts of the files `gather` will want soon; arguments as there."""
        self._samples.prefetch(dataset_index, sample_index)

    def gather(
        self, dataset_index: NDArray[np.int32], sample_index: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """Read samples.

        Args:
            dataset_index: int32 [rows], -1 for a row of zeros.
            sample_index: int64 [rows], sample within the set.

        Returns:
            Tokens of the sets' dtype [rows, seq_length + 1], and how many of each row are real, int32 [rows].
        """
        return self._samples.gather(dataset_index, sample_index)


class ValidationDataset:
    """Every token of the held-out sets once: windows at stride ``seq_length``, set by set, in file order.

    Attributes:
        names: of the sets.
        groups: of each set, value by dimension.
        statistics: of each set's whole file, None where it has none.
        windows_per_set: int64 [sets].
        num_windows: of all sets.
        num_tokens: int64 [sets], of what is held out.
    """

    def __init__(self, sets: Sequence[TokenSet], *, seq_length: int, rules: DocumentRules) -> None:
        self.names = tuple(tokens.name for tokens in sets)
        self.groups = tuple(tokens.groups for tokens in sets)
        self.statistics: tuple[DatasetStatistics | None, ...] = tuple(tokens.statistics for tokens in sets)
        self.rules = rules
        self.seq_length = seq_length
        windows = [window_samples(tokens, seq_length, None) for tokens in sets]
        self.windows_per_set = np.array([window.samples_per_epoch for window in windows], dtype=np.int64)
        self.num_windows = int(self.windows_per_set.sum())
        self.num_tokens = np.array([window.num_tokens for window in windows], dtype=np.int64)
        self._ends = np.cumsum(self.windows_per_set)
        self._samples = _C.SampleGather(list(windows))

    def gather(self, windows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.int32]]:
        """Read windows.

        Args:
            windows: int64 [rows], 0 to ``num_windows - 1`` over all sets, -1 for a row of zeros.

        Returns:
            Tokens [rows, seq_length + 1], how many of each row are real, and the set of each row (-1: none).
        """
        sets = np.searchsorted(self._ends, windows, side="right").astype(np.int32)
        sets[windows < 0] = -1
        within = windows - (self._ends - self.windows_per_set)[sets]
        tokens, valid = self._samples.gather(sets, within)
        return tokens, valid, sets


def _megatron_size(train_samples: int, weight: float, num_sets: int) -> int:
    if num_sets == 1:
        return train_samples
    return math.ceil(math.ceil(train_samples * weight) * (1 + MEGATRON_SURPLUS))
