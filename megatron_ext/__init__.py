"""Continued pre-training of Llama-family models on megatron-core."""

import warnings

__version__ = "0.1.0"

# What megatron-core and torch say here, in each process, is about their own code; what a user should know of it
# (Transformer Engine and apex are absent) train/setup.py says once.
for _module in (r"megatron\.", r"torch\.distributed\."):
    warnings.filterwarnings("ignore", module=_module)
