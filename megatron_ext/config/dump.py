"""A resolved run as YAML, and back."""

from pathlib import Path

import yaml

from megatron_ext.config.load import load_run_config
from megatron_ext.config.sections import RunConfig


def run_to_yaml(run: RunConfig) -> str:
    """Every value of the run, defaults included; `load_resolved` reads an equal run from it."""
    return yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_resolved(path: Path) -> RunConfig:
    """The run that `run_to_yaml` wrote to ``path``.

    Raises:
        ConfigError: if the file is missing or no valid run.
    """
    return load_run_config([path])
