"""Make one indexed dataset out of many: ``megatron-ext merge`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("merge", sys.argv[1:], program="tools/merge_datasets.py"))
