"""A folder of checkpoints: ``iter_0000600/`` is complete or absent, ``latest`` names the one to resume from.

root/
  latest             the text "iter_0000600"
  iter_0000300/      .metadata, *.distcp, common.pt, metadata.json, manifest.json, hf/
  iter_0000600/
  .iter_0000900.tmp/ being written, or left by a run that was killed: never read
"""

import re
import shutil
from pathlib import Path

from megatron_ext.checkpoint.manifest import FILE_NAME as MANIFEST
from megatron_ext.errors import CheckpointError
from megatron_ext.utils.atomic import commit_directory, write_text

LATEST = "latest"
_NAME = re.compile(r"iter_(\d{7,})")


def iteration_of(folder: Path) -> int:
    """Iteration in the name of a checkpoint folder."""
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise CheckpointError(f"{folder}: a checkpoint folder is called iter_0000600 or the like")
    return int(match.group(1))


class CheckpointStore:
    """Checkpoints of one run. One process (rank 0) calls ``begin`` and ``commit``; any may read.

    Args:
        root: the run's checkpoint folder; ``begin`` creates it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self) -> list[Path]:
        """Complete checkpoints, oldest iteration first."""
        if not self.root.is_dir():
            return []
        found = [path for path in self.root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=iteration_of)

    def latest(self) -> Path | None:
        """The checkpoint to resume from; None where there is none.

        It is the one that ``latest`` names. There is no such file only when a run was killed between its very
        first checkpoint and the pointer: then it is the newest folder, complete because it has its name.

        Raises:
            CheckpointError: ``latest`` names a folder that is not there.
        """
        pointer = self.root / LATEST
        complete = self.all()
        if not pointer.is_file():
            return complete[-1] if complete else None
        name = pointer.read_text(encoding="utf-8").strip()
        for path in complete:
            if path.name == name:
                return path
        names = ", ".join(path.name for path in complete) or "none"
        raise CheckpointError(
            f"{pointer} names {name!r}, which is not there; write one of these into it: {names}"
        )

    def begin(self, iteration: int) -> Path:
        """An empty folder to write into, on the file system of its final name.

        What a killed run left under the same name is removed.
        """
        temporary = self.temporary(iteration)
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        return temporary

    def temporary(self, iteration: int) -> Path:
        """Name of the folder that ``begin`` makes; every rank can derive it."""
        return self.root / f".{self._final(iteration).name}.tmp"

    def commit(self, temporary: Path, iteration: int, keep: int | None = None) -> Path:
        """Make ``temporary`` the checkpoint of ``iteration``, point ``latest`` at it, then drop old ones.

        Args:
            temporary: from ``begin``; must hold a manifest.
            iteration: names the folder. A checkpoint of the same iteration (of a run that was resumed from an
                earlier one) is replaced.
            keep: newest checkpoints that stay, this one included; None: all. Later iterations than this one,
                which only a run resumed from an earlier checkpoint sees, are not counted and not touched.
        """
        if not (temporary / MANIFEST).is_file():
            raise CheckpointError(f"{temporary}: no {MANIFEST}; a checkpoint without one cannot be loaded")
        final = self._final(iteration)
        replaced = self.root / f".{final.name}.replaced.tmp"
        if final.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            final.rename(replaced)
        commit_directory(temporary, final)
        write_text(self.root / LATEST, final.name + "\n")
        shutil.rmtree(replaced, ignore_errors=True)
        if keep is not None:
            self._retain(iteration, keep)
        return final

    @staticmethod
    def resolve(path: Path) -> Path:
        """The checkpoint meant by ``path``: a store's root (its latest) or one ``iter_…`` folder.

        Raises:
            CheckpointError: there is no checkpoint.
        """
        if not path.is_dir():
            raise CheckpointError(
                f"{path}: no such folder; expected a checkpoint (a folder with {LATEST} or {MANIFEST})"
            )
        if (path / MANIFEST).is_file():
            return path
        latest = CheckpointStore(path).latest()
        if latest is None:
            raise CheckpointError(f"{path}: no checkpoint here (neither {MANIFEST} nor any iter_… folder)")
        return latest

    def _final(self, iteration: int) -> Path:
        return self.root / f"iter_{iteration:07d}"

    def _retain(self, iteration: int, keep: int) -> None:
        up_to_now = [path for path in self.all() if iteration_of(path) <= iteration]
        for path in up_to_now[: max(0, len(up_to_now) - keep)]:
            # Renamed first: a removal that is cut short must not leave half a checkpoint under a good name.
            doomed = path.with_name(f".{path.name}.removed.tmp")
            path.rename(doomed)
            shutil.rmtree(doomed)
