"""Build a corpus from the sources of a manifest: ``megatron-ext build-corpus``."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("build-corpus", sys.argv[1:], program="tools/build_corpus.py"))
