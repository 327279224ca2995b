"""What a user gets wrong before training: exit code 2, one message that names the fix, and nothing on disk."""

import importlib.util

import pytest
import sentencepiece
import torch
from project_folder import Project


def refused(project: Project, message: str, *arguments: str) -> None:
    before = project.files()
    project.refuses(project.launch(*arguments), before, message)


def test_every_mistake_in_a_yaml_is_reported_with_its_line(project: Project) -> None:
    path = project.folder / "run.yaml"
    text = path.read_text(encoding="utf-8").replace("hidden_size: 16", "hiden_size: 16", 1)
    path.write_text(text.replace("lr: 1.0e-3", "lr: fast"), encoding="utf-8")
    before = project.files()
    done = project.launch("training.train_iters=0")
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (2, "", 4)
    assert "run.yaml:6: model.hiden_size: unknown key; did you mean hidden_size?" in done.stderr
    assert "model.hidden_size" in done.stderr
    assert "run.yaml:24: optimizer.lr=fast" in done.stderr
    assert "override training.train_iters=0" in done.stderr
    assert project.files() == before


def test_a_file_that_is_no_yaml(project: Project) -> None:
    (project.folder / "run.yaml").write_text("model:\n  num_layers: [1\n", encoding="utf-8")
    before = project.files()
    done = project.launch()
    assert (done.returncode, done.stdout, project.files()) == (2, "", before)
    assert done.stderr.startswith("error: run.yaml:3: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "data.train=[{path: nope}]",
            "data.train[0]: no dataset matches nope (looked for nope.idx); tools/preprocess_data.py makes them",
        ),
        (
            "checkpoint.load=nope",
            "nope: no such folder; expected a checkpoint (a folder with latest or manifest.json)",
        ),
        (
            "checkpoint.load=.",
            ".: no checkpoint here (neither manifest.json nor any iter_… folder)",
        ),
        (
            "model.vocab_size=258",
            "the tokenizer ByteTokenizer has 259 ids, but model.vocab_size is 258; use the model's own "
            "tokenizer or extend the embedding",
        ),
    ],
)
def test_what_a_run_names_must_be_there_and_fit(project: Project, override: str, message: str) -> None:
    refused(project, message, override)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here it may")
def test_attention_that_cannot_run_here(project: Project) -> None:
    """Known once the device is, hence after the line that names it."""
    before = project.files()
    on_what_there_is = ("device=auto", "training.precision=bf16")
    done = project.launch("kernels.attention_backend=flash4", *on_what_there_is)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, done.stdout) == (2, "")
    can = "what can serve here: auto, sdpa_flash, torch"
    assert errors == [f"error: kernels.attention_backend=flash4: needs an NVIDIA GPU; {can}"]
    assert project.files().keys() - before.keys() == {"run", "run/run.yaml"}


def test_a_tokenizer_that_is_missing_or_that_did_not_make_the_data(project: Project) -> None:
    kind = "tokenizer.type=SentencePieceTokenizer"
    missing = "m.model: cannot read the SentencePiece model: No such file or directory"
    refused(project, missing, kind, "tokenizer.model=m.model")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["All human beings are born free and equal."] * 10),
        model_prefix=str(project.folder / "m"),
        vocab_size=280,
        byte_fallback=True,
        minloglevel=2,
    )
    before = project.files()
    done = project.launch(kind, "tokenizer.model=m.model", "model.vocab_size=280")
    assert (done.returncode, done.stdout, project.files()) == (2, "", before)
    assert done.stderr.startswith("error: the training data was made with another tokenizer (ByteTokenizer, ")
    assert done.stderr.endswith("; name that one, or preprocess the text again\n")
    assert done.stderr.count("\n") == 1


def test_a_damaged_dataset(project: Project) -> None:
    idx, bin_ = (project.folder / f"data_text_document.{end}" for end in ("idx", "bin"))
    whole_idx, whole_bin = idx.read_bytes(), bin_.read_bytes()
    idx.write_bytes(whole_idx[:100])
    refused(
        project,
        "data_text_document.idx: is cut short: its 100 bytes cannot hold the 50 sequences and 51 document "
        "indices it announces",
    )
    idx.write_bytes(b"X" + whole_idx[1:])
    refused(
        project,
        "data_text_document.idx: does not start as an .idx file does; was it made by a preprocess tool of the "
        "Megatron family?",
    )
    idx.write_bytes(whole_idx)
    bin_.write_bytes(whole_bin[:-2])
    refused(
        project,
        "data_text_document.idx: sequence 49 ends behind the end of data_text_document.bin "
        f"({len(whole_bin) - 2} bytes): one of the two files is cut short or of another pair",
    )
    bin_.unlink()
    refused(
        project,
        "data_text_document.bin: missing beside data_text_document.idx; preprocess the text again",
    )


def test_a_checkpoint_of_another_shape(with_checkpoint: Project) -> None:
    folder = with_checkpoint.latest().relative_to(with_checkpoint.folder)
    message = (
        f"{folder} holds another model than this run describes:\n"
        "  model.num_layers is 2 in the run and 1 in the checkpoint\n"
        "  model.ffn_hidden_size is 64 in the run and 32 in the checkpoint"
    )
    shape = ("model.num_layers=2", "model.ffn_hidden_size=64")
    refused(with_checkpoint, message, *shape)
    refused(with_checkpoint, message, *shape, "run_dir=other", "checkpoint.load=run/checkpoints")


def test_a_checkpoint_without_its_manifest_or_altogether_gone(with_checkpoint: Project) -> None:
    latest = with_checkpoint.latest()
    folder = latest.relative_to(with_checkpoint.folder)
    (latest / "manifest.json").unlink()
    refused(
        with_checkpoint,
        f"{folder}/manifest.json: missing; {folder} is not a checkpoint of megatron_ext",
    )
    latest.rename(latest.with_name("elsewhere"))
    refused(
        with_checkpoint,
        f"run/checkpoints/latest names '{latest.name}', which is not there; write one of these into it: none",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.jsonl: the file is empty"),
        ('{"text": ""}\n{"text": ""}\n', "bad.jsonl: no documents for bad_text_document (2 empty texts)"),
        ('{"text": "fine"}\n{"text": 3}\n', "bad.jsonl:2: 'text' holds a number, expected a string"),
        (None, "bad.jsonl: no such file"),
    ],
)
def test_a_corpus_without_text(project: Project, text: str | None, message: str) -> None:
    if text is not None:
        (project.folder / "bad.jsonl").write_text(text, encoding="utf-8")
    before = project.files()
    arguments = ("--input", "bad.jsonl", "--output-prefix", "bad", "--tokenizer-type", "ByteTokenizer")
    project.refuses(project.tool("preprocess_data.py", *arguments), before, message)


def test_tools_refuse_folders_that_hold_no_checkpoint(project: Project) -> None:
    before = project.files()
    project.refuses(
        project.tool("generate.py", "--checkpoint", "nope", "--prompt", "All"),
        before,
        "nope: no such folder; expected a checkpoint (a folder with latest or manifest.json)",
    )
    project.refuses(
        project.tool("convert_checkpoint.py", "from-hf", "--hf-path", "nope", "--output", "imported"),
        before,
        "nope: no such folder; download it first: hf download NAME --local-dir DIR",
    )


@pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is not None, reason="Transformer Engine is installed"
)
def test_fp8_without_transformer_engine(project: Project) -> None:
    refused(
        project,
        "transformer-engine is needed to train in FP8 (training.fp8); install it with: "
        "pip install --no-build-isolation 'transformer-engine[pytorch]'",
        "training.fp8=hybrid",
        "training.precision=bf16",
        "device=cuda",
        "training.micro_batch_size=4",
    )
