import argparse
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets.indexed_dataset import IndexedDataset as MegatronDataset
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from megatron_ext.cli import preprocess as command
from megatron_ext.data import preprocess as preprocess_module
from megatron_ext.data import preprocess_encode, preprocess_read
from megatron_ext.data.indexed import DatasetStatistics
from megatron_ext.data.preprocess import PreprocessResult, preprocess
from megatron_ext.errors import DataError, TokenizerError

TEXTS = ["The quick brown fox.", "Zwei  Leerzeichen\nund 1234 é", "", "<s> ✓ ᐃᓄᒃ </s>", "\u200b"]
ROOT = Path(__file__).parents[3]


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "some.jsonl", [{"text": text} for text in TEXTS])


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("model") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:2] * 10),
        model_prefix=str(prefix),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


def run(inputs: Sequence[Path], output: Path | str, **options: Any) -> list[PreprocessResult]:
    options = {"tokenizer_type": "ByteTokenizer", "workers": 1, **options}
    return preprocess(inputs, str(output), **options).datasets


def files_in(folder: Path) -> list[str]:
    """Those that ``ls`` shows: what is kept to go on after an error is hidden."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in found if not name.startswith(".")]


def megatron_files(folder: Path, documents: Sequence[Sequence[int]], dtype: type) -> tuple[bytes, bytes]:
    builder = IndexedDatasetBuilder(str(folder / "megatron.bin"), dtype=dtype)
    for ids in documents:
        builder.add_document(torch.tensor(ids), [len(ids)])
    builder.finalize(str(folder / "megatron.idx"))
    return (folder / "megatron.bin").read_bytes(), (folder / "megatron.idx").read_bytes()


@pytest.mark.parametrize(("append_eod", "prepend_bos"), [(False, False), (True, False), (True, True)])
def test_files_equal_megatron_cores(
    tmp_path: Path, text_file: Path, model: Path, append_eod: bool, prepend_bos: bool
) -> None:
    library = sentencepiece.SentencePieceProcessor(model_file=str(model))
    documents = [[1] * prepend_bos + library.EncodeAsIds(text) + [2] * append_eod for text in TEXTS if text]
    expected = megatron_files(tmp_path, documents, np.uint16)
    (result,) = run(
        [text_file],
        tmp_path / "ours",
        tokenizer_type="SentencePieceTokenizer",
        tokenizer_model=str(model),
        append_eod=append_eod,
        prepend_bos=prepend_bos,
    )
    assert result.prefix == tmp_path / "ours_text_document"
    written = [(tmp_path / f"ours_text_document{suffix}").read_bytes() for suffix in (".bin", ".idx")]
    assert tuple(written) == expected


def test_big_vocabularies_are_stored_in_four_bytes(tmp_path: Path) -> None:
    vocabulary = {f"w{number}": number for number in range(70_000)}
    backend = Backend(models.WordLevel(vocabulary, unk_token="w0"))  # noqa: S106
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "w69999 w1"}, {"text": "w7"}])
    expected = megatron_files(tmp_path, [[69_999, 1], [7]], np.int32)
    run([source], tmp_path / "x", tokenizer_type="HuggingFaceTokenizer", tokenizer_model=str(tmp_path))
    written = [(tmp_path / f"x_text_document{suffix}").read_bytes() for suffix in (".bin", ".idx")]
    assert tuple(written) == expected


def test_bytes_and_statistics_by_hand(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "é"}, {"text": ""}, {"text": "b"}])
    (result,) = run([source], tmp_path / "p", append_eod=True)
    ids = np.frombuffer((tmp_path / "p_text_document.bin").read_bytes(), "<u2")
    assert ids.tolist() == [0xC3, 0xA9, 257, 0x62, 257]
    read = DatasetStatistics.read(tmp_path / "p_text_document")
    assert read == result.statistics
    assert read is not None
    assert (read.tokens, read.documents, read.bytes, result.empty) == (5, 2, 3, 1)
    assert (read.eod_id, read.append_eod, read.prepend_bos) == (257, True, False)
    assert (read.tokenizer.type, read.tokenizer.vocab_size) == ("ByteTokenizer", 259)


def test_lone_surrogates_become_replacement_characters(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "a\\ud83d!"}\n{"text": "\\ud83d\\ude00"}\n')
    (result,) = run([source], tmp_path / "p")
    assert (tmp_path / "p_text_document.bin").read_bytes()[::2].decode() == "a\ufffd!😀"
    assert result.statistics.bytes == len("a\ufffd!😀".encode())


def test_line_ends_blank_lines_and_a_missing_last_newline(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(b'\n{"text": "a"}\r\n  \n{"text": "b\\u0000"}')
    (result,) = run([source], tmp_path / "p")
    assert (tmp_path / "p_text_document.bin").read_bytes()[::2] == b"ab\0"
    assert result.statistics.documents == 2


def test_several_inputs_follow_each_other_and_gzip_is_read(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "z.jsonl", [{"text": "1"}])
    second = tmp_path / "a.jsonl.gz"
    second.write_bytes(gzip.compress(b'{"text": "2"}\n') + gzip.compress(b'{"text": "3"}\n'))  # two members
    run([first, second], tmp_path / "p")
    assert (tmp_path / "p_text_document.bin").read_bytes()[::2] == b"123"


def test_each_key_makes_a_dataset(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"title": "T", "text": "ab"}, {"title": "", "text": "c"}])
    title, text = run([source], tmp_path / "p", json_keys=["title", "text"])
    assert (title.statistics.documents, title.empty) == (1, 1)
    assert (text.statistics.documents, text.empty) == (2, 0)
    assert (tmp_path / "p_text_document.bin").read_bytes()[::2] == b"abc"


def test_shard_per_input_names_datasets_after_files(tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "eng_Latn.jsonl", [{"text": "1"}])
    second = tmp_path / "v1.2.jsonl.gz"
    second.write_bytes(gzip.compress(b'{"text": "2"}\n'))
    for output in (f"{tmp_path}/out/", f"{tmp_path}/again"):
        results = run([first, second], output, shard_per_input=True)
        assert [result.prefix.name for result in results] == ["eng_Latn_text_document", "v1.2_text_document"]
        assert (results[1].prefix.parent / "v1.2_text_document.bin").read_bytes() == b"2\0"
    names = [
        f"{name}_text_document.{suffix}" for name in ("eng_Latn", "v1.2") for suffix in ("bin", "idx", "json")
    ]
    assert files_in(tmp_path / "out") == files_in(tmp_path / "again") == names


def test_workers_change_nothing(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess_module, "BYTES_PER_WORKER", 1)
    monkeypatch.setattr(preprocess_read, "CHUNK_BYTES", 200)
    sources = [
        write_jsonl(tmp_path / f"{part}.jsonl", [{"text": f"{part} {row} " + "é" * row} for row in range(60)])
        for part in range(5)
    ]
    for workers in (1, 2):
        options = {
            "tokenizer_type": "SentencePieceTokenizer",
            "tokenizer_model": str(model),
            "workers": workers,
        }
        run(sources, tmp_path / str(workers) / "p", append_eod=True, **options)
        run(sources, tmp_path / str(workers), append_eod=True, shard_per_input=True, **options)
    names = files_in(tmp_path / "1")
    assert len(names) == 18
    assert names == files_in(tmp_path / "2")
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()

    sources[3].write_text('{"text": "a"}\n{"text"\n')
    with pytest.raises(DataError, match=rf"{sources[3]}:2: not valid JSON"):
        run(sources, tmp_path / "3" / "p", workers=2)
    assert files_in(tmp_path / "3") == []


def test_a_worker_that_dies_is_an_error(tmp_path: Path, text_file: Path) -> None:
    moved = tmp_path / "tokenizer.json"
    Backend(models.WordLevel({"word": 0}, unk_token="word")).save(str(moved))  # noqa: S106
    settings = preprocess_encode.EncodeSettings("HuggingFaceTokenizer", str(moved), ("text",), False, False)
    encoder = preprocess_encode.Encoder(settings)
    moved.unlink()  # so that no worker can start
    chunks = preprocess_read.read_chunks(text_file, ("text",))
    with pytest.raises(DataError, match="tokenizing process died"):
        list(preprocess_encode.encode_chunks(chunks, encoder, 2))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=50), min_size=1, max_size=20), ascii_only=st.booleans())
def test_any_text_comes_back_through_megatron_cores_reader(
    tmp_path: Path, texts: list[str], ascii_only: bool
) -> None:
    source = tmp_path / "a.jsonl"
    rows = (json.dumps({"text": text}, ensure_ascii=ascii_only) for text in [*texts, "end"])
    source.write_text("\n".join(rows), encoding="utf-8", newline="")
    run([source], tmp_path / "p", overwrite=True)
    dataset = MegatronDataset(str(tmp_path / "p_text_document"))
    found = [bytes(dataset[number].astype(np.uint8)).decode() for number in range(len(dataset))]
    assert found == [text for text in texts if text] + ["end"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', "not valid JSON"),
        (b'\xef\xbb\xbf{"text": "a"}', "not valid JSON: Unexpected UTF-8 BOM"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 11 of the line"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8"),
        (b'["text"]', "expected a JSON object with a key for the text, found an array"),
        (b"7", "found a number"),
        (b'{"body": "a", "id": 1}', "no key 'text'; keys there: body, id; choose with --json-keys"),
        (b"{}", "no key 'text'; keys there: none"),
        (b'{"text": null}', "'text' holds null, expected a string"),
        (b'{"text": ["a"]}', "'text' holds an array"),
        (b'{"text": {"a": 1}}', "'text' holds an object"),
        (b'{"text": true}', "'text' holds a boolean"),
        (b'{"text": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_line_is_named_and_leaves_nothing(tmp_path: Path, line: bytes, message: str) -> None:
    source = tmp_path / "in" / "bad.jsonl"
    source.parent.mkdir()
    source.write_bytes(b'{"text": "good"}\n\n' + line + b"\n")
    with pytest.raises(DataError) as raised:
        run([source], tmp_path / "out" / "p")
    assert str(raised.value).startswith(f"{source}:3: ")
    assert message in str(raised.value)
    assert files_in(tmp_path / "out") == []


def test_unreadable_inputs(tmp_path: Path, text_file: Path) -> None:
    good = gzip.compress(b'{"text": "abc"}\n' * 100)
    cases: dict[str, tuple[bytes, str]] = {
        "cut.jsonl.gz": (good[:-10], "cannot be read beyond line"),
        "plain.jsonl.gz": (b'{"text": "a"}\n', "Not a gzipped file"),
        "damaged.jsonl.gz": (good[:15] + b"\xff" * 8 + good[23:], "cannot be read beyond line 0"),
        "nothing.jsonl.gz": (gzip.compress(b""), "the input is empty"),
        "empty.jsonl": (b"", "the file is empty"),
        "blank.jsonl": (b"\n \n", "no documents"),
        "texts.jsonl": (b'{"text": ""}\n', r"no documents for p_text_document \(1 empty texts\)"),
        "a.parquet.gz": (
            b"PAR1",
            r"not a kind of file that is read; those are .jsonl, .json, .txt, each also",
        ),
        "a.csv": (b"a,b", "not a kind of file"),
        "a.json": (b"[]", "expected a JSON object"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as raised:
            run([tmp_path / name], tmp_path / "out" / "p")
        assert name in str(raised.value)
    with pytest.raises(DataError, match=r"absent.jsonl: no such file"):
        run([text_file, tmp_path / "absent.jsonl"], tmp_path / "out" / "p")
    assert files_in(tmp_path / "out") == []


def test_existing_outputs_are_kept_unless_overwritten(tmp_path: Path, text_file: Path) -> None:
    run([text_file], tmp_path / "out" / "p")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in files_in(tmp_path / "out")}
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": "other"}])
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    with pytest.raises(DataError, match=r"p_text_document.bin \(and 2 more files\) exists already"):
        run([other], tmp_path / "out" / "p")
    with pytest.raises(DataError, match="no key"):
        run([bad], tmp_path / "out" / "p", overwrite=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files_in(tmp_path / "out")} == before
    run([other], tmp_path / "out" / "p", overwrite=True)
    assert (tmp_path / "out" / "p_text_document.bin").read_bytes()[::2] == b"other"
    read = DatasetStatistics.read(tmp_path / "out" / "p_text_document")
    assert read is not None
    assert read.documents == 1


def test_of_several_shards_the_complete_ones_stay(tmp_path: Path) -> None:
    sources = [write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}]) for name in "abc"]
    sources[1].write_text("{}\n")
    with pytest.raises(DataError, match=r"b.jsonl:1: no key"):
        run(sources, tmp_path / "out", shard_per_input=True)
    assert files_in(tmp_path / "out") == [f"a_text_document.{suffix}" for suffix in ("bin", "idx", "json")]


def test_bad_outputs_and_options(tmp_path: Path, text_file: Path) -> None:
    (tmp_path / "file").touch()
    twin = write_jsonl(tmp_path / "file_some.jsonl", [{"text": "a"}])
    (tmp_path / "other").mkdir()
    twin = twin.rename(tmp_path / "other" / "some.jsonl")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"output": f"{tmp_path}/out/"}, "a folder, not a prefix"),
        ({"output": f"{tmp_path}/other"}, "a folder, not a prefix"),
        ({"output": f"{tmp_path}/file/p"}, "cannot be written"),
        ({"json_keys": ["a/b"]}, "cannot be part of a file name"),
        ({"json_keys": ["text", "text"]}, "named twice"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"inputs": [text_file, twin], "shard_per_input": True}, "would both become some"),
    ]
    for options, message in cases:
        arguments = {"inputs": [text_file], "output": tmp_path / "out" / "p", **options}
        with pytest.raises(DataError, match=message):
            run(**arguments)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_without_the_tokens_asked_for(tmp_path: Path, text_file: Path) -> None:
    backend = Backend(models.WordLevel({"word": 0}, unk_token="word"))  # noqa: S106
    backend.save(str(tmp_path / "tokenizer.json"))
    options = {"tokenizer_type": "HuggingFaceTokenizer", "tokenizer_model": str(tmp_path / "tokenizer.json")}
    with pytest.raises(TokenizerError, match="has no EOS token"):
        run([text_file], tmp_path / "out" / "p", append_eod=True, **options)
    with pytest.raises(TokenizerError, match="has no BOS token"):
        run([text_file], tmp_path / "out" / "p", prepend_bos=True, **options)
    (result,) = run([text_file], tmp_path / "out" / "p", **options)
    assert result.statistics.eod_id is None


@pytest.fixture
def parse() -> Callable[..., argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="preprocess_data.py")
    command.add_arguments(parser)
    return lambda *arguments: parser.parse_args([str(argument) for argument in arguments])


def test_command_says_what_it_wrote(
    tmp_path: Path,
    text_file: Path,
    parse: Callable[..., argparse.Namespace],
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["--input", text_file, "--tokenizer-type", "ByteTokenizer", "--append-eod", "--workers", "1"]
    assert command.run(parse(*common, "--output-prefix", tmp_path / "p")) == 0
    printed = capsys.readouterr().out
    size = sum(len(text.encode()) for text in TEXTS)
    assert f"p_text_document: {size + 4} tokens, 4 documents, {size / (size + 4):.2f} bytes a" in printed
    assert "1 empty texts became no document" in printed
    assert f"1 of 1 inputs, {text_file.stat().st_size} bytes, tokenized in " in printed
    assert (
        f"next: check it with python tools/inspect_dataset.py {tmp_path}/p_text_document --verify" in printed
    )
    assert f'- path: "{tmp_path}/p_text_document"' in printed

    files = [write_jsonl(tmp_path / f"{number}.jsonl", [{"text": "a"}]) for number in range(7)]
    shards = ["--input", *files, "--tokenizer-type", "ByteTokenizer", "--shard-per-input"]
    assert command.run(parse(*shards, "--output-prefix", f"{tmp_path}/shards/")) == 0
    printed = capsys.readouterr().out
    assert "… 2 more datasets\n7 datasets: 7 tokens, 7 documents, 1.00 bytes a token" in printed
    assert f'- path: "{tmp_path}/shards/*_text_document"' in printed


def test_help_is_enough_to_start(
    parse: Callable[..., argparse.Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse("--help")
    printed = capsys.readouterr().out
    assert "python tools/preprocess_data.py --input a.jsonl b.jsonl.gz --output-prefix corpus" in printed
    assert '{"text": "a whole document"}' in printed


def test_tool_from_a_clone(tmp_path: Path, text_file: Path) -> None:
    tool = [sys.executable, str(ROOT / "tools" / "preprocess_data.py")]
    options = [
        "--input",
        str(text_file),
        "--output-prefix",
        str(tmp_path / "p"),
        "--tokenizer-type",
        "ByteTokenizer",
    ]
    first, second = (
        subprocess.run([*tool, *options], check=False, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert (tmp_path / "p_text_document.idx").exists()
    assert second.returncode == 2
    assert second.stderr.startswith("error: ")
    assert "exists already" in second.stderr
    assert "Traceback" not in second.stderr
