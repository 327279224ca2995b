"""Continue a prompt with a checkpoint: ``megatron-ext generate`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("generate", sys.argv[1:], program="tools/generate.py"))
