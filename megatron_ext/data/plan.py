"""What a run is going to read, in a few lines, however many sets there are."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_ext.data.blend import BlendedDataset, ValidationDataset

SHOWN = 5


def describe_training(
    dataset: BlendedDataset,
    num_tokens: NDArray[np.int64],
    dtype: str,
    train_samples: int,
    asked: Mapping[str, float | None],
) -> list[str]:
    """Lines of text: how much there is, how often it is read, which sets stand out, and what is scaled.

    Args:
        dataset: the blend.
        num_tokens: int64 [sets].
        dtype: of a token on disk.
        train_samples: length of the run.
        asked: for each stage the key of its list, and the samples that its entries add up to (None: it has
            shares only).
    """
    epochs = dataset.epochs(train_samples)
    tokens_read = train_samples * dataset.seq_length
    lines = [
        f"train: {_count(len(dataset.names), 'set')}, {num_tokens.sum():,} tokens ({dtype}); "
        f"{train_samples:,} samples of {dataset.seq_length:,} = {tokens_read:,} tokens to read, "
        f"{train_samples / dataset.num_samples:.2f} epochs of everything"
    ]
    if len(dataset.names) > 1:
        lines.append(
            f"  epochs of a set: {epochs.min():.2f} to {epochs.max():.2f}, median {np.median(epochs):.2f}; "
            f"most repeated: {_largest(dataset.names, epochs, '{:.2f}')}"
        )
    available = dataset.samples_of_stages(train_samples)
    for stage, samples, (key, wanted) in zip(dataset.stages, available, asked.items(), strict=True):
        shares = f"largest shares: {_largest(dataset.names, stage.weights, '{:.2%}')}"
        if len(dataset.stages) > 1:
            sets = _count(int(np.count_nonzero(stage.weights)), "set")
            lines.append(f"  from sample {stage.start:,}, for {samples:,}: {sets}; {shares}")
        elif len(dataset.names) > 1:
            lines.append(f"  {shares}")
        if wanted is not None and round(wanted) != samples:
            lines.append(
                f"  {key} asks for {round(wanted):,} samples, and the run has {samples:,} for it: "
                f"each set gets {samples / wanted:.4g} of what it asks for"
            )
    return lines


def describe_validation(dataset: ValidationDataset) -> str:
    """One line of text."""
    return (
        f"valid: {_count(len(dataset.names), 'set')}, {dataset.num_tokens.sum():,} tokens "
        f"in {_count(dataset.num_windows, 'window')} of {dataset.seq_length:,}"
    )


def _largest(names: Sequence[str], values: NDArray[np.float64], form: str) -> str:
    order = np.argsort(-values, kind="stable")[:SHOWN]
    return ", ".join(f"{names[i]} {form.format(values[i])}" for i in order if values[i] > 0)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
