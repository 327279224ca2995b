"""Parts of the work on disk: what is complete, whose it is, and how it becomes the output.

A part is complete when its marker is there, which is written last and tells what the part was made of. After
``kill -9`` the same command trusts the parts whose markers tell of the same inputs, tokenizer and options, and
makes the others again. Everything is made in a hidden folder beside the output, so that what is left of a
killed run is found by the next, and goes with the folder in the end.
"""

import contextlib
import errno
import fcntl
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from megatron_ext.data.indexed import DatasetStatistics, TokenizerIdentity, statistics_path, writing_dataset
from megatron_ext.data.preprocess_encode import Encoder
from megatron_ext.data.preprocess_plan import InputIdentity, Job, Part
from megatron_ext.data.preprocess_rows import Skipped
from megatron_ext.errors import DataError
from megatron_ext.utils.atomic import fsync_directory, write_text
from megatron_ext.utils.console import get_logger

MARKER = ".done"
LOCK = ".lock"
REPLACEABLE = "replaceable"

logger = get_logger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stamp(_Strict):
    """Size and time of change, which stay with a file when it is renamed."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp | None":
        """That of a file, None if there is none."""
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return cls(size=status.st_size, mtime_ns=status.st_mtime_ns)


class Encoding(_Strict):
    """How text became ids."""

    version: int = 1  # of what we make of a text; another makes every part anew
    tokenizer: TokenizerIdentity
    json_keys: tuple[str, ...]
    append_eod: bool
    prepend_bos: bool
    eod_id: int | None

    @classmethod
    def of(cls, encoder: Encoder) -> "Encoding":
        """That of an encoder."""
        settings, tokenizer = encoder.settings, encoder.tokenizer
        identity = TokenizerIdentity(
            type=settings.tokenizer_type, vocab_size=tokenizer.vocab_size, sha256=tokenizer.fingerprint
        )
        return cls(
            tokenizer=identity,
            json_keys=settings.json_keys,
            append_eod=settings.append_eod,
            prepend_bos=settings.prepend_bos,
            eod_id=tokenizer.eos_id,
        )


class KeyCounts(_Strict):
    """Of the texts under one JSON key."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0  # UTF-8, of the texts that became tokens
    empty: int = 0  # texts without tokens, which became no document

    def __add__(self, other: "KeyCounts") -> "KeyCounts":
        return KeyCounts(
            **{name: getattr(self, name) + getattr(other, name) for name in KeyCounts.model_fields}
        )

    def statistics(self, encoding: Encoding) -> DatasetStatistics:
        """What stands beside the dataset."""
        return DatasetStatistics(
            tokens=self.tokens,
            documents=self.documents,
            bytes=self.bytes,
            tokenizer=encoding.tokenizer,
            append_eod=encoding.append_eod,
            prepend_bos=encoding.prepend_bos,
            eod_id=encoding.eod_id,
        )


class Marker(_Strict):
    """What a complete part is, and was made of."""

    encoding: Encoding
    inputs: tuple[InputIdentity, ...]
    counts: tuple[KeyCounts, ...]  # by JSON key
    skipped: Skipped
    files: dict[str, Stamp]  # by name in the hidden folder

    @classmethod
    def read(cls, part: Part) -> "Marker | None":
        """That of a part; None if there is none that can be read, since the part can be made again."""
        try:
            return cls.model_validate_json(_marker_path(part).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None

    def why_unusable(self, part: Part, encoding: Encoding, skips: bool) -> str | None:
        """What differs from a part that would be made now; None if nothing does.

        Args:
            part: as it is planned.
            encoding: as it is wanted.
            skips: whether bad rows may be left out, as they were if there were any.
        """
        if self.inputs != part.identities:
            return "changed since"
        changed = [
            name for name in Encoding.model_fields if getattr(self.encoding, name) != getattr(encoding, name)
        ]
        if changed:
            return f"tokenized with another {' and '.join(changed)}"
        if self.skipped.total and not skips:
            return "bad lines were skipped"
        for hidden, output in part.all_files():
            places = [hidden] if output is None else [hidden, output]
            if self.files.get(hidden.name) not in [Stamp.of(place) for place in places]:
                return f"{places[-1]} is gone or not as it was written"
        return None


def finish_part(part: Part, encoding: Encoding, counts: Sequence[KeyCounts], skipped: Skipped) -> Marker:
    """Write the statistics and then the marker of a part whose ``.bin`` and ``.idx`` stand."""
    for key, count in enumerate(counts):
        count.statistics(encoding).write(part.prefix(key))
        statistics_path(part.prefix(key)).rename(part.statistics(key))
    stamps = {hidden.name: Stamp.of(hidden) for hidden, _ in part.all_files()}
    marker = Marker(
        encoding=encoding,
        inputs=part.identities,
        counts=tuple(counts),
        skipped=skipped,
        files={name: stamp for name, stamp in stamps.items() if stamp is not None},
    )
    write_text(_marker_path(part), marker.model_dump_json() + "\n")
    return marker


@contextlib.contextmanager
def making(part: Part) -> Iterator[None]:
    """Be alone at work on a part, without what a killed run left of it.

    Raises:
        DataError: another process is at work on it, or the folder cannot be written.
    """
    with writing_dataset(part.outputs[0] if part.outputs else part.folder):
        part.folder.mkdir(parents=True, exist_ok=True)
        with (part.folder / f"{part.name}{LOCK}").open("a") as lock:
            if not try_lock(lock.fileno()):
                raise DataError(
                    f"{part.folder}: another process tokenizes {part} now; wait for it, or stop it and try again"
                )
            _marker_path(part).unlink(missing_ok=True)
            for left in (*part.folder.glob(f".{part.name}*.tmp"), *part.folder.glob(f"{part.name}_*")):
                left.unlink()
            yield


def publish(part: Part) -> None:
    """Move a complete part to its outputs; what was moved before, by a run that was killed, stays there.

    Raises:
        DataError: an output is there that neither this work made nor its user allowed to replace.
    """
    with writing_dataset(part.outputs[0]):
        check_outputs([part])
        for key, output in enumerate(part.outputs):
            left = [(made, final) for made, final in part.files(key) if final is not None and made.exists()]
            for _, final in reversed(left):  # no new .bin ever stands beside an old .idx or .json
                final.unlink(missing_ok=True)
            for made, final in left:
                made.rename(final)
            fsync_directory(output.parent)


def check_outputs(parts: Iterable[Part]) -> None:
    """Refuse to replace files that are neither of this work nor allowed to be replaced.

    Raises:
        DataError: names the first of them.
    """
    foreign = [path for part in parts for path in _foreign(part)]
    if foreign:
        more = f" (and {len(foreign) - 1} more files)" if len(foreign) > 1 else ""
        raise DataError(
            f"{foreign[0]}{more} exists already; choose another --output-prefix or pass --overwrite"
        )


def allow_replacement(part: Part) -> None:
    """Remember that the outputs as they are now may be replaced, also by a run that goes on after a kill."""
    stamps = {path.name: stamp for path in _output_files(part) if (stamp := Stamp.of(path))}
    if stamps:
        with writing_dataset(part.outputs[0]):
            write_text(part.folder / REPLACEABLE, _STAMPS.dump_json(stamps).decode())


def completed_inputs(job: Job) -> int:
    """Inputs of a job that need not be read again, if nothing changes."""
    return sum(len(part.inputs) for part in job.parts if _marker_path(part).exists())


def discard(job: Job) -> None:
    """Remove the hidden folder, and last in it what tells whose the output is.

    Raises:
        DataError: another process is at work in it.
    """
    if not job.folder.is_dir():
        return
    with writing_dataset(job.whole.outputs[0]):
        files = list(job.folder.iterdir())
        for path in files:
            if path.suffix == LOCK and _is_locked(path):
                raise DataError(f"{job.folder}: another process is at work there; wait for it or stop it")
        last = _marker_path(job.whole)
        for path in [*(path for path in files if path != last), last]:
            path.unlink(missing_ok=True)
        job.folder.rmdir()


_STAMPS = TypeAdapter(dict[str, Stamp])


def _marker_path(part: Part) -> Path:
    return part.folder / f"{part.name}{MARKER}"


def _output_files(part: Part) -> Iterable[Path]:
    return (output for _, output in part.all_files() if output is not None)


def _foreign(part: Part) -> list[Path]:
    """Outputs that exist, but not as this work made them or was allowed to replace them."""
    marker = Marker.read(part)
    made = {} if marker is None else marker.files
    replaceable: dict[str, Stamp] = {}
    with contextlib.suppress(
        FileNotFoundError, NotADirectoryError, ValidationError
    ):  # then nothing is allowed
        replaceable = _STAMPS.validate_json((part.folder / REPLACEABLE).read_bytes())
    return [
        output
        for hidden, output in part.all_files()
        if output is not None
        and (stamp := Stamp.of(output)) is not None
        and stamp not in (made.get(hidden.name), replaceable.get(output.name))
    ]


def try_lock(descriptor: int) -> bool:
    """Lock a file until it is closed, which the end of a process does whatever ends it; False if another has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        _warn_of_no_locks()
    return True


@functools.cache
def _warn_of_no_locks() -> None:
    logger.warning("the output's file system knows no locks: do not start the same command twice at a time")


def _is_locked(path: Path) -> bool:
    with path.open("a") as lock:
        return not try_lock(lock.fileno())
