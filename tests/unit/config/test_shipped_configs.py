"""Every YAML file of configs/ is part of a run that passes all checks; shapes are those Meta published."""

from pathlib import Path

import pytest

from megatron_ext.config.load import load_run_config
from megatron_ext.config.sections import RunConfig

CONFIGS = Path(__file__).parents[3] / "configs"
# Layers, hidden, ffn, heads, KV heads in config.json of meta-llama/Llama-2-*-hf, and the parameters it loads.
SHAPES = {
    "llama2_7b": ((32, 4096, 11008, 32, 32), 6_738_415_616),
    "llama2_13b": ((40, 5120, 13824, 40, 40), 13_015_864_320),
    "llama2_70b": ((80, 8192, 28672, 64, 8), 68_976_648_192),
}


def names(folder: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / folder).glob("*.yaml"))


def big_run(*parts: str) -> RunConfig:
    return load_run_config(
        [CONFIGS / "runs/llama2_7b_256gpu.yaml", *(CONFIGS / f"{part}.yaml" for part in parts)]
    )


def test_every_folder_has_files() -> None:
    assert all(names(folder) for folder in ("models", "parallel", "data", "training", "runs"))


@pytest.mark.parametrize("name", names("runs"))
def test_runs(name: str) -> None:
    assert load_run_config([CONFIGS / f"runs/{name}.yaml"]).name == name


@pytest.mark.parametrize("name", names("data") + names("training"))
def test_data_and_training_parts_fit_the_large_run(name: str) -> None:
    folder = "data" if name in names("data") else "training"
    big_run(f"{folder}/{name}")


@pytest.mark.parametrize("name", names("parallel"))
def test_layouts_fit_the_largest_model(name: str) -> None:
    assert big_run("models/llama2_70b", f"parallel/{name}").data_parallel_size >= 1


@pytest.mark.parametrize("name", names("models"))
def test_models(name: str) -> None:
    if name not in SHAPES:
        assert name == "tiny"
        return
    model = big_run(f"models/{name}").model
    shape, parameters = SHAPES[name]
    found = (model.num_layers, model.hidden_size, model.ffn_hidden_size, model.num_attention_heads)
    assert (*found, model.query_groups) == shape
    attention = 2 * model.hidden_size**2 + 2 * model.hidden_size * model.query_groups * model.head_size
    layer = attention + 3 * model.hidden_size * model.ffn_hidden_size + 2 * model.hidden_size
    assert (
        model.num_layers * layer + model.hidden_size + 2 * model.vocab_size * model.hidden_size == parameters
    )


def test_the_large_run_is_the_paper_s() -> None:
    run = big_run()
    assert (run.launch.world_size, run.training.global_batch_size, run.training.seq_length) == (
        256,
        4096,
        4096,
    )
    assert run.training.tokens_per_iteration * run.training.train_iters == pytest.approx(201.3e9, rel=1e-3)
    assert (run.optimizer.lr, run.optimizer.lr_warmup_iters) == (1e-4, 500)


def test_the_quickstart_is_really_parallel() -> None:
    run = load_run_config([CONFIGS / "runs/quickstart.yaml"])
    assert (run.parallel.model_parallel_size, run.launch.world_size, run.num_microbatches) == (4, 4, 2)
