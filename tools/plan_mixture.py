"""Plan how many tokens of each language a run reads: ``megatron-ext plan-mixture`` as a script."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("plan-mixture", sys.argv[1:], program="tools/plan_mixture.py"))
