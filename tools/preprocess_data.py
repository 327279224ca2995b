"""Tokenize text into .bin/.idx files: ``megatron-ext preprocess`` under Megatron-LM's name."""

import sys

from megatron_ext.cli.main import run_verb

if __name__ == "__main__":
    raise SystemExit(run_verb("preprocess", sys.argv[1:], program="tools/preprocess_data.py"))
