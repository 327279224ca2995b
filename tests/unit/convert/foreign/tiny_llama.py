"""A tiny Llama of transformers, and the proof that an import of it computes the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_ext.convert.foreign.importing import import_foreign
from megatron_ext.convert.to_hf import export_hf

HIDDEN, FFN, LAYERS, HEADS, HEAD_SIZE, VOCABULARY = 32, 48, 4, 4, 8, 40


@dataclass(frozen=True)
class TinyLlama:
    """Weights by transformers' names; ``module`` is the model."""

    module: Any
    kv_heads: int

    @classmethod
    def make(cls, kv_heads: int = 2, is_tied: bool = False) -> "TinyLlama":
        transformers = pytest.importorskip("transformers")
        config = transformers.LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=kv_heads, max_position_embeddings=64,
            rms_norm_eps=1e-5, rope_theta=5000.0, tie_word_embeddings=is_tied, initializer_range=0.3,
        )  # fmt: skip
        torch.manual_seed(kv_heads)
        module = transformers.LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if "norm" in name:
                    weight.normal_(1.0, 0.3)
        return cls(module, kv_heads)

    def __getitem__(self, name: str) -> torch.Tensor:
        weight: torch.Tensor = self.module.state_dict()[name]
        return weight

    def layer(self, number: int, name: str) -> torch.Tensor:
        """A weight of one layer, such as ``mlp.up_proj``."""
        return self[f"model.layers.{number}.{name}.weight"]

    def heads(self, number: int, which: str) -> list[torch.Tensor]:
        """Rows of q, k or v, head by head."""
        return list(self.layer(number, f"self_attn.{which}_proj").split(HEAD_SIZE))


def assert_imported(llama: TinyLlama, model: Any, origin: Path, work: Path) -> None:
    """Import, export to Hugging Face, let transformers compute with both."""
    transformers = pytest.importorskip("transformers")
    import_foreign(model, origin, work / "checkpoint")
    export_hf(work / "checkpoint", work / "exported")
    exported = transformers.AutoModelForCausalLM.from_pretrained(work / "exported").eval()
    tokens = torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = exported(tokens).logits, llama.module(tokens).logits
    assert theirs.std() > 0.1
    assert torch.equal(ours, theirs)
    assert exported.config.tie_word_embeddings == llama.module.config.tie_word_embeddings
    assert exported.state_dict().keys() == llama.module.state_dict().keys()


def imported_frequencies(model: Any, origin: Path, work: Path) -> torch.Tensor:
    """What transformers' rotary embedding makes of an import's rope settings, of each pair of dimensions."""
    transformers = pytest.importorskip("transformers")
    import_foreign(model, origin, work / "checkpoint")
    export_hf(work / "checkpoint", work / "exported")
    exported = transformers.AutoModelForCausalLM.from_pretrained(work / "exported")
    frequencies: torch.Tensor = exported.model.rotary_emb.inv_freq
    return frequencies


class Hostile:
    """Leaves a trace if it is ever called."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.trace, "run"))
