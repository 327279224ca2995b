"""Triton's interpreter for every test of a machine without a GPU."""

import os

import torch

if not torch.cuda.is_available():
    # Read when Triton itself is imported, and transformers imports it: hence here, before any test.
    os.environ["TRITON_INTERPRET"] = "1"
