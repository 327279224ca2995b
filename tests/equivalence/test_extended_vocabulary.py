"""Tokens added to a tokenizer and rows to its model by transformers: imported, trained on two ranks, exported again."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparable_runs import LANGUAGES, SEQ_LENGTH, Finished, World, launch, llama_config
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from megatron_ext.config.dump import load_resolved
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.data.loader import TrainLoader
from megatron_ext.data.preprocess import preprocess
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.train.inputs import open_inputs

BASE, ADDED = 300, ("vapaina", "ihmiset", "born", "equal", "मनुष्यों", "<|fin|>", "<|unused|>")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
ROWS = BASE + len(ADDED)  # 307, a prime number: one of two ranks has a row that no token has
LR, DECAY, EPS = 5e-3, 0.1, 1e-3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with its tokenizer."""
    folder = tmp_path_factory.mktemp("base")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=BASE,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(LANGUAGES.values(), trainer)
    PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL).save_pretrained(folder)
    torch.manual_seed(3)
    shape = {**llama_config().to_dict(), "vocab_size": BASE, "tie_word_embeddings": False}
    LlamaForCausalLM(LlamaConfig(**shape)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["untied", "tied"])
def extended(request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user makes of it to teach it more languages."""
    folder = tmp_path_factory.mktemp(f"extended-{request.param}")
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert len(tokenizer) == BASE
    tokenizer.add_tokens(list(ADDED))
    tokenizer.save_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(base, tie_word_embeddings=request.param == "tied")
    model.resize_token_embeddings(len(tokenizer))
    assert model.get_input_embeddings().weight.shape[0] == ROWS
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(world: World, extended: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One step on two tensor-parallel ranks."""
    folder = tmp_path_factory.mktemp("run")
    text = folder / "text.jsonl"
    documents = [{"text": f"<|fin|>{text}" * 3} for text in LANGUAGES.values()] * 20
    text.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    preprocess(
        [text], f"{folder}/data", tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(extended),
        append_eod=True, workers=1,
    )  # fmt: skip
    import_hf(extended, folder / "imported")
    tied = LlamaConfig.from_pretrained(extended).tie_word_embeddings
    config: dict[str, Any] = {
        **world.config,
        "model": {
            **world.config["model"],
            "vocab_size": ROWS,
            "untie_embeddings_and_output_weights": not tied,
        },
        "tokenizer": {"type": "HuggingFaceTokenizer", "model": str(extended)},
        "data": {"train": [{"path": f"{folder}/data_text_document"}]},
        "checkpoint": {"load": f"{folder}/imported"},
        "optimizer": {"lr": LR, "min_lr": LR, "adam_eps": EPS, "weight_decay": DECAY, "clip_grad": 0.0},
    }
    overrides = ("training.train_iters=1", "parallel.tensor_model_parallel_size=2")
    return launch(dataclasses.replace(world, config=config), folder, *overrides, processes=2)


def _after_one_step(extended: Path, run: Finished) -> tuple[LlamaForCausalLM, set[int]]:
    """transformers' model after a step of torch's AdamW on the same batch, and the tokens that it read."""
    model = LlamaForCausalLM.from_pretrained(extended)
    weights = list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": DECAY},
        {"params": [weight for weight in weights if weight.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=EPS)
    train = open_inputs(load_resolved(run.folder / "run.yaml")).datasets.train
    (batch,) = next(TrainLoader(train, BatchSampler(8, 8, 0, 1), 1).batches(0))
    tokens = torch.from_numpy(batch.tokens.astype(np.int64))
    assert tokens.shape == (8, SEQ_LENGTH + 1)
    loss = torch.nn.functional.cross_entropy(
        model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()
    )
    assert run.column("lm_loss") == pytest.approx([loss.item()], abs=1e-5)
    loss.backward()
    optimizer.step()
    return model, set(tokens[:, :-1].flatten().tolist())


def test_what_is_not_trained_comes_back_bit_for_bit(extended: Path, tmp_path: Path) -> None:
    import_hf(extended, tmp_path / "checkpoint")
    export_hf(tmp_path / "checkpoint", tmp_path / "out")
    expected = LlamaForCausalLM.from_pretrained(extended).state_dict()
    found = LlamaForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_step_moves_every_row_as_transformers_does(extended: Path, run: Finished, tmp_path: Path) -> None:
    expected, read = _after_one_step(extended, run)
    before = LlamaForCausalLM.from_pretrained(extended).state_dict()
    found = LlamaForCausalLM.from_pretrained(export_hf(run.folder / "checkpoints", tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ADDED]
    assert ids == list(range(BASE, ROWS))
    assert set(ids) - read == {ids[-1]}  # all but one of the new tokens were in the text
    assert len(tokenizer) == found.config.vocab_size == ROWS
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, rtol=0, atol=1e-5)
    moved = found.state_dict()["model.embed_tokens.weight"] - before["model.embed_tokens.weight"]
    assert moved[ids[:-1]].abs().amax(dim=1).min().item() > 1e-4  # ten times what is allowed above
