"""transformers as the independent judge: of imported logits, of training itself, and of what is exported."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from comparable_runs import SEQ_LENGTH, TRAIN_ITERS, Finished, World, launch
from transformers import LlamaForCausalLM

from megatron_ext.config.dump import load_resolved
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.data.build import Datasets
from megatron_ext.data.loader import TrainLoader
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.train.inputs import open_inputs

WORKER = Path(__file__).with_name("logits_worker.py")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The run's, written down a second time from its definition."""

    peak: float = 5e-3
    floor: float = 5e-4
    warmup: int = 4

    def __call__(self, step: int) -> float:
        if step <= self.warmup:
            return self.peak * step / self.warmup
        progress = (step - self.warmup) / (TRAIN_ITERS - self.warmup)
        return self.floor + (self.peak - self.floor) * (1 + math.cos(math.pi * progress)) / 2


@pytest.mark.parametrize("tensor_model_parallel_size", [1, 2])
def test_imported_logits(
    world: World, single: Finished, tmp_path: Path, tensor_model_parallel_size: int
) -> None:
    tokens = torch.randint(0, 259, (3, SEQ_LENGTH), generator=torch.Generator().manual_seed(7))
    torch.save(tokens, tmp_path / "tokens.pt")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        f"--nproc-per-node={tensor_model_parallel_size}", str(WORKER), str(single.folder / "run.yaml"), str(tmp_path),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=120)
    with torch.inference_mode():
        expected = LlamaForCausalLM.from_pretrained(world.hf)(tokens).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, rtol=0, atol=1e-4)


def test_a_plain_training_loop_follows_our_losses(world: World, single: Finished) -> None:
    """Hugging Face's Llama, torch's AdamW and clipping, the same batches: no line of ours but the data."""
    model = LlamaForCausalLM.from_pretrained(world.hf)
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    norms = [weight for weight in model.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
        betas=(0.9, 0.95), eps=1e-8,
    )  # fmt: skip
    losses, grad_norms, by_set = [], [], []
    batches = TrainLoader(_datasets(single).train, BatchSampler(8, 8, 0, 1), 1).batches(0)
    for step in range(1, TRAIN_ITERS + 1):
        (batch,) = next(batches)
        tokens = torch.from_numpy(batch.tokens.astype(np.int64))
        labels = tokens[:, 1:].clone()
        if batch.loss_mask is not None:
            labels[torch.from_numpy(batch.loss_mask) == 0] = -100
        for group in optimizer.param_groups:
            group["lr"] = Schedule()(step)
        logits = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        with torch.no_grad():
            by_token = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        by_set.append({})
        for index, label in enumerate(("eng_Latn", "fin_Latn", "Hindi")):
            own = torch.from_numpy(batch.dataset_index == index)
            if own.any():
                counted = (labels[own] >= 0).sum().item()
                by_set[-1][label] = (by_token[own].sum().item() / counted, counted)
        optimizer.zero_grad()
        loss.backward()
        grad_norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)))
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(
        single.column("learning_rate"), [Schedule()(n) for n in range(1, TRAIN_ITERS + 1)]
    )
    np.testing.assert_allclose(single.column("lm_loss"), losses, rtol=0, atol=1e-3)
    np.testing.assert_allclose(single.column("grad_norm"), grad_norms, rtol=1e-2)
    for record, expected in zip(single.train, by_set, strict=True):
        found = record["per_group"]["label"]
        assert found.keys() == expected.keys()
        for label, score in found.items():
            assert (score["lm_loss"], score["tokens"]) == pytest.approx(expected[label], abs=2e-3)


def test_attention_inside_documents(world: World, tmp_path: Path) -> None:
    """The first step's loss with document masking, where a token sees its own document only."""
    masking = ("data.reset_attention_mask=true", "data.eod_mask_loss=true", "training.train_iters=1")
    pipeline = ("parallel.pipeline_model_parallel_size=2", "optimizer.lr_warmup_iters=0")
    run = launch(world, tmp_path, *masking, *pipeline, "training.global_batch_size=64", processes=2)
    (batch,) = next(TrainLoader(_datasets(run).train, BatchSampler(64, 64, 0, 1), 1).batches(0))
    assert batch.loss_mask is not None
    tokens = torch.from_numpy(batch.tokens.astype(np.int64))
    inputs, eod = tokens[:, :-1], 257
    document = torch.cumsum(torch.cat([torch.zeros(64, 1), (inputs == eod)[:, :-1]], dim=1), dim=1)
    sees = (document[:, :, None] == document[:, None, :]) & torch.ones(
        SEQ_LENGTH, SEQ_LENGTH, dtype=bool
    ).tril()
    assert not sees[:, -1].all(), "no window of this batch holds two documents"
    with torch.inference_mode():
        logits = LlamaForCausalLM.from_pretrained(world.hf)(inputs, attention_mask=sees[:, None]).logits
    labels = tokens[:, 1:].masked_fill(torch.from_numpy(batch.loss_mask) == 0, -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    assert run.column("lm_loss") == pytest.approx([expected], abs=1e-5)
    assert not batch.loss_mask[(inputs == eod).numpy()].any()


def test_an_exported_model_scores_as_it_did_here(single: Finished, tmp_path: Path) -> None:
    export_hf(single.folder / "checkpoints", tmp_path / "hf")
    model = LlamaForCausalLM.from_pretrained(tmp_path / "hf").eval()
    valid = _datasets(single).valid
    assert valid is not None
    tokens, lengths, sets = valid.gather(np.arange(valid.num_windows))
    rows = torch.from_numpy(tokens.astype(np.int64))
    padding = torch.arange(SEQ_LENGTH) >= torch.from_numpy(lengths)[:, None] - 1
    labels = rows[:, 1:].masked_fill(padding, -100)
    with torch.inference_mode():
        logits = model(rows[:, :-1]).logits
    by_token = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    record = single.validation[-1]
    assert record["lm_loss"] == pytest.approx(by_token.sum().item() / (labels >= 0).sum().item(), abs=1e-4)
    for index, name in enumerate(valid.names):
        own = torch.from_numpy(sets == index)
        expected = by_token[own].sum().item() / (labels[own] >= 0).sum().item()
        assert record["per_dataset"][name]["lm_loss"] == pytest.approx(expected, abs=1e-4)
        # Bytes are tokens here, but for the end of each document, which is a token without a byte.
        documents, text_bytes = 3, valid.statistics[index].bytes  # type: ignore[union-attr]
        bits = expected / math.log(2) * (text_bytes + documents) / text_bytes
        assert record["per_dataset"][name]["bits_per_byte"] == pytest.approx(bits, rel=1e-4)


def _datasets(run: Finished) -> Datasets:
    return open_inputs(load_resolved(run.folder / "run.yaml")).datasets
