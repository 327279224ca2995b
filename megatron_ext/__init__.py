"""Continued pre-training of Llama-family models on megatron-core."""

import warnings

__version__ = "0.1.0"

# megatron-core says so once per module and process; train/setup.py says it once.
warnings.filterwarnings(
    "ignore", message=r".*(Apex|Transformer Engine).* not installed", category=UserWarning
)
