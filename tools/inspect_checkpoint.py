"""Describe a checkpoint, or compare two: ``megatron-ext inspect-checkpoint`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("inspect-checkpoint", sys.argv[1:], program="tools/inspect_checkpoint.py"))
