"""What a build is about to do, and what earlier runs left of it: everything that is settled before the first step."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_ext.corpus.builder.documents import PartMaker, Settings
from megatron_ext.corpus.builder.part_file import PartFile, writing
from megatron_ext.corpus.builder.parts import Part, plan_parts
from megatron_ext.corpus.counts import FILE_NAME, Corpus
from megatron_ext.corpus.manifest import Manifest
from megatron_ext.data.preprocess_parts import try_lock
from megatron_ext.errors import CorpusError
from megatron_ext.utils.console import get_logger

OUTPUTS = ("text", "removed", "data")  # folders of a corpus, beside corpus.json

logger = get_logger(__name__)


@dataclass(frozen=True)
class Job:
    """A manifest and the parts of its input.

    Attributes:
        manifest: as it was read.
        parts: of all sources, in order.
        digest: of all that decides what the text of the corpus is.
        standing: the corpus, if its text stands as it would be made now.
    """

    manifest: Manifest
    parts: tuple[Part, ...]
    digest: str
    standing: Corpus | None

    @property
    def output(self) -> Path:
        """Folder of the corpus."""
        return Path(self.manifest.output)

    @property
    def hidden(self) -> Path:
        """Where everything is made until it is complete."""
        return self.output / ".build"

    @property
    def parts_folder(self) -> Path:
        """Where parts lie; they are of use to other manifests with the same sources too."""
        return self.hidden / "parts"

    @property
    def steps_folder(self) -> Path:
        """Where the later steps work."""
        return self.hidden / self.digest

    def file(self, part: Part) -> PartFile:
        """A part on disk."""
        return PartFile(self.parts_folder, part.name)

    def unfinished(self) -> list[Part]:
        """Parts that are not complete."""
        return [part for part in self.parts if self.file(part).index() is None]


def plan_job(manifest: Manifest, overwrite: bool) -> Job:
    """Check everything that can be checked before the work.

    Raises:
        CorpusError: a table, model or source is missing, or another corpus stands in the output folder.
        ConfigError: the alias file is wrong.
        MissingDependencyError: a package is needed.
    """
    output = Path(manifest.output)
    maker = PartMaker(Settings(manifest, output))
    parts = plan_parts(manifest, maker.fingerprint())
    decisive = manifest.model_dump(
        mode="json",
        include={"duplicates": {"exact", "minhash", "rehydrate"}, "validation": True, "shards": True},
    )
    content = json.dumps([[part.name for part in parts], decisive], sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:24]
    standing = _standing(output, digest, overwrite)
    if standing is None and not overwrite:
        _refuse_to_replace(output)
    return Job(manifest, tuple(parts), digest, standing)


@contextlib.contextmanager
def alone(job: Job) -> Iterator[None]:
    """Be the only one at work in the folder, without what is of no use to this job.

    Raises:
        CorpusError: another process is at work, or the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with writing(job.output):
            job.parts_folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((job.hidden / "lock").open("a"))
            if not try_lock(lock.fileno()):
                raise CorpusError(f"{job.output}: another process builds there now; wait for it, or stop it")
            _discard_useless(job)
        yield


def discard(job: Job) -> None:
    """Remove the hidden folder, and the output folder if there is nothing else in it."""
    shutil.rmtree(job.hidden, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty
        job.output.rmdir()


def _standing(output: Path, digest: str, overwrite: bool) -> Corpus | None:
    """The corpus in the folder, if it is the one that would be built and all its text is there."""
    try:
        corpus = Corpus.read(output) if (output / FILE_NAME).exists() else None
    except CorpusError:
        if not overwrite:
            raise
        return None
    if corpus is None or corpus.digest != digest:
        return None
    files = [file for one in corpus.sets for side in (one.train, one.valid) for file in side.files]
    return corpus if all((output / file).is_file() for file in files) else None


def _refuse_to_replace(output: Path) -> None:
    """Outputs beside a hidden folder are of a run that was stopped while it put them in place."""
    foreign = [name for name in (FILE_NAME, *OUTPUTS) if (output / name).exists()]
    if foreign and (foreign[0] == FILE_NAME or not (output / ".build").exists()):
        raise CorpusError(
            f"{output / foreign[0]} exists already, built from another manifest or other files; choose another "
            "output, or pass --overwrite"
        )


def _discard_useless(job: Job) -> None:
    """Parts of files or settings that changed since, and what was not complete when a run was killed."""
    useful = {part.name for part in job.parts}
    useless = [path for path in job.parts_folder.iterdir() if path.name.split(".")[0] not in useful]
    if changed := sum(path.suffix == ".json" for path in useless):
        logger.info(
            "%d parts of an earlier run are made again: their files or settings changed since", changed
        )
    for path in useless:
        path.unlink()
    for path in job.hidden.iterdir():
        if path.is_dir() and path not in (job.parts_folder, job.steps_folder):
            shutil.rmtree(path)
    for path in job.steps_folder.rglob("*.tmp"):
        path.unlink()
