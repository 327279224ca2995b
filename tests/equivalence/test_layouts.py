"""The same run on any layout: equal losses and gradient norms, from one imported checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from comparable_runs import LANGUAGES, TRAIN_ITERS, Finished, World, launch, llama_config, same_groups
from layout_cases import (
    BF16,
    BF16_REFERENCES,
    FAMILIES,
    FP16,
    FULL,
    GRAPHS,
    LAYOUTS,
    OVERFLOWS,
    RANDOM_STAGES,
    REFERENCES,
    RESUMED,
    SHAPE,
)
from layouts import Case, Runs
from transformers import AutoConfig, AutoModelForCausalLM

from megatron_ext.checkpoint.canonical import CanonicalReader
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.data.preprocess import preprocess


@pytest.fixture(scope="module")
def runs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    whole_rows = [f"data.train=[{{path: {short_documents(folder)}}}]"]
    documents = [*whole_rows, "data.reset_attention_mask=true", "data.eod_mask_loss=true"]
    families = {name: imported(folder, name) for name in FAMILIES}
    variants = {
        "plain": [],
        "documents": documents,
        "whole rows": [*whole_rows, "data.eod_mask_loss=true"],
        "random": ["checkpoint.load=null"],
        "tied": families["tied"],
        "tied documents": [*families["tied"], *documents],
        "mistral": families["mistral"],
        "mistral documents": [*families["mistral"], *documents],
        "qwen2 tied documents": [*families["qwen2 tied"], *documents],
        "qwen3 documents": [*families["qwen3"], *documents],
        "fp16": [
            "training.precision=fp16", "optimizer.initial_loss_scale=65536", "optimizer.hysteresis=1",
            "optimizer.loss_scale_window=8",
        ],
    }  # fmt: skip
    variants["bf16"] = ["training.precision=bf16"]
    for name in ("tied documents", "mistral documents", "qwen2 tied documents", "qwen3 documents"):
        variants[f"bf16 {name}"] = [*variants[name], *variants["bf16"]]
    cases = [*REFERENCES, *BF16_REFERENCES, OVERFLOWS, RANDOM_STAGES, *LAYOUTS, *RESUMED, *BF16, *FP16]
    return Runs(world, folder, variants, cases)


def imported(folder: Path, name: str) -> list[str]:
    """Overrides of a family's random model, whose norms and biases are not the ones and zeros that hide a lost one."""
    changes, overrides = FAMILIES[name]
    place = folder / name.replace(" ", "_")
    shape = {key: value for key, value in llama_config().to_dict().items() if key in SHAPE}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{"model_type": "llama", **shape, **changes})
    )
    for key, weight in model.named_parameters():
        if weight.dim() == 1:
            torch.nn.init.normal_(weight, mean=float("norm" in key), std=0.1)
    model.save_pretrained(place / "hf")
    import_hf(place / "hf", place / "imported")
    return [*overrides, f"checkpoint.load={place / 'imported'}"]


def short_documents(folder: Path) -> str:
    """Of 1 to 40 bytes, so that a row of 32 tokens, and each of its chunks, holds the ends of a few or of none."""
    text = LANGUAGES["eng_Latn"]
    lines = [json.dumps({"text": text[: 1 + 7 * number % 40]}) + "\n" for number in range(400)]
    (folder / "short.jsonl").write_text("".join(lines), encoding="utf-8")
    prefix = f"{folder}/short"
    preprocess([folder / "short.jsonl"], prefix, tokenizer_type="ByteTokenizer", append_eod=True, workers=1)
    return f"{prefix}_text_document"


@pytest.mark.parametrize("case", [*LAYOUTS, *RESUMED], ids=lambda case: case.name)
def test_a_layout_changes_nothing(runs: Runs, case: Case) -> None:
    one, many = runs.finished(Case("TP1", variant=case.variant)), runs.finished(case)
    first = 0 if case.resumes is None else 10
    assert [record["iteration"] for record in many.train] == list(range(first + 1, TRAIN_ITERS + 1))
    np.testing.assert_allclose(many.column("lm_loss"), one.column("lm_loss")[first:], rtol=0, atol=1e-5)
    # A rank that counts its part of a gradient twice, or not at all, shows here long before it shows in the loss.
    np.testing.assert_allclose(many.column("grad_norm"), one.column("grad_norm")[first:], rtol=1e-4)
    for ours, theirs in zip(
        [*many.train, many.validation[-1]], [*one.train[first:], one.validation[-1]], strict=True
    ):
        assert "documents" in case.name or len(theirs["per_group"]["label"]) >= 2
        same_groups(ours.get("per_group", {}), theirs.get("per_group", {}), abs=1e-4, rel=1e-5)
    ours, theirs = many.validation[-1]["per_dataset"], one.validation[-1]["per_dataset"]
    assert len(ours) == len(theirs) == 3
    for name, record in theirs.items():
        assert ours[name] == pytest.approx(record, abs=1e-5)


@pytest.mark.parametrize(
    "case",
    [
        Case("DP2 distributed overlapped"),
        Case("PP2 VPP2"),
        Case("CP2"),
        Case("TP4"),
        Case("PP2 VPP2 DP2 distributed overlapped"),
    ],
    ids=lambda case: case.name,
)
def test_a_checkpoint_holds_the_weights_of_its_step(runs: Runs, case: Case) -> None:
    """Where gathering is overlapped, other ranks' weights would be those of one step before, 2 % off."""
    one, many = (
        CanonicalReader(run.folder / "checkpoints/iter_0000010")
        for run in (runs.finished(Case("TP1")), runs.finished(case))
    )
    keys = one.keys()
    assert many.keys() == keys
    for key in keys:
        rows = one.shape(key)[0]
        theirs, ours = one.read(key), many.read(key)[:rows]
        assert (ours - theirs).norm() < 1e-4 * theirs.norm(), key


def test_no_two_layers_start_alike(runs: Runs) -> None:
    """Each process draws its own layers: stages from seeds apart, chunks of a stage one after the other."""
    checkpoint = CanonicalReader(runs.finished(RANDOM_STAGES).folder / "checkpoints/iter_0000010")
    weights = checkpoint.read("decoder.layers.mlp.linear_fc1.weight").flatten(1)
    likeness = torch.corrcoef(weights) - torch.eye(len(weights))
    assert likeness.abs().max() < 0.2


def test_the_references_differ(runs: Runs) -> None:
    """Each variant is another run, or its comparisons would say nothing."""
    first_losses = {runs.finished(case).column("lm_loss")[0] for case in REFERENCES}
    assert len(first_losses) == len(REFERENCES)


def test_training_learns(single: Finished) -> None:
    losses = single.column("lm_loss")
    assert losses[-1] < losses[0] - 1.0
    assert single.validation[-1]["lm_loss"] < single.validation[0]["lm_loss"] - 1.0


def test_bf16_follows_fp32(runs: Runs) -> None:
    """Fp32 main weights and gradients behind bf16: the same run but for rounding (2⁻⁸ a value)."""
    one, short = runs.finished(Case("TP1")), runs.finished(Case("TP1", variant="bf16"))
    np.testing.assert_allclose(short.column("lm_loss"), one.column("lm_loss"), rtol=0, atol=1e-2)


@pytest.mark.parametrize("case", BF16, ids=lambda case: case.name)
def test_layouts_round_alike_in_bf16(runs: Runs, case: Case) -> None:
    """And so do states of 10 bytes a parameter, beside those of 18.

    Loss falls by half within these steps, so what is rounded otherwise in the first grows until the last. Context
    parallelism sums gradients of keys and values in bf16; the same runs in fp32 agree within 1e-5.
    """
    one, many = runs.finished(Case("TP1", variant=case.variant)), runs.finished(case)
    first = 0 if case.resumes is None else 10
    bound = 4e-2 if "CP2" in case.layout else 2e-2
    np.testing.assert_allclose(many.column("lm_loss"), one.column("lm_loss")[first:], rtol=0, atol=bound)


@pytest.mark.parametrize("case", FP16, ids=lambda case: case.name)
def test_fp16_skips_the_same_steps(runs: Runs, case: Case) -> None:
    """One process's overflow is all processes'; and the scale, found by halving, goes along into another layout."""
    one, many = runs.finished(OVERFLOWS), runs.finished(case)
    first = 0 if case.resumes is None else 10
    skipped = one.column("skipped_iterations")
    assert 2 < skipped[9] < 10
    assert many.column("skipped_iterations") == skipped[first:]
    assert many.column("learning_rate") == one.column("learning_rate")[first:]
    np.testing.assert_allclose(many.column("lm_loss"), one.column("lm_loss")[first:], rtol=0, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("overrides", [(), (GRAPHS,), (GRAPHS, FULL)])
def test_a_gpu_follows_the_cpu(
    world: World, single: Finished, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    run = launch(world, tmp_path, "device=cuda", *overrides)
    np.testing.assert_allclose(run.column("lm_loss"), single.column("lm_loss"), rtol=0, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
@pytest.mark.parametrize(
    "case",
    [
        Case("TP2 SP"),
        Case("PP2 VPP2"),
        Case("DP2 distributed overlapped"),
        Case("CP2"),
        Case("TP2 SP", (GRAPHS,)),
        Case("PP2", (GRAPHS,)),
        Case("DP2 distributed overlapped", (GRAPHS, "parallel.overlap_param_gather=false")),
        Case("CP2", (GRAPHS,)),
    ],
    ids=lambda case: case.name,
)
def test_two_gpus_follow_the_cpu(world: World, single: Finished, tmp_path: Path, case: Case) -> None:
    """The paths that only NCCL takes: sends one by one between interleaved stages, gathering on a stream of its own."""
    run = launch(world, tmp_path, "device=cuda", *case.settings(), processes=2)
    np.testing.assert_allclose(run.column("lm_loss"), single.column("lm_loss"), rtol=0, atol=1e-3)
