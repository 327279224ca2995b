from pathlib import Path

import pytest

from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.sections import ModelConfig
from megatron_ext.errors import CheckpointError

MODEL = ModelConfig(num_layers=1, hidden_size=8, ffn_hidden_size=16, num_attention_heads=2, vocab_size=32)


def _manifest(iteration: int) -> Manifest:
    return Manifest(
        model=MODEL,
        iteration=iteration,
        consumed_samples=iteration * 4,
        consumed_tokens=iteration * 64,
        has_optimizer=True,
        params_dtype="bf16",
    )


def _save(store: CheckpointStore, iteration: int, keep: int | None = None, note: str = "") -> Path:
    folder = store.begin(iteration)
    _manifest(iteration).write(folder)
    (folder / "note").write_text(note)
    return store.commit(folder, iteration, keep)


def _names(store: CheckpointStore) -> list[str]:
    return [path.name for path in store.all()]


def test_an_empty_store_has_no_latest(tmp_path: Path) -> None:
    assert CheckpointStore(tmp_path / "absent").latest() is None
    assert CheckpointStore(tmp_path).all() == []


def test_what_is_committed_is_latest_and_reads_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run")
    _save(store, 300)
    folder = _save(store, 600)
    assert folder == tmp_path / "run" / "iter_0000600"
    assert store.latest() == folder
    assert _names(store) == ["iter_0000300", "iter_0000600"]
    assert Manifest.read(folder) == _manifest(600)
    assert (tmp_path / "run" / "latest").read_text() == "iter_0000600\n"


def test_a_checkpoint_that_was_begun_only_is_never_seen(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    saved = _save(store, 1)
    (store.begin(2) / "half").write_text("x")
    assert store.latest() == saved
    assert _names(store) == ["iter_0000001"]
    assert list(store.begin(2).iterdir()) == []


def test_a_folder_without_manifest_is_not_committed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(CheckpointError, match=r"no manifest\.json"):
        store.commit(store.begin(1), 1)
    assert store.all() == []


def test_retention_keeps_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for iteration in (1, 2, 3, 10):
        _save(store, iteration, keep=2)
    assert _names(store) == ["iter_0000003", "iter_0000010"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iter_0000003", "iter_0000010", "latest"]


def test_a_run_that_went_back_replaces_its_future_and_keeps_what_it_just_wrote(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for iteration in (10, 20, 30):
        _save(store, iteration, note="first")
    again = _save(store, 20, keep=1, note="second")
    assert store.latest() == again
    assert (again / "note").read_text() == "second"
    assert _names(store) == ["iter_0000020", "iter_0000030"]


def test_resolve_takes_a_store_or_one_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    first, second = _save(store, 1), _save(store, 2)
    assert CheckpointStore.resolve(tmp_path) == second
    assert CheckpointStore.resolve(first) == first


def test_resolve_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        CheckpointStore.resolve(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="no checkpoint here"):
        CheckpointStore.resolve(tmp_path)


def test_a_pointer_to_nothing_is_an_error_that_lists_what_there_is(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    _save(store, 5)
    (tmp_path / "latest").write_text("iter_0000099\n")
    with pytest.raises(CheckpointError, match=r"iter_0000099.*iter_0000005"):
        store.latest()


def test_without_pointer_the_newest_is_latest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    folder = _save(store, 5)
    (tmp_path / "latest").unlink()
    assert store.latest() == folder


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"format_version": 1', '"format_version": 2', "format_version"),
        ('"iteration": 5', '"iteration": -5', "iteration"),
        ('"iteration": 5', '"iteratoin": 5', "iteratoin"),
        ("}", "", "JSON"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    _manifest(5).write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CheckpointError, match=complaint):
        Manifest.read(tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"manifest\.json: missing"):
        Manifest.read(tmp_path)
