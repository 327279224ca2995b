"""Describe an indexed dataset: ``megatron-ext inspect`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("inspect", sys.argv[1:], program="tools/inspect_dataset.py"))
