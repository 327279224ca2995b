"""Which of a run's checkpoints a framework calls its latest: a file beside them says so."""

from collections.abc import Callable
from pathlib import Path

from megatron_ext.errors import ConversionError


def latest(folder: Path, file_name: str, folder_name: Callable[[str], str | None]) -> Path:
    """The folder of the latest checkpoint; ``folder`` itself where it has no such file, being that of one.

    Args:
        folder: what the user named.
        file_name: of the file that says it.
        folder_name: from its content to the name of a folder beside it; None where it cannot be that.

    Raises:
        ConversionError: the file names no folder beside it.
    """
    path = folder / file_name
    if not path.is_file():
        return folder
    content = path.read_text(encoding="utf-8", errors="replace").strip()
    name = folder_name(content)
    if name is None or name in {"", ".."} or Path(name).name != name or not (folder / name).is_dir():
        raise ConversionError(f"{path}: names {content!r}, which is not a checkpoint in {folder}")
    return folder / name
