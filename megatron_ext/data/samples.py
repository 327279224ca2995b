"""Training samples of one indexed dataset: windows of ``seq_length + 1`` tokens, in one of two orders.

``permuted`` (`window_samples`): windows at stride ``seq_length`` over the tokens as they lie in the file; the
last one is padded and masked, so an epoch trains every token exactly once (but the very first, which nothing
precedes). A seeded permutation, another for each epoch, gives the order. It follows from the seed, the set's
name and the epoch: neither the length of the run nor the other sets move it. Nothing is built or stored,
whatever the number of epochs.

``megatron`` (`megatron_samples`): documents shuffled and then concatenated, epochs without a seam, samples
shuffled; draw for draw what megatron-core's ``GPTDataset`` gives, for those who continue an older run. The
order follows from the seed and from how many samples the run asks of the set: a run of another length, or of
other weights, is another order. Its arrays take 4 bytes a document and 12 a sample.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_ext import _C
from megatron_ext.data.indexed import DatasetStatistics, IndexedDataset
from megatron_ext.errors import DataError

# megatron-core shuffles the last epoch apart from the others when less than this part of it is read.
SEPARATE_FINAL_EPOCH_BELOW = 0.80


@dataclass(frozen=True)
class TokenSet:
    """Sequences ``first_sequence`` to ``end_sequence`` (exclusive) of a dataset, its name and groups in metrics."""

    name: str
    dataset: IndexedDataset
    first_sequence: int
    end_sequence: int
    statistics: DatasetStatistics | None
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Tokens in these sequences."""
        reader = self.dataset.reader
        return reader.sequence_start(self.end_sequence) - reader.sequence_start(self.first_sequence)


@dataclass(frozen=True)
class DocumentRules:
    """What the end-of-document token means to a batch."""

    eod_id: int | None = None
    eod_mask_loss: bool = False
    mark_boundaries: bool = False


@dataclass(frozen=True)
class MegatronIndices:
    """The three arrays of megatron-core's ``GPTDataset``."""

    document_index: NDArray[np.int32]  # [epochs * sequences]
    sample_index: NDArray[np.int32]  # [samples + 1, 2]: position in document_index, token offset
    shuffle_index: NDArray[np.uint32]  # [samples]


def window_samples(tokens: TokenSet, seq_length: int, seed: int | None) -> _C.WindowSamples:
    """Windows in permuted order, or in file order without a seed (validation).

    The order depends on the seed, the set's name and the epoch: sets that are added, moved or reweighted
    leave that of the others as it is.
    """
    key = None
    if seed is not None:
        key = int.from_bytes(hashlib.sha256(f"{seed}/{tokens.name}".encode()).digest()[:8], "little")
    return _C.WindowSamples(
        tokens.dataset.reader, tokens.first_sequence, tokens.end_sequence, seq_length, key
    )


def megatron_samples(tokens: TokenSet, seq_length: int, seed: int, num_samples: int) -> _C.MegatronSamples:
    """The samples of megatron-core's ``GPTDataset`` for ``num_samples``; another number is another order."""
    indices = megatron_indices(
        tokens.dataset.sequence_lengths,
        np.arange(tokens.first_sequence, tokens.end_sequence, dtype=np.int32),
        seq_length=seq_length,
        seed=seed,
        num_samples=num_samples,
    )
    return _C.MegatronSamples(
        tokens.dataset.reader,
        indices.document_index,
        indices.sample_index,
        indices.shuffle_index,
        seq_length,
    )


def megatron_indices(
    sequence_lengths: NDArray[np.int32],
    sequences: NDArray[np.int32],
    *,
    seq_length: int,
    seed: int,
    num_samples: int,
) -> MegatronIndices:
    """Build megatron-core's document, sample and shuffle index.

    Args:
        sequence_lengths: int32 [N], of the whole file.
        sequences: int32, the ones to read.
        seq_length: tokens of a sample, less the one that only serves as a label.
        seed: megatron-core's ``random_seed``.
        num_samples: how many are wanted; as many epochs are laid out as that takes.

    Raises:
        DataError: there are fewer than two tokens, or more documents or samples than megatron-core's format
            holds.
    """
    epoch_tokens = int(sequence_lengths[sequences].sum(dtype=np.int64))
    if epoch_tokens < 2:
        raise DataError(f"{epoch_tokens} tokens are not enough for a sample; at least 2 are needed")
    epochs = max(1, -(-(num_samples * seq_length + 1) // epoch_tokens))
    total_samples = (epochs * epoch_tokens - 1) // seq_length
    if epochs * len(sequences) > np.iinfo(np.int32).max or total_samples >= np.iinfo(np.uint32).max - 1:
        raise DataError(
            f"{epochs} epochs of {len(sequences)} documents are more than order: megatron can index; "
            "use order: permuted"
        )
    samples_before_final_epoch = ((epochs - 1) * epoch_tokens - 1) // seq_length
    separate_final_epoch = epochs > 1 and num_samples - samples_before_final_epoch < int(
        SEPARATE_FINAL_EPOCH_BELOW * ((epoch_tokens - 1) // seq_length)
    )

    # The legacy generator, whose stream numpy has frozen; the order of the calls is part of the format.
    random = np.random.RandomState(seed)
    document_index = _shuffled_parts(
        [np.tile(sequences, epochs - 1), sequences] if separate_final_epoch else [np.tile(sequences, epochs)],
        random,
    )
    sample_index = _C.build_sample_index(sequence_lengths, document_index, seq_length, total_samples)
    samples = np.arange(total_samples, dtype=np.uint32)
    shuffle_index = _shuffled_parts(
        np.split(samples, [samples_before_final_epoch]) if separate_final_epoch else [samples], random
    )
    return MegatronIndices(document_index, sample_index, shuffle_index)


def _shuffled_parts(parts: list[NDArray[Any]], random: np.random.RandomState) -> NDArray[Any]:
    for index, part in enumerate(parts):
        parts[index] = part.copy()
        random.shuffle(parts[index])
    return np.concatenate(parts)
