"""A file or folder is complete or absent: after errors, in what it leaves behind, and in the order of its steps."""

import contextlib
import errno
import os
import socket
import stat
import subprocess
import sys
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


HOLD = """
import sys, time
from pathlib import Path
from megatron_ext.utils.atomic import atomic_directory
with atomic_directory(Path(sys.argv[1])) as folder:
    (folder / "part").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_is_in_use_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "folder"
    others = [tmp_path / f".folder.{name}.tmp" for name in ("replaced", "another-host.a1")]
    for other in others:
        other.mkdir()
    command = [sys.executable, "-c", HOLD, str(path)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running,
    ):
        assert killed.stdout is not None
        assert running.stdout is not None
        left, used = (Path(process.stdout.readline().strip()) for process in (killed, running))
        try:
            killed.kill()
            killed.wait()
            assert (left / "part").exists()
            with atomic_directory(path) as folder:
                (folder / "new").write_text("y")
            assert not left.exists()
            assert (used / "part").read_text() == "x"
        finally:
            running.kill()
    assert all(other.is_dir() for other in others)
    assert [entry.name for entry in path.iterdir()] == ["new"]
    assert capsys.readouterr().err == f"removed {left}, left by a process that was killed\n"


def test_a_file_system_without_locks_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", _no_locks)
    left = tmp_path / f".folder.{socket.gethostname()}.a1.tmp"
    left.mkdir()
    with atomic_directory(tmp_path / "folder"):
        pass
    assert sorted(tmp_path.iterdir()) == [left, tmp_path / "folder"]


def _no_locks(*_arguments: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")
