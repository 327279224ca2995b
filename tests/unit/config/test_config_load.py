"""Merging and error messages of run configurations."""

import subprocess
import sys
from pathlib import Path

import pytest

from megatron_ext.config.load import load_run_config, load_section
from megatron_ext.config.section import Section
from megatron_ext.errors import ConfigError

RUN = """\
name: trial
model:
  num_layers: 4
  hidden_size: 64
  ffn_hidden_size: 176
  num_attention_heads: 4
  vocab_size: 300
tokenizer:
  type: ByteTokenizer
data:
  train:
    - path: data/*
training:
  micro_batch_size: 2
  global_batch_size: 8
  seq_length: 32
  train_iters: 100
optimizer:
  lr: 1e-3
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    return Path("run.yaml")


def problems(*paths: Path, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_run_config(paths, overrides)
    return caught.value.problems


def test_files_and_overrides_merge_left_to_right(base: Path) -> None:
    Path("second.yaml").write_text("model:\n  num_layers: 8\noptimizer:\n  lr: 2.5e-4\nparallel:\n")
    run = load_run_config([base, Path("second.yaml")], ["model.num_layers=12", "data.blend_alpha=3e-1"])
    assert (run.model.num_layers, run.model.hidden_size) == (12, 64)
    assert (run.optimizer.lr, run.data.blend_alpha) == (2.5e-4, 0.3)
    assert (run.run_dir, run.checkpoint_dir) == ("runs/trial", "runs/trial/checkpoints")


def test_groups_are_names_under_names(base: Path) -> None:
    Path("groups.yaml").write_text(
        "data:\n  train:\n    - path: data/*\n      groups:\n        label: nor_Latn\n        tier: 3\n"
    )
    (found,) = problems(base, Path("groups.yaml"))
    assert found == "groups.yaml:6: data.train[0].groups.tier=3: should be a valid string"
    Path("groups.yaml").write_text(Path("groups.yaml").read_text().replace("3", "low"))
    (entry,) = load_run_config([base, Path("groups.yaml")]).data.train
    assert entry.groups == {"label": "nor_Latn", "tier": "low"}


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "1.0e-4", "0.0001", "+1e-04", "100_000e-9"])
def test_every_way_to_write_a_float(base: Path, text: str) -> None:
    assert load_run_config([base], [f"optimizer.lr={text}"]).optimizer.lr == pytest.approx(1e-4)


def test_a_list_is_replaced_not_joined(base: Path) -> None:
    run = load_run_config([base], ["data.train=[{path: a, weight: 1}, {path: b, weight: 3}]"])
    assert [(entry.path, entry.weight) for entry in run.data.train] == [("a", 1.0), ("b", 3.0)]


@pytest.mark.usefixtures("base")
def test_defaults_lie_under_the_file_that_names_them() -> None:
    Path("sub").mkdir()
    Path("sub/deep.yaml").write_text("training:\n  seq_length: 64\n  train_iters: 7\n")
    Path("sub/middle.yaml").write_text("defaults: [deep.yaml]\ntraining:\n  train_iters: 9\n")
    Path("top.yaml").write_text("defaults:\n  - run.yaml\n  - sub/middle.yaml\nname: top\n")
    run = load_run_config([Path("top.yaml")])
    assert (run.name, run.training.seq_length, run.training.train_iters) == ("top", 64, 9)


def test_the_same_file_may_be_included_twice(base: Path) -> None:
    for name in ("left", "right"):
        Path(f"{name}.yaml").write_text("defaults: [run.yaml]\n")
    Path("top.yaml").write_text("defaults: [left.yaml, right.yaml]\n")
    assert load_run_config([Path("top.yaml")]) == load_run_config([base])


@pytest.mark.usefixtures("base")
def test_include_cycles_are_refused() -> None:
    Path("a.yaml").write_text("name: x\ndefaults: [b.yaml]\n")
    Path("b.yaml").write_text("defaults:\n  - a.yaml\n")
    assert problems(Path("a.yaml")) == [
        "b.yaml:2: defaults: files include each other: a.yaml → b.yaml → a.yaml"
    ]


@pytest.mark.usefixtures("base")
def test_missing_files() -> None:
    Path("a.yaml").write_text("defaults:\n  - ../nowhere.yaml\n")
    assert problems(Path("a.yaml"), Path("b.yaml")) == [
        "a.yaml:2: defaults: there is no file ../nowhere.yaml",
        "b.yaml: cannot be read: No such file or directory",
    ]
    assert problems() == ["no configuration file given"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("model:\n  num_layers: [1, 2\nname: x\n", "broken.yaml:3: not valid YAML"),
        ("- a\n- b\n", "broken.yaml:1: a configuration holds `section:` keys, not a list"),
        (
            "name: !!python/object:os.system x\n",
            "broken.yaml:1: not valid YAML: could not determine a constructor",
        ),
        ("model: &m\n  inner: *m\n", "broken.yaml:2: an alias stands inside its own anchor"),
        ("a: 1\n---\nb: 2\n", "broken.yaml:2: not valid YAML: but found another document"),
        ("name: \x00\n", "broken.yaml: not valid YAML: unacceptable character"),
    ],
)
def test_broken_yaml_names_the_line(base: Path, content: str, expected: str) -> None:
    Path("broken.yaml").write_text(content)
    assert problems(base, Path("broken.yaml"))[0].startswith(expected)


@pytest.mark.usefixtures("base")
def test_bytes_that_are_no_text() -> None:
    Path("broken.yaml").write_bytes(b"name: \xff\xfe\n")
    assert problems(Path("broken.yaml"))[0].startswith("broken.yaml: not valid YAML")


def test_anchors_and_merge_keys(base: Path) -> None:
    Path("second.yaml").write_text("optimizer: &o\n  lr: 0.5\n  min_lr: 0.1\ncheckpoint: {keep: &n 3}\n")
    Path("third.yaml").write_text(
        "training: &t {seq_length: 16, train_iters: 5}\n"
        "data:\n  train:\n    - &d {path: a}\n    - <<: *d\n      path: b\n"
    )
    run = load_run_config([base, Path("second.yaml"), Path("third.yaml")])
    assert [entry.path for entry in run.data.train] == ["a", "b"]
    assert (run.optimizer.min_lr, run.checkpoint.keep, run.training.seq_length) == (0.1, 3, 16)


def test_every_problem_at_once_with_its_line(base: Path) -> None:
    Path("a.yaml").write_text(
        "parallel:\n"
        "  tensor_model_parallel_sizes: 2\n"
        "training:\n"
        "  lr: 1e-4\n"
        "  micro_batch_size: true\n"
        "  train_iters: 1e4\n"
        "  train_iters: 1e5\n"
        "launch:\n"
        "  launcher: torchrn\n"
        "optimizer:\n"
        "  min_lr: 1\n"
        "trainin: {}\n"
    )
    assert problems(base, Path("a.yaml"), overrides=("model.zzzz=1", "model.num_layers=-3", "seven")) == [
        "a.yaml:7: train_iters: written twice, first at a.yaml:6",
        "override seven: an override looks like section.key=value",
        "override model.num_layers=-3: model.num_layers=-3: should be greater than 0",
        "override model.zzzz=1: model.zzzz: unknown key; valid keys: num_layers, hidden_size, "
        "ffn_hidden_size, num_attention_heads, num_query_groups, kv_channels, vocab_size, max_position_embeddings, "
        "rotary_base, rope_scaling, layernorm_epsilon, untie_embeddings_and_output_weights, add_qkv_bias, "
        "qk_layernorm, window_size, init_method_std",
        "a.yaml:2: parallel.tensor_model_parallel_sizes: unknown key; "
        "did you mean tensor_model_parallel_size?",
        "a.yaml:5: training.micro_batch_size=true: should be a valid integer",
        "a.yaml:7: training.train_iters=100000.0: should be a valid integer; write 100000",
        "a.yaml:4: training.lr: unknown key; did you mean optimizer.lr?",
        "a.yaml:9: launch.launcher=torchrn: must be 'torchrun', 'mpirun', 'deepspeed' or 'none'; "
        "did you mean torchrun?",
        "a.yaml:12: trainin: unknown key; did you mean training?",
        "a.yaml:11: optimizer.min_lr=1 is above lr=0.001; nearest: 0.001",
    ]


@pytest.mark.usefixtures("base")
def test_missing_keys_name_the_section_that_lacks_them() -> None:
    Path("a.yaml").write_text("name: a\nmodel:\n  num_layers: 2\ndata:\n  train:\n    - weight: 2\n")
    found = problems(Path("a.yaml"))
    assert "a.yaml:2: model.hidden_size: missing" in found
    assert any(
        line.startswith("a.yaml:6: data.train[0].path: missing (prefix without .bin/.idx") for line in found
    )
    assert not any("too_short" in line or "at least 1 item" in line for line in found)
    assert any(
        line.startswith("a.yaml:1: training: missing section; write one, or name a file") for line in found
    )


def test_an_empty_or_scalar_section(base: Path) -> None:
    assert problems(base, overrides=("data.train=[]",))[0].startswith("override data.train=[]: data.train: ")
    assert problems(base, overrides=("parallel=3",)) == [
        "override parallel=3: parallel: must hold keys of its own: tensor_model_parallel_size, "
        "pipeline_model_parallel_size, virtual_pipeline_model_parallel_size, num_layers_in_first_pipeline_stage, "
        "num_layers_in_last_pipeline_stage, context_parallel_size, sequence_parallel, use_distributed_optimizer, "
        "overlap_grad_reduce, overlap_param_gather, recompute_granularity, recompute_method, recompute_num_layers, "
        "recompute_modules"
    ]


def test_a_list_that_is_too_short_or_too_long(base: Path) -> None:
    (short,) = problems(base, overrides=("training.rampup_batch_size=[32,4]",))
    assert "training.rampup_batch_size[2]: missing ([start, increment, samples]: the batch grows" in short
    (long,) = problems(base, overrides=("training.rampup_batch_size=[4,4,9,9]",))
    assert "training.rampup_batch_size: Tuple should have at most 3 items" in long


def test_a_choice_that_is_a_word_or_a_truth_value_is_explained_once(base: Path) -> None:
    assert problems(base, overrides=("kernels.fused=maybe",)) == [
        "override kernels.fused=maybe: kernels.fused=maybe: must be 'auto', True or False"
    ]


@pytest.mark.parametrize(
    "override",
    [
        "training.seq_length='32'",
        "training.seq_length=32.5",
        "parallel.sequence_parallel=1",
        "optimizer.lr=.inf",
        "optimizer.lr=.nan",
        "optimizer.lr=true",
        "name=2024-01-01",
        "name=2024-13-01",
        "name=a/b",
        "launch.master_port=70000",
        "training.precision=fp17",
        "model=",
    ],
)
def test_values_are_not_bent_into_shape(base: Path, override: str) -> None:
    if override == "model=":
        assert load_run_config([base], [override]).model.num_layers == 4  # an empty section says nothing
    else:
        assert all(
            line.startswith(f"override {override}: ") for line in problems(base, overrides=(override,))
        )


def test_rules_carry_the_line_of_the_key_to_change(base: Path) -> None:
    assert problems(base, overrides=("launch.nproc_per_node=3",)) == [
        "run.yaml:15: training.global_batch_size=8 is not a multiple of micro_batch_size × "
        "data_parallel_size = 2 × 3; nearest: 6, 12"
    ]


def test_rules_find_the_line_of_an_item(base: Path) -> None:
    Path("data.yaml").write_text(
        "data:\n"
        "  train:\n"
        "    - {path: a, weight: 1}\n"
        "    - path: b\n"
        "      tokens: 5.0e9\n"
        "  stages:\n"
        "    - from_fraction: 0.9\n"
        "      train:\n"
        "        - {path: a}\n"
        "        - path: b\n"
        "          tokens: 1\n"
        "          samples: 1\n"
        "    - train: [{path: a}]\n"
    )
    found = problems(base, Path("data.yaml"))
    assert [line.split(": ")[0] for line in found] == ["data.yaml:5", "data.yaml:12", "data.yaml:13"]


def test_wrong_keys_and_values_of_stages_have_their_lines(base: Path) -> None:
    Path("data.yaml").write_text(
        "data:\n  stages:\n    - from_sample: 5\n      train:\n        - path: a\n          token: 5\n"
        "    - from_fraction: 1.5\n"
    )
    found = problems(base, Path("data.yaml"))
    assert found[0] == "data.yaml:6: data.stages[0].train[0].token: unknown key; did you mean tokens?"
    assert found[1] == "data.yaml:3: data.stages[0].from_sample: unknown key; did you mean from_samples?"
    assert found[2].startswith("data.yaml:7: data.stages[1].from_fraction=1.5: should be less than 1")
    assert found[3].startswith("data.yaml:7: data.stages[1].train: missing (in place of data.train")


def test_configuration_starts_fast_and_without_torch() -> None:
    script = (
        "import sys, time; start = time.process_time()\n"  # no other process moves this clock
        "import megatron_ext.config.load, megatron_ext.config.dump\n"
        "print(time.process_time() - start, sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]
    assert all(output.split(maxsplit=1)[1].strip() == "[]" for output in outputs)
    assert min(float(output.split()[0]) for output in outputs) < 0.3


class _Child(Section):
    sources: int


class _Parent(Section):
    name: str
    child: _Child


def test_a_section_of_its_own_is_read_with_line_and_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("name: a\nchild:\n  sources: 3\n")
    assert load_section(path, _Parent).child.sources == 3
    path.write_text("name: a\nchild:\n  source: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_section(path, _Parent)
    assert f"{path}:2: child.sources: missing" in caught.value.problems
    assert f"{path}:3: child.source: unknown key; did you mean sources?" in caught.value.problems
