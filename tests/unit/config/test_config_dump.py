"""A resolved run survives its file."""

from pathlib import Path

import pytest

from megatron_ext.config.dump import load_resolved, run_to_yaml
from megatron_ext.config.load import load_run_config
from megatron_ext.errors import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "configs/runs").glob("*.yaml")), ids=lambda path: path.stem)
def test_dump_and_load_give_an_equal_run(path: Path, tmp_path: Path) -> None:
    overrides = [
        "optimizer.adam_eps=1e-15",
        "data.train=[{path: 'ünï*', weight: 0.1}, {path: b, weight: 1e-9}]",
        "data.stages=[{from_samples: 7, train: [{path: a, tokens: 5e9}]}, {from_fraction: 0.9, train: [{path: b}]}]",
    ]
    run = load_run_config([path], overrides)
    (tmp_path / "run.yaml").write_text(run_to_yaml(run), encoding="utf-8")
    assert load_resolved(tmp_path / "run.yaml") == run


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_resolved(tmp_path / "run.yaml")
