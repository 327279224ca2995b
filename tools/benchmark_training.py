"""Time real training steps on synthetic tokens: ``megatron-ext benchmark`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("benchmark", sys.argv[1:], program="tools/benchmark_training.py"))
