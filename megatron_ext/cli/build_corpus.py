"""``megatron-ext build-corpus``: raw text of many sources to labelled, clean and unique shards."""

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.filesize import decimal

from megatron_ext.cli.termination import run_resumable
from megatron_ext.corpus.builder.build import BuildReport, build_corpus
from megatron_ext.corpus.counts import Corpus, SetCounts
from megatron_ext.corpus.manifest import Manifest, TokenizeConfig, read_manifest
from megatron_ext.tokenizer.build import TOKENIZER_TYPES

SETS_SHOWN, DISAGREEMENTS_SHOWN = 10, 5

EPILOG = """\
example: build the corpus of a manifest; configs/corpus/example.yaml is one with every key explained
  python tools/build_corpus.py corpus.yaml

example: … and make the .bin/.idx sets of it too, as a tokenizer: section in the manifest would
  python tools/build_corpus.py corpus.yaml --tokenizer-type SentencePieceTokenizer --tokenizer-model tokenizer.model

example: on 16 processes of MPI, which share a file system (pip install 'megatron-ext[launchers]'); the same bytes
  mpirun -n 16 python tools/build_corpus.py corpus.yaml

OUTPUT/text/train and OUTPUT/text/valid hold shards of JSON Lines by category and label (mono/eng_Latn-00000.jsonl.zst),
OUTPUT/data the tokenized sets, OUTPUT/removed examples of removed documents, OUTPUT/corpus.json the counts.

After a stop, a kill or an error the same command goes on: what is complete stays in the hidden folder OUTPUT/.build
until the corpus stands. A corpus of another manifest or of other files is replaced with --overwrite only.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options and the help."""
    parser.description = (
        "Read text of many sources and languages; label, clean and de-duplicate it; write shards for each category "
        "and label, with documents held out for validation, and corpus.json with the counts."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="YAML file that names the sources")
    parser.add_argument("--output", metavar="FOLDER", help="folder of the corpus, in place of the manifest's")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes in each rank, fewer for little text (default: one a core)",
    )
    parser.add_argument(
        "--write-removed",
        type=int,
        metavar="N",
        help="write up to N documents that each rule removed to removed/RULE.jsonl",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another corpus in the folder")
    tokenizer = parser.add_argument_group("tokenizer, in place of the manifest's")
    tokenizer.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES)
    tokenizer.add_argument("--tokenizer-model", metavar="M")


def run(arguments: argparse.Namespace) -> int:
    """Build and say what there is now."""
    manifest = _changed(read_manifest(arguments.manifest), arguments)

    def work() -> Callable[[], str]:
        report = build_corpus(manifest, workers=arguments.workers, overwrite=arguments.overwrite)
        return lambda: summary(report, manifest)

    return run_resumable(work)


def _changed(manifest: Manifest, arguments: argparse.Namespace) -> Manifest:
    """The manifest with what the command line says instead."""
    changes: dict[str, object] = {}
    if arguments.output is not None:
        changes["output"] = arguments.output
    if arguments.write_removed is not None:
        changes["removed_examples"] = max(arguments.write_removed, 0)
    if arguments.tokenizer_type is not None:
        changes["tokenizer"] = TokenizeConfig(type=arguments.tokenizer_type, model=arguments.tokenizer_model)
    return manifest.model_copy(update=changes)


def summary(report: BuildReport, manifest: Manifest) -> str:
    """What was read, removed and kept, and what comes next."""
    corpus = report.corpus
    lines = [
        *_documents(corpus),
        *_table("repairs", corpus.repaired),
        *_table("in another script than declared", _first(corpus.disagreements, DISAGREEMENTS_SHOWN)),
        *_sets(corpus),
        _effort(report),
        *_next(corpus, manifest),
    ]
    return "\n".join(lines)


def _documents(corpus: Corpus) -> list[str]:
    read, kept = sum(corpus.documents_read.values()), sum(sum(one.sources.values()) for one in corpus.sets)
    lines = [f"{read:,} documents read, {kept:,} kept ({100 * kept / max(read, 1):.1f} %)"]
    empty = set(corpus.documents_read) - {source for one in corpus.sets for source in one.sources}
    lines += [f"nothing of source {source} was kept" for source in sorted(empty)]
    lines += _table("bad lines skipped", corpus.skipped)
    return lines + _table("removed documents", corpus.removed)


def _first(counts: Mapping[str, int], number: int) -> dict[str, int]:
    """The largest counts, and all others together."""
    shown = dict(sorted(counts.items(), key=lambda item: -item[1])[:number])
    rest = sum(counts.values()) - sum(shown.values())
    return shown | ({f"{len(counts) - number} others": rest} if rest else {})


def _table(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [f"{title}: {sum(counts.values()):,}", *(f"  {count:>12,}  {name}" for name, count in ordered)]


def _sets(corpus: Corpus) -> list[str]:
    by_size = sorted(corpus.sets, key=lambda one: -one.train.bytes)
    labels = len({one.label for one in corpus.sets})
    head = f"{'set':<28}{'documents':>12}{'validation':>12}{'words':>15}{'text':>11}"
    lines = [f"{len(by_size):,} sets of {labels:,} labels; the largest:", head + _token_head(corpus)]
    lines += [_set_line(one) for one in by_size[:SETS_SHOWN]]
    if rest := by_size[SETS_SHOWN:]:
        lines.append(f"{f'{len(rest):,} more sets':<28}{sum(one.train.documents for one in rest):>12,}")
    return lines


def _token_head(corpus: Corpus) -> str:
    return f"{'tokens':>15}{'per word':>10}" if corpus.tokenizer else ""


def _set_line(one: SetCounts) -> str:
    line = (
        f"{one.name:<28}{one.train.documents:>12,}{one.valid.documents:>12,}"
        f"{one.train.whitespace_tokens:>15,}{decimal(one.train.bytes):>11}"
    )
    if one.train.tokens is not None:
        line += f"{one.train.tokens:>15,}" + (f"{one.fertility:>10.2f}" if one.fertility else "")
    return line


def _effort(report: BuildReport) -> str:
    steps = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in report.seconds.items())
    speed = decimal(int(report.file_bytes / max(sum(report.seconds.values()), 1e-9)))
    earlier = (
        f"; {report.resumed:,} of {report.parts:,} parts were made by an earlier run"
        if report.resumed
        else ""
    )
    read = f"{decimal(report.file_bytes)} of files read, {speed}/s: " if report.file_bytes else ""
    return f"{read}{steps or 'nothing was left to do'}{earlier}"


def _next(corpus: Corpus, manifest: Manifest) -> Sequence[str]:
    output = shlex.quote(manifest.output)
    if corpus.tokenizer is None:
        return [
            f"next: look at {manifest.output}/corpus.json, then make the .bin/.idx sets: the same command with",
            "  --tokenizer-type SentencePieceTokenizer --tokenizer-model tokenizer.model",
        ]
    return [f"next: plan the mixture with python tools/plan_mixture.py {output}"]
