"""megatron-core is the judge: it loads what we write, and we read what it writes."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_ext.checkpoint.canonical import CanonicalReader
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.convert.from_hf import import_hf

transformers = pytest.importorskip("transformers")
HELPER = Path(__file__).parent / "megatron_process.py"


@dataclass(frozen=True)
class Exchange:
    """A model of transformers, our import of it, and what megatron-core made of that."""

    llama: Any
    tokens: torch.Tensor
    imported: Path
    saved: Path
    result: dict[str, Any]


def _llama(kv_heads: int, is_tied: bool) -> Any:
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=is_tied,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def exchanges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exchange]:
    root = tmp_path_factory.mktemp("exchange")
    models = {"grouped_untied": _llama(2, is_tied=False), "multi_head_tied": _llama(4, is_tied=True)}
    tokens = torch.randint(0, 96, (2, 16))
    for name, llama in models.items():
        llama.save_pretrained(root / name / "hf")
        import_hf(root / name / "hf", root / name / "imported")
        torch.save(tokens, root / name / "tokens.pt")
    subprocess.run(
        [sys.executable, HELPER, *(root / name for name in models)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
    )
    return {
        name: Exchange(
            llama=llama,
            tokens=tokens,
            imported=CheckpointStore.resolve(root / name / "imported"),
            saved=root / name / "saved",
            result=torch.load(root / name / "result.pt", weights_only=True),
        )
        for name, llama in models.items()
    }


@pytest.fixture(params=["grouped_untied", "multi_head_tied"])
def exchange(request: pytest.FixtureRequest, exchanges: dict[str, Exchange]) -> Exchange:
    return exchanges[request.param]


def test_megatron_core_finds_every_tensor(exchange: Exchange) -> None:
    assert exchange.result["missing"] == []
    assert exchange.result["unexpected"] == []


def test_megatron_core_computes_what_transformers_computes(exchange: Exchange) -> None:
    with torch.no_grad():
        expected = exchange.llama(exchange.tokens).logits
    assert expected.std() > 0.5  # logits that a wrong order of rows would change
    torch.testing.assert_close(exchange.result["logits"], expected, atol=1e-4, rtol=0)


def test_tensor_parallel_ranks_of_any_pipeline_stage_get_their_slices(exchange: Exchange) -> None:
    reader = CanonicalReader(exchange.imported)
    shards = exchange.result["shards"]
    assert len(shards) == 3 * 3 * 2
    for name, shard in shards.items():
        key, layer, rank = name.rsplit("/", 2)
        whole = reader.read_layer(key, int(layer))
        axis = 0 if "linear_qkv" in key else 1
        assert torch.equal(shard, whole.chunk(2, axis)[int(rank)])


def test_what_megatron_core_writes_is_read(exchange: Exchange) -> None:
    """Its file has pickled _extra_state entries and another chunking; the tensors are the same."""
    ours, theirs = CanonicalReader(exchange.imported), CanonicalReader(exchange.saved)
    assert sorted(theirs.keys()) == sorted(ours.keys())
    for key in ours.keys():  # noqa: SIM118 - not a dict
        assert torch.equal(theirs.read(key), ours.read(key))
