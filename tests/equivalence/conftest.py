"""What all comparisons share, made once a session."""

import json

import pytest
import torch
from comparable_runs import LANGUAGES, Finished, World, launch, llama_config, run_config
from transformers import LlamaForCausalLM

from megatron_ext.convert.from_hf import import_hf
from megatron_ext.data.preprocess import preprocess


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    for part, copies in (("train", 40), ("valid", 3)):
        (folder / part).mkdir()
        for label, text in LANGUAGES.items():
            documents = [{"text": text * (1 + number % 5)} for number in range(copies)]
            lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
            (folder / part / f"{label}.jsonl").write_text(lines, encoding="utf-8")
        preprocess(
            sorted((folder / part).glob("*.jsonl")),
            f"{folder}/data/{part}",
            tokenizer_type="ByteTokenizer",
            append_eod=True,
            shard_per_input=True,
            workers=1,
        )
    torch.manual_seed(0)
    LlamaForCausalLM(llama_config()).save_pretrained(folder / "hf")
    import_hf(folder / "hf", folder / "imported")
    return World(folder, folder / "hf", folder / "imported", run_config(folder))


@pytest.fixture(scope="session")
def single(world: World, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The reference: one process, never stopped."""
    return launch(world, tmp_path_factory.mktemp("single"), "training.eval_at_start=true")
