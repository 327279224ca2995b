"""Shards hold what was decided, in order, and are cut where they are full; who validates follows from the text."""

from pathlib import Path

import numpy as np
import pytest
from corpus_sources import read_shard
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_ext.corpus.builder.decide import HELD_OUT, Candidate, decide
from megatron_ext.corpus.builder.held_out import HeldOut, among, union
from megatron_ext.corpus.builder.part_file import RECORD, Keys, PartFile, PartWriter, Tally
from megatron_ext.corpus.builder.shards import ShardFolder, plan_shards, write_shard
from megatron_ext.corpus.manifest import ShardsConfig, ValidationConfig

hashes_of_sets = st.lists(
    st.lists(st.integers(0, 2**64 - 1), max_size=40, unique=True), min_size=1, max_size=4
)


def write_part(folder: Path, name: str, documents: list[tuple[str, str, int]]) -> PartFile:
    """A part of (set, text, hash)."""
    file = PartFile(folder, name)
    records = np.zeros(len(documents), RECORD)
    records["bytes"] = [len(text) for _, text, _ in documents]
    records["hash"] = [value for _, _, value in documents]
    records["characters"], records["words"] = 1, 2
    keys = Keys(records["hash"].copy(), np.empty((len(documents), 0), np.uint64))
    with PartWriter(file) as writer:
        lines = [f'{{"text":"{text}"}}\n'.encode() for _, text, _ in documents]
        writer.add([name for name, _, _ in documents], lines, records, keys)
        writer.finish(Tally(), {})
    return file


@given(hashes_of_sets, st.integers(0, 30), st.floats(0, 1), st.integers(0, 10), st.floats(0, 1))
def test_the_smallest_hashes_validate_in_whatever_order_they_come(
    batches: list[list[int]], largest: int, share: float, least: int, max_share: float
) -> None:
    config = ValidationConfig(share=share, min_documents=least, max_documents=largest, max_share=max_share)
    whole = sorted(value for batch in batches for value in batch)
    wanted = min(max(round(share * len(whole)), least), largest, int(max_share * len(whole))) if share else 0
    for ordered in (batches, batches[::-1]):
        held_out = HeldOut(config)
        for batch in ordered:
            held_out.add(np.array(batch, np.uint64))
        assert held_out.hashes().tolist() == whole[:wanted]


@given(hashes_of_sets, st.lists(st.integers(0, 2**64 - 1)))
def test_membership_is_that_of_sets(sets: list[list[int]], others: list[int]) -> None:
    everything = {value for one in sets for value in one}
    joined = union(np.array(one, np.uint64) for one in sets)
    assert joined.tolist() == sorted(everything)
    asked = [*others, *list(everything)[::2]]
    assert among(np.array(asked, np.uint64), joined).tolist() == [value in everything for value in asked]


def candidate(folder: Path, file: PartFile, outcomes: list[int]) -> Candidate:
    path = folder / f"{file.name}.outcomes.npy"
    np.save(path, np.array(outcomes, np.int8))
    return Candidate("web", file, path, folder / f"{file.name}.decisions.npy")


def test_a_text_that_validates_in_one_set_is_trained_in_none(tmp_path: Path) -> None:
    half = {"share": 0.5, "min_documents": 0, "max_documents": 2, "max_share": 1.0}
    documents = [("mono/a", "same", 3), ("mono/a", "other", 9)]
    documents += [
        ("mono/b", text, value) for text, value in (("p", 1), ("q", 2), ("same", 3), ("r", 4), ("s", 5))
    ]
    one = candidate(tmp_path, write_part(tmp_path, "p", documents), [1, 1, 1, 1, 1, 1, 1])
    decided = decide([one], ValidationConfig(**half))
    # a validates `same`, the smaller of its two hashes; b validates p and q, the two it may.
    assert np.load(one.decisions).tolist() == [-1, 1, -1, -1, 0, 1, 1]
    assert decided.removed[HELD_OUT] == 1
    assert decided.sources == {"mono/a": {"web": 2}, "mono/b": {"web": 4}}


def test_removed_documents_count_by_rule_and_copies_are_kept(tmp_path: Path) -> None:
    documents = [("mono/a", str(number), number) for number in range(5)]
    one = candidate(tmp_path, write_part(tmp_path, "p", documents), [3, -1, -2, -2, 1])
    decided = decide([one], ValidationConfig(share=0))
    assert np.load(one.decisions).tolist() == [3, 0, 0, 0, 1]
    assert decided.removed == {"exact_duplicate": 1, "near_duplicate": 2, HELD_OUT: 0}


@pytest.mark.parametrize("compression", ["zst", "gz", "none"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_shards_hold_every_copy_in_order_and_are_cut_where_full(
    compression: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    documents = data.draw(
        st.lists(
            st.tuples(st.sampled_from(["mono/a", "code/b"]), st.text("xyz", min_size=1, max_size=9)),
            max_size=12,
        )
    )
    copies = data.draw(st.lists(st.integers(-1, 3), min_size=len(documents), max_size=len(documents)))
    cut = data.draw(st.integers(0, len(documents)))
    wanted: dict[tuple[str, str], list[str]] = {}
    planned = []
    for number, rows in enumerate((slice(0, cut), slice(cut, None))):
        chosen = [(name, text, 0) for name, text in documents[rows]]
        file = write_part(folder, f"p{number}", chosen)
        decisions = folder / f"d{number}.npy"
        order = np.argsort([name for name, _, _ in chosen], kind="stable") if chosen else []
        np.save(decisions, np.array([copies[rows][row] for row in order], np.int16))
        planned.append((file, file.complete_index(), decisions))
        for (name, text, _), count in zip(chosen, copies[rows], strict=True):
            side = "valid" if count < 0 else "train"
            wanted.setdefault((name, side), []).extend([text] * abs(count))
    config = ShardsConfig(max_bytes=10, compression=compression)
    shards = plan_shards(planned, config)
    found: dict[tuple[str, str], list[str]] = {}
    for shard in shards:
        write_shard(ShardFolder(folder, config), shard, lambda _bytes, _documents: None)
        texts = [row["text"] for row in read_shard(folder / shard.path)]
        assert shard.counts.documents == len(texts) > 0
        assert shard.counts.bytes == sum(map(len, texts))
        assert shard.counts.whitespace_tokens == 2 * len(texts)
        assert shard.counts.bytes <= 10 or len(set(texts)) == 1
        found.setdefault((shard.set, shard.side), []).extend(texts)
    assert found == {key: texts for key, texts in wanted.items() if texts}
