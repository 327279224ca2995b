"""A file or folder is complete or absent: after errors, in what it leaves behind, and in the order of its steps."""

import contextlib
import os
import stat
from pathlib import Path

import pytest

from megatron_ext.utils.atomic import atomic_directory, atomic_file, write_text


class StoppedError(Exception):
    pass


def stop_with(error: type[BaseException]) -> None:
    raise error


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches the disk, in order: ``fsync NAME`` and ``rename NAME``."""
    seen: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def record_fsync(descriptor: int) -> None:
        seen.append(f"fsync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")
        fsync(descriptor)

    def record_replace(self: Path, target: Path) -> Path:
        seen.append(f"rename {target.name}")
        return replace(self, target)

    def record_rename(self: Path, target: Path) -> Path:
        seen.append(f"rename {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    monkeypatch.setattr(Path, "rename", record_rename)
    return seen


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_file(path, "w") as stream:
        stream.write("ᐃᓄᒃ\n")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == "ᐃᓄᒃ\n".encode()
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with contextlib.suppress(error), atomic_file(path) as stream:
        stream.write(b"half")
        stream.flush()
        stop_with(error)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_file_that_cannot_take_its_name_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "taken", "text")
    assert names(tmp_path) == ["taken"]


def test_a_folder_appears_whole_and_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    with atomic_directory(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("x")
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "x"
    assert names(path.parent) == ["folder"]


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_an_error_leaves_no_folder(tmp_path: Path, error: type[BaseException]) -> None:
    with contextlib.suppress(error), atomic_directory(tmp_path / "folder") as folder:
        (folder / "half").write_text("x")
        stop_with(error)
    assert names(tmp_path) == []


def test_a_folder_does_not_replace_another(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "precious").write_text("x")
    with pytest.raises(OSError, match="not empty"), atomic_directory(path) as folder:
        (folder / "new").write_text("y")
    assert names(tmp_path) == ["folder"]
    assert names(path) == ["precious"]


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int, expected: int) -> None:
    """Not the 0600 of temporary files, which would lock colleagues out."""
    before = os.umask(mask)
    try:
        write_text(tmp_path / "file", "")
        with atomic_directory(tmp_path / "folder"):
            pass
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


def test_contents_are_on_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, calls: list[str]
) -> None:
    with atomic_file(tmp_path / "file") as stream:
        stream.write(b"x")
    contents, renamed, named = calls
    assert contents.startswith("fsync .file.")
    assert (renamed, named) == ("rename file", f"fsync {tmp_path.name}")


def test_everything_in_a_folder_is_on_disk_before_its_name(tmp_path: Path, calls: list[str]) -> None:
    with atomic_directory(tmp_path / "folder") as folder:
        (folder / "a").write_text("x")
        (folder / "inner").mkdir()
        (folder / "inner" / "b").write_text("y")
        temporary = folder.name
    assert set(calls[:-2]) == {"fsync a", "fsync inner", "fsync b", f"fsync {temporary}"}
    assert calls[-2:] == ["rename folder", f"fsync {tmp_path.name}"]
