"""Estimate memory and speed of a run and rank layouts: ``megatron-ext estimate`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("estimate", sys.argv[1:], program="tools/estimate.py"))
