"""The end of a build: counts of everything, and the output in its place."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from megatron_ext.corpus.builder.decide import Candidate, Decided
from megatron_ext.corpus.builder.job import OUTPUTS, Job, discard
from megatron_ext.corpus.builder.part_file import Tally, writing
from megatron_ext.corpus.builder.removed import examples_of_duplicates
from megatron_ext.corpus.builder.shards import TRAIN, VALID, Shard, added
from megatron_ext.corpus.counts import CATEGORIES, FILE_NAME, Corpus, PartCounts, SetCounts
from megatron_ext.errors import CorpusError
from megatron_ext.utils.atomic import fsync_directory, write_text
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


@dataclass
class Account:
    """What became of all documents in the first step."""

    sources: dict[str, Tally] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)  # lines of removed/RULE.jsonl

    @property
    def tally(self) -> Tally:
        """Of all sources."""
        total = Tally()
        for tally in self.sources.values():
            total.add(tally)
        return total


def take_account(job: Job) -> Account:
    """Add up what was counted in all parts.

    Raises:
        CorpusError: a source has no documents.
    """
    account, wanted = Account(), job.manifest.removed_examples
    for part in job.parts:
        index = job.file(part).complete_index()
        account.sources.setdefault(part.source.name, Tally()).add(index.tally)
        for rule, lines in index.removed_examples.items():
            examples = account.examples.setdefault(rule, [])
            examples.extend(lines[: wanted - len(examples)])
    for name, tally in account.sources.items():
        skipped = tally.skipped
        if not tally.documents:
            why = (
                f"; bad lines were skipped, such as {next(iter(skipped.firsts.values()))}"
                if skipped.total
                else ""
            )
            raise CorpusError(f"source {name}: no documents in its files{why}")
        for reason, count in skipped.counts.items():
            logger.warning(
                "source %s: %s: %d lines skipped; the first: %s", name, reason, count, skipped.firsts[reason]
            )
    return account


def publish(
    job: Job, shards: Sequence[Shard], account: Account, candidates: Sequence[Candidate], decided: Decided
) -> Corpus:
    """Put text, examples of what was removed and ``corpus.json`` in place, and forget how they were made.

    ``corpus.json`` comes last, so that what stands without it is not complete.
    """
    tally, removed = account.tally, dict(account.tally.removed)
    removed |= {rule: count for rule, count in decided.removed.items() if count}
    corpus = Corpus(
        sets=tuple(_sets(shards, decided.sources)),
        documents_read={name: own.documents for name, own in account.sources.items()},
        skipped=tally.skipped.counts,
        removed=dict(sorted(removed.items())),
        repaired=dict(sorted(tally.repaired.items())),
        disagreements=dict(sorted(tally.disagreements.items(), key=lambda item: (-item[1], item[0]))),
        manifest=job.manifest.model_dump(mode="json"),
        digest=job.digest,
    )
    made = {"text": job.steps_folder / "text", "removed": job.steps_folder / "removed"}
    examples = account.examples | examples_of_duplicates(candidates, job.manifest.removed_examples)
    with writing(job.output):
        shutil.rmtree(made["removed"], ignore_errors=True)
        for rule, lines in examples.items():
            write_text(made["removed"] / f"{rule}.jsonl", "".join(f"{line}\n" for line in lines))
        (job.output / FILE_NAME).unlink(missing_ok=True)
        for name in OUTPUTS:
            shutil.rmtree(job.output / name, ignore_errors=True)
        for name, folder in made.items():
            if folder.exists():
                folder.rename(job.output / name)
        fsync_directory(job.output)
        corpus.write(job.output)
    discard(job)
    return corpus


def _sets(shards: Sequence[Shard], sources: Mapping[str, Mapping[str, int]]) -> Iterator[SetCounts]:
    """Counts of all sets, by category in the order of `CATEGORIES`, then by label."""
    counts: dict[str, dict[str, PartCounts]] = {}
    files: dict[tuple[str, str], list[str]] = {}
    for shard in shards:
        sides = counts.setdefault(shard.set, {})
        sides[shard.side] = added(sides.get(shard.side, PartCounts()), shard.counts)
        files.setdefault((shard.set, shard.side), []).append(f"text/{shard.path}")
    for name in sorted(counts, key=lambda name: (CATEGORIES.index(name.split("/")[0]), name)):
        category, label = name.split("/")
        sides = {
            side: found.model_copy(update={"files": tuple(files[name, side])})
            for side, found in counts[name].items()
        }
        yield SetCounts(
            category=category,  # type: ignore[arg-type]
            label=label,
            train=sides.get(TRAIN, PartCounts()),
            valid=sides.get(VALID, PartCounts()),
            sources={source: count for source, count in sorted(sources[name].items()) if count},
        )
