"""Files and folders that are either complete or absent: temporary name in the same folder, fsync, rename."""

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


def fsync_directory(folder: Path) -> None:
    """Make the names inside ``folder`` durable (POSIX keeps them apart from the files' contents)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its name only when the block ends without an error.

    Args:
        path: the final name; its folder is created.
        mode: ``"wb"`` or ``"w"`` (UTF-8).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_file(path, "w") as stream:
        stream.write(text)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its name only when the block ends without an error.

    ``path`` itself must not exist when the block ends: replacing a folder is its owner's decision. What processes of
    this host that were killed have left of the same ``path`` is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(path)
    temporary, lock = _new_directory(path)
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        commit_directory(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _prefix(path: Path) -> str:
    # With the host: some file systems keep locks, but each host's to itself.
    return f".{path.name}.{socket.gethostname()}."


def _new_directory(path: Path) -> tuple[Path, int | None]:
    """A temporary folder and its lock, which the system releases however the process ends."""
    while True:
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp"))
        try:
            return temporary, _locked(temporary)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process was quicker, and took it for one that was left
        except OSError:
            return temporary, None  # the file system has no locks: nobody gets this one


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock.

    Raises:
        OSError: another process holds it or has removed the folder, or there are no locks.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_left(path: Path) -> None:
    for folder in path.parent.iterdir():
        if not (folder.name.startswith(_prefix(path)) and folder.name.endswith(".tmp")):
            continue
        try:
            lock = _locked(folder)
        except OSError:
            continue  # in use, or who knows
        try:
            shutil.rmtree(folder)
            logger.info(f"removed {folder}, left by a process that was killed")
        finally:
            os.close(lock)


def commit_directory(temporary: Path, path: Path) -> None:
    """Give ``temporary`` its final name ``path`` once everything inside is on disk."""
    for folder, _, names in os.walk(temporary):
        for name in names:
            with (Path(folder) / name).open("rb") as stream:
                os.fsync(stream.fileno())
        fsync_directory(Path(folder))
    temporary.rename(path)
    fsync_directory(path.parent)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
