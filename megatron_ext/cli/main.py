"""The console command ``megatron-ext``: a verb for each thing a person does, each in a module of its own."""

import argparse
import difflib
import importlib
import signal
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from megatron_ext import __version__
from megatron_ext.errors import MegatronExtError
from megatron_ext.launch.environment import end_mpich_job
from megatron_ext.utils.console import global_rank

INTERRUPTED = 130
OTHER_RANKS_WAIT_S = 15.0  # ranks find an error seconds apart, and an end takes seconds too


class Verb(NamedTuple):
    """A verb of the command.

    Attributes:
        module: has ``add_arguments(parser)`` and ``run(arguments) -> int``; imported when the verb is used.
        help: one line.
        intermixed: options may stand between positional arguments (which sub-verbs rule out).
    """

    module: str
    help: str
    intermixed: bool = True


VERBS: dict[str, Verb] = {
    "build-corpus": Verb(
        "megatron_ext.cli.build_corpus", "label, clean and de-duplicate text of many sources"
    ),
    "preprocess": Verb("megatron_ext.cli.preprocess", "turn JSON lines of text into indexed token files"),
    "merge": Verb("megatron_ext.cli.merge", "make one indexed dataset out of many"),
    "inspect": Verb("megatron_ext.cli.inspect", "describe an indexed dataset, decode a document, verify it"),
    "plan-mixture": Verb(
        "megatron_ext.cli.plan_mixture",
        "plan how many tokens of each language a run reads, and write the blend",
    ),
    "convert": Verb(
        "megatron_ext.cli.convert", "import a Hugging Face checkpoint, or export one", intermixed=False
    ),
    "inspect-checkpoint": Verb(
        "megatron_ext.cli.inspect_checkpoint",
        "describe a checkpoint or a Hugging Face folder, or compare two",
    ),
    "launch": Verb(
        "megatron_ext.cli.launch", "start a training run from YAML files, or plan it with --dry-run"
    ),
    "estimate": Verb(
        "megatron_ext.cli.estimate", "estimate memory and speed of a run, and rank the layouts that fit"
    ),
    "benchmark": Verb("megatron_ext.cli.benchmark", "time real training steps on synthetic tokens"),
    "train": Verb("megatron_ext.cli.train", "one process of a training run; launch starts as many as needed"),
    "generate": Verb("megatron_ext.cli.generate", "continue a prompt with a checkpoint"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``megatron-ext`` with these arguments (default: the process's own) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    if arguments[0] == "--version":
        sys.stdout.write(f"megatron-ext {__version__}\n")
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        nearest = difflib.get_close_matches(verb, VERBS, n=1)
        instead = f"did you mean {nearest[0]}?" if nearest else f"verbs: {', '.join(VERBS)}"
        sys.stderr.write(f"error: {verb}: unknown verb; {instead}\n")
        return MegatronExtError.exit_code
    return run_verb(verb, arguments[1:])


def run_verb(verb: str, argv: Sequence[str], program: str | None = None) -> int:
    """Run one verb and return its exit code: 0, 2 for wrong input (after one message), 130 when interrupted.

    Args:
        verb: a key of `VERBS`.
        argv: its arguments.
        program: name in the help text; default: ``megatron-ext VERB``.
    """
    try:
        module = importlib.import_module(VERBS[verb].module)
        parser = argparse.ArgumentParser(
            prog=program or f"megatron-ext {verb}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(parser)
        arguments = parser.parse_intermixed_args(argv) if VERBS[verb].intermixed else parser.parse_args(argv)
        exit_code: int = module.run(arguments)
    except MegatronExtError as error:
        return _report(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    return exit_code


def _report(error: MegatronExtError) -> int:
    """Say what is wrong, once for all processes of a job.

    Mostly every rank finds the same. Rank 0 speaks at once and ends, upon which the launcher ends the others
    while they wait; a rank that is alone with its error speaks after the wait.
    """
    rank = global_rank()
    if rank != 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(OTHER_RANKS_WAIT_S)
    prefix = f"[rank {rank}] " if rank != 0 else ""
    sys.stderr.write(f"{prefix}error: {error}\n")
    sys.stderr.flush()
    end_mpich_job(error.exit_code)
    return error.exit_code


def _usage() -> str:
    width = max(len(verb) for verb in VERBS)
    verbs = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    return (
        "usage: megatron-ext VERB …\n\n"
        "Continued pre-training of Llama-family models: raw text in, Hugging Face checkpoint out.\n\n"
        f"{verbs}\n\n`megatron-ext VERB --help` says more; --version prints the version.\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
