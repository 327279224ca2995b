"""Random corpora: samples and blends in megatron order equal those of megatron-core, draw for draw."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset as MegatronIndexedDataset
from megatron.core.datasets.utils import Split

from megatron_ext import _C
from megatron_ext.data.blend import BlendedDataset
from megatron_ext.data.samples import DocumentRules, TokenSet, megatron_indices, megatron_samples
from megatron_ext.errors import DataError

MakeSet = Callable[..., TokenSet]
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
folders = itertools.count()  # megatron-core caches indices by path
documents = st.lists(st.integers(0, 25), min_size=1, max_size=12)  # lengths, empty ones too


def megatron_config(cache: Path | None, seq_length: int, seed: int, **blend: object) -> GPTDatasetConfig:
    return GPTDatasetConfig(
        random_seed=seed,
        sequence_length=seq_length,
        path_to_cache=None if cache is None else str(cache),  # a blend would write it from rank 0 only
        tokenizer=SimpleNamespace(vocab_size=60_000, eod=0, unique_identifiers={}),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        **blend,
    )


@quick
@given(
    lengths=documents.filter(lambda lengths: sum(lengths) > 1),
    seq_length=st.integers(2, 40),
    num_samples=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
)
def test_samples_of_a_random_corpus(
    make_set: MakeSet, lengths: list[int], seq_length: int, num_samples: int, seed: int
) -> None:
    """Empty documents, corpora shorter than a sample, parts of epochs shuffled apart or not."""
    tokens = make_set(f"corpus{next(folders)}/set", lengths)
    prefix = tokens.dataset.prefix
    sequences = np.arange(len(lengths), dtype=np.int32)
    theirs = GPTDataset(
        MegatronIndexedDataset(str(prefix)),
        str(prefix),
        sequences,
        num_samples,
        Split.train,
        megatron_config(prefix.parent, seq_length, seed, blend_per_split=[([str(prefix)], None), None, None]),
    )
    ours = megatron_indices(
        tokens.dataset.sequence_lengths, sequences, seq_length=seq_length, seed=seed, num_samples=num_samples
    )
    assert np.array_equal(ours.document_index, theirs.document_index)
    assert np.array_equal(ours.sample_index, theirs.sample_index)
    assert np.array_equal(ours.shuffle_index, theirs.shuffle_index)
    source = megatron_samples(tokens, seq_length, seed, num_samples)
    rows, _ = _C.SampleGather([source]).gather(np.zeros(num_samples, np.int32), np.arange(num_samples))
    for index, row in enumerate(rows):
        assert np.array_equal(row[:-1], theirs[index]["tokens"])
        assert np.array_equal(row[1:], theirs[index]["labels"])


@quick
@given(
    corpora=st.lists(documents.filter(lambda lengths: sum(lengths) > 1), min_size=1, max_size=5),
    data=st.data(),
    train_samples=st.integers(1, 80),
    seed=st.integers(0, 2**32 - 1),
)
def test_blends_of_random_corpora(
    make_set: MakeSet, corpora: list[list[int]], data: st.DataObject, train_samples: int, seed: int
) -> None:
    """Whole runs as megatron-core's own builder puts them together; small whole weights make ties."""
    weights = data.draw(st.lists(st.integers(1, 4), min_size=len(corpora), max_size=len(corpora)))
    folder = f"blend{next(folders)}"
    sets = [make_set(f"{folder}/set{i}", lengths) for i, lengths in enumerate(corpora)]
    paths = [str(tokens.dataset.prefix) for tokens in sets]
    config = megatron_config(
        None, 6, seed, blend_per_split=[(paths, [float(w) for w in weights]), None, None]
    )
    theirs = BlendedMegatronDatasetBuilder(GPTDataset, [train_samples, 0, 0], lambda: True, config).build()[0]
    ours = BlendedDataset(
        sets,
        weights,
        order="megatron",
        seq_length=6,
        seed=seed,
        train_samples=train_samples,
        rules=DocumentRules(),
    )
    ids, samples = ours.blend().draw(train_samples)
    rows, _ = ours.gather(ids, samples)
    for index, row in enumerate(rows):
        theirs_there = theirs[index]
        assert theirs_there.get("dataset_id", 0) == ids[index]
        assert np.array_equal(row[:-1], theirs_there["tokens"])
        assert np.array_equal(row[1:], theirs_there["labels"])


def test_a_set_of_weight_zero_is_none_for_megatron_core_either(make_set: MakeSet) -> None:
    """megatron-core asserts weights above 0, and our runs leave such a set out: there is no draw to compare."""
    sets = [make_set(f"zero/set{i}", [9]) for i in range(2)]
    paths = [str(tokens.dataset.prefix) for tokens in sets]
    config = megatron_config(None, 4, 1, blend_per_split=[(paths, [0.0, 1.0]), None, None])
    with pytest.raises(AssertionError):
        BlendedMegatronDatasetBuilder(GPTDataset, [5, 0, 0], lambda: True, config).build()
    ours = BlendedDataset(
        sets, [0, 1], order="permuted", seq_length=4, seed=1, train_samples=5, rules=DocumentRules()
    )
    assert ours.blend().draw(50)[0].tolist() == [1] * 50


@quick
@given(num_documents=st.integers(1, 2**20), tokens=st.integers(2, 2**12), beyond=st.integers(0, 3))
def test_epochs_of_documents_beyond_int32_are_refused(num_documents: int, tokens: int, beyond: int) -> None:
    """The fewest samples that take one epoch more than fit, and nothing is laid out for them."""
    lengths = np.zeros(num_documents, dtype=np.int32)
    lengths[0] = tokens
    epochs = (2**31 - 1) // num_documents + 1 + beyond
    num_samples = -(-(epochs * tokens - 1) // 1000) + 1  # more than the epochs before hold
    with pytest.raises(DataError, match=rf"epochs of {num_documents} documents are more than .*permuted"):
        megatron_indices(
            lengths,
            np.arange(num_documents, dtype=np.int32),
            seq_length=1000,
            seed=1,
            num_samples=num_samples,
        )
