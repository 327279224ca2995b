"""From a manifest to a corpus: what ``tools/build_corpus.py`` does.

1. Each part of the input is labelled, cleaned and hashed in worker processes (`documents`).
2. Duplicates are found among the hashes, and it is decided who validates (`unique`, `decide`).
3. What is kept becomes shards for each set, a category and a label (`shards`).
4. With a tokenizer, each set becomes a ``.bin/.idx`` (`tokenize`).

Parts and shards have names that tell what they are made of and appear when they are complete, so that a run goes on
where one that was killed ended, and makes the same bytes whatever the number of workers, ranks and interruptions.
Memory of a worker is a chunk, one document and `part_file.SEGMENT_BYTES` of lines, besides tables and models; step 2
has a bound of its own, ``duplicates.memory_bytes``, and rank 0 holds some 200 bytes for each part and set in it.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from megatron_ext.corpus.builder.decide import Candidate, decide
from megatron_ext.corpus.builder.documents import PartMaker, Settings, make_part
from megatron_ext.corpus.builder.job import Job, alone, discard, plan_job
from megatron_ext.corpus.builder.parts import Part
from megatron_ext.corpus.builder.publish import publish, take_account
from megatron_ext.corpus.builder.shards import Shard, ShardFolder, plan_shards, write_shard
from megatron_ext.corpus.builder.spread import spread
from megatron_ext.corpus.builder.tokenize import tokenize
from megatron_ext.corpus.builder.unique import find_duplicates
from megatron_ext.corpus.builder.workers import Work
from megatron_ext.corpus.counts import Corpus
from megatron_ext.corpus.manifest import Manifest
from megatron_ext.data.preprocess_ranks import Ranks, first, join_ranks
from megatron_ext.errors import CorpusError
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class BuildReport:
    """What a call did.

    Attributes:
        corpus: what stands now.
        parts: of the input.
        resumed: parts that an earlier run had made.
        file_bytes: of the parts that this call made, as they lie on disk.
        seconds: by step, on rank 0.
    """

    corpus: Corpus
    parts: int
    resumed: int
    file_bytes: int
    seconds: dict[str, float]


def build_corpus(manifest: Manifest, *, workers: int | None = None, overwrite: bool = False) -> BuildReport:
    """Build a corpus, or what an earlier run left to do of it; every rank of an MPI job calls this.

    Args:
        manifest: what to build.
        workers: processes in each rank, fewer where there is little to do; default: all cores.
        overwrite: replace another corpus that stands in the output folder.

    Raises:
        CorpusError: a source, code, table or file is wrong or missing, or the output stands already.
        ConfigError, MissingDependencyError, TokenizerError, LaunchError: see the text.
        EndedByAnotherRankError: on ranks other than 0, where one of these was raised on rank 0.
    """
    if workers is not None and workers < 1:
        raise CorpusError(f"--workers must be at least 1, not {workers}")
    clock = _Clock()
    with join_ranks() as ranks, contextlib.ExitStack() as stack:
        job = first(ranks, lambda: plan_job(manifest, overwrite))
        todo: list[Part] = []
        if job.standing is not None:
            corpus = job.standing
            logger.info("the text in %s is as the manifest says, and is not built again", job.output)
        else:
            todo = first(ranks, lambda: _begin(job, stack))
            with _saying_how_to_go_on(job, ranks):
                corpus = _build(job, todo, workers, ranks, clock)
    if manifest.tokenizer is not None:
        with clock.step("tokenize"):
            corpus = tokenize(corpus, job.output, manifest.tokenizer, workers=workers, overwrite=overwrite)
    resumed = 0 if job.standing is not None else len(job.parts) - len(todo)
    return BuildReport(corpus, len(job.parts), resumed, sum(part.size for part in todo), clock.seconds)


def _begin(job: Job, stack: contextlib.ExitStack) -> list[Part]:
    """Parts that are left to make, by a job that is alone in its folder until the stack is closed."""
    stack.enter_context(alone(job))
    todo = job.unfinished()
    if len(todo) < len(job.parts):
        logger.info("%d of %d parts were made by an earlier run", len(job.parts) - len(todo), len(job.parts))
    return todo


def _build(job: Job, todo: list[Part], workers: int | None, ranks: Ranks, clock: "_Clock") -> Corpus:
    with clock.step("label and clean"):
        work = Work(PartMaker, Settings(job.manifest, job.parts_folder), make_part)
        made = sum(part.size for part in job.parts) - sum(part.size for part in todo)
        spread(
            ranks,
            work,
            todo,
            workers=workers,
            description="labelling",
            size=lambda part: part.size,
            done=made,
        )
        account = first(ranks, lambda: take_account(job))
    with clock.step("find duplicates"):
        candidates = first(ranks, lambda: find_duplicates(job))
    with clock.step("write shards"):
        decided = first(ranks, lambda: decide(candidates, job.manifest.validation))
        shards = first(ranks, lambda: _plan_shards(job, candidates))
        folder = ShardFolder(job.steps_folder / "text", job.manifest.shards)
        left = [shard for shard in shards if not folder.has(shard)]
        written = sum(shard.load for shard in shards) - sum(shard.load for shard in left)
        spread(
            ranks,
            Work(_same, folder, write_shard, in_threads=True),
            left,
            workers=workers,
            description="writing",
            size=lambda shard: shard.load,
            done=written,
        )
        return first(ranks, lambda: publish(job, shards, account, candidates, decided))


def _same(folder: ShardFolder) -> ShardFolder:
    return folder


def _plan_shards(job: Job, candidates: list[Candidate]) -> list[Shard]:
    shards = plan_shards(
        [(one.file, one.file.complete_index(), one.decisions) for one in candidates], job.manifest.shards
    )
    if not shards:
        raise CorpusError(f"{job.output}: every document was removed; see the rules and what they removed")
    return shards


@contextlib.contextmanager
def _saying_how_to_go_on(job: Job, ranks: Ranks) -> Iterator[None]:
    """After an error or an interruption, say what is kept; if that is nothing, leave no trace."""
    try:
        yield
    except BaseException:
        if ranks.rank == 0:
            done = len(job.parts) - len(job.unfinished())
            if done:
                logger.info(
                    "%d of %d parts are done and kept: the same command goes on", done, len(job.parts)
                )
            else:
                discard(job)
        raise


class _Clock:
    """Seconds of each step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the block."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started
