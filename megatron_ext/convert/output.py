"""The folder a conversion makes: complete or absent, and never in place of something it did not make."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from megatron_ext.errors import ConversionError
from megatron_ext.utils.atomic import atomic_directory


def check_output(path: Path, *, overwrite: bool, is_replaceable: Callable[[Path], bool]) -> None:
    """Refuse a ``path`` that may not be written; see ``output_directory``.

    Raises:
        ConversionError: it is in the way.
    """
    occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if occupied and not overwrite:
        raise ConversionError(f"{path}: exists already; choose another output or add --overwrite")
    if occupied and not (path.is_dir() and is_replaceable(path)):
        raise ConversionError(f"{path}: not the output of an earlier conversion, so it is not overwritten")


@contextlib.contextmanager
def output_directory(
    path: Path, *, overwrite: bool, source: Path, is_replaceable: Callable[[Path], bool]
) -> Iterator[Path]:
    """Yield an empty folder that becomes ``path`` when the block ends without an error.

    Args:
        path: absent or an empty folder; with ``overwrite``, an earlier output.
        overwrite: replace an earlier output, once the new one is complete.
        source: what is converted; must not lie in ``path``.
        is_replaceable: whether a folder is an earlier output of the same kind.

    Raises:
        ConversionError: ``path`` may not be written.
    """
    if source.resolve().is_relative_to(path.resolve()):
        raise ConversionError(f"{path}: the input {source} lies inside the output")
    check_output(path, overwrite=overwrite, is_replaceable=is_replaceable)
    replaced = path.with_name(f".{path.name}.replaced.tmp")
    with atomic_directory(path) as temporary:
        yield temporary
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
    shutil.rmtree(replaced, ignore_errors=True)
