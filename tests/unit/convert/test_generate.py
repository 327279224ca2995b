import json
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.cli.main import run_verb
from megatron_ext.config.sections import TokenizerConfig
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.errors import ConfigError, TokenizerError
from megatron_ext.evaluate.generate import generate, load_checkpoint, load_hf
from megatron_ext.evaluate.sampling import Sampling

transformers = pytest.importorskip("transformers")
BYTES = TokenizerConfig(type="ByteTokenizer")
PROMPT = "The cat"


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama that knows bytes, bos 256, eos 257 and pad 258."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.3, bos_token_id=256, eos_token_id=257,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("generate") / "hf"
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    # Sampling defaults of a model's own must not leak into what was asked for.
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 5.0}))
    return folder


@pytest.fixture(scope="module")
def checkpoint(hf: Path) -> Path:
    return import_hf(hf, hf.parent / "checkpoint")


def _greedy(hf: Path, length: int) -> str:
    """Token by token, without a cache and without generate()."""
    model: Any = transformers.LlamaForCausalLM.from_pretrained(hf).eval()
    ids = [256, *PROMPT.encode()]
    for _ in range(length):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 257:
            break
    return bytes(token for token in ids if token < 256).decode(errors="replace")


def test_greedy_equals_taking_the_largest_logit_each_time(hf: Path, checkpoint: Path) -> None:
    expected = _greedy(hf, 24)
    sampling = Sampling(max_new_tokens=24)
    assert generate(load_hf(hf, BYTES), PROMPT, sampling) == expected
    assert generate(load_checkpoint(checkpoint, BYTES), PROMPT, sampling) == expected


def test_sampling_depends_on_the_seed_alone(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint, BYTES)
    texts = [
        generate(loaded, PROMPT, Sampling(32, temperature=1.0, top_p=0.9, seed=seed)) for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    nearly_greedy = generate(loaded, PROMPT, Sampling(24, temperature=1.0, top_p=1e-6))
    assert nearly_greedy == generate(loaded, PROMPT, Sampling(24))


def test_the_bos_can_be_left_out(checkpoint: Path) -> None:
    loaded = load_checkpoint(checkpoint, BYTES)
    assert generate(loaded, PROMPT, Sampling(24)) != generate(loaded, PROMPT, Sampling(24), prepend_bos=False)
    assert generate(loaded, "", Sampling(4)) != ""
    with pytest.raises(TokenizerError, match="nothing to continue"):
        generate(loaded, "", Sampling(4), prepend_bos=False)


def test_the_recorded_tokenizer_is_used(checkpoint: Path) -> None:
    manifest = Manifest.read(checkpoint)
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        load_checkpoint(checkpoint)
    manifest.model_copy(update={"tokenizer": BYTES}).write(checkpoint)
    assert load_checkpoint(checkpoint).tokenizer.vocab_size == 259
    manifest.write(checkpoint)


def test_a_sentencepiece_model_beside_the_weights_is_enough(hf: Path, tmp_path: Path) -> None:
    """A checkpoint of the quickstart has tokenizer.model and no tokenizer.json."""
    sentencepiece = pytest.importorskip("sentencepiece")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the cat sat on the mat and the dog sat on the cat\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=40,
        model_type="bpe",
        minloglevel=2,
    )
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((hf / name).read_bytes())
    (folder / "tokenizer.model").write_bytes((tmp_path / "tokenizer.model").read_bytes())
    loaded = load_checkpoint(import_hf(folder, tmp_path / "checkpoint"))
    text = generate(loaded, "the cat", Sampling(8))
    assert text.startswith("the cat")
    assert text == generate(load_hf(folder), "the cat", Sampling(8))


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=200, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "hf")
    with pytest.raises(TokenizerError, match="ByteTokenizer has 259 tokens, the model only 200"):
        load_hf(tmp_path / "hf", BYTES)


def test_values_out_of_range_are_all_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Sampling(max_new_tokens=0, temperature=-1, top_p=0).check()
    assert [problem.split("=")[0] for problem in caught.value.problems] == [
        "max_new_tokens",
        "temperature",
        "top_p",
    ]


def test_the_command_prints_prompt_and_continuation(
    hf: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prompt", PROMPT, "--tokenizer-type", "ByteTokenizer", "--max-new-tokens", "24"]
    assert run_verb("generate", ["--checkpoint", str(checkpoint.parent), *options]) == 0
    assert capsys.readouterr().out == _greedy(hf, 24) + "\n"
    assert run_verb("generate", ["--hf-path", str(hf), "--prompt", PROMPT]) == 2
    assert "error: " in capsys.readouterr().err
    assert run_verb("generate", ["--hf-path", str(hf / "absent"), *options]) == 2
    assert "config.json: missing" in capsys.readouterr().err
