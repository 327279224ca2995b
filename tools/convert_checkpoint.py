"""Convert checkpoints: ``megatron-ext convert`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("convert", sys.argv[1:], program="tools/convert_checkpoint.py"))
