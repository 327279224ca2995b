import bz2
import contextlib
import functools
import gzip
import importlib.util
import io
import json
import lzma
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from megatron_ext.cli.main import main
from megatron_ext.data import preprocess as preprocess_module
from megatron_ext.data import preprocess_columns, preprocess_read
from megatron_ext.data.preprocess import PreprocessReport, preprocess
from megatron_ext.data.preprocess_open import opened, zstd
from megatron_ext.errors import DataError, MissingDependencyError

TEXTS = [
    "The quick brown fox.",
    "Zwei  Leerzeichen\nund 1234 é\r\n",
    "",
    "<s> ✓ ᐃᓄᒃ </s>",
    "\u200b",
    "x" * 300,
]
TOOL = Path(__file__).parents[3] / "tools" / "preprocess_data.py"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}


def run(inputs: Sequence[Path | str], output: Path | str, **options: Any) -> PreprocessReport:
    options = {"tokenizer_type": "ByteTokenizer", "workers": 1, "append_eod": True, **options}
    return preprocess([Path(path) for path in inputs], str(output), **options)


def json_lines(texts: Sequence[str]) -> bytes:
    return "".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts).encode()


def dataset(prefix: Path) -> dict[str, bytes]:
    """Bytes of the dataset's files, statistics included."""
    return {
        suffix: prefix.with_name(prefix.name + "_text_document" + suffix).read_bytes()
        for suffix in (".bin", ".idx", ".json")
    }


def content(prefix: Path) -> str:
    return bytes(dataset(prefix)[".bin"])[::2].decode("latin-1").replace("\x01", "|")  # EOD is 257


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    source = tmp_path / "expected" / "plain.jsonl"
    source.parent.mkdir()
    source.write_bytes(json_lines(TEXTS))
    run([source], source.parent / "p")
    return dataset(source.parent / "p")


def table(texts: Sequence[str | None], kind: pa.DataType | None = None) -> pa.Table:
    column = pa.array(texts, pa.string()).cast(kind or pa.string())
    return pa.table({"id": list(range(len(texts))), "text": column, "other": ["other"] * len(texts)})


def write_stream(values: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, values.schema) as writer:
        writer.write_table(values, max_chunksize=2)


def write_file(values: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, values.schema) as writer:
        writer.write_table(values, max_chunksize=2)


def write_dictionary(values: pa.Table, path: Path) -> None:
    write_stream(values.set_column(1, "text", values["text"].dictionary_encode()), path)


COLUMNAR: dict[str, tuple[str, Callable[[pa.Table, Path], None]]] = {
    "parquet": ("a.parquet", functools.partial(parquet.write_table, row_group_size=2)),
    "parquet with zstd": ("a.parquet", functools.partial(parquet.write_table, compression="zstd")),
    "arrow file": ("a.arrow", write_file),
    "arrow stream": ("a.arrow", write_stream),
    "arrow dictionary": ("a.arrow", write_dictionary),
    "feather": ("a.feather", feather.write_feather),
    "feather with lz4": ("a.feather", functools.partial(feather.write_feather, compression="lz4")),
}


@pytest.mark.parametrize("kind", [".jsonl", ".json"])
@pytest.mark.parametrize("compression", ["", *COMPRESS])
def test_json_lines_however_compressed(
    tmp_path: Path, expected: dict[str, bytes], kind: str, compression: str
) -> None:
    compress = COMPRESS.get(compression, bytes)
    source = tmp_path / f"a{kind}{compression}"
    source.write_bytes(compress(json_lines(TEXTS)))
    run([source], tmp_path / "p")
    assert dataset(tmp_path / "p") == expected
    run([source], tmp_path / "shards", shard_per_input=True)
    assert dataset(tmp_path / "shards" / "a") == expected


@pytest.mark.parametrize("writer", COLUMNAR)
@pytest.mark.parametrize("small_chunks", [False, True])
def test_columns_equal_lines(
    tmp_path: Path,
    expected: dict[str, bytes],
    writer: str,
    small_chunks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if small_chunks:
        monkeypatch.setattr(preprocess_read, "CHUNK_BYTES", 40)
        monkeypatch.setattr(preprocess_columns, "ROWS_PER_STEP", 1)
    name, write = COLUMNAR[writer]
    write(table(TEXTS), tmp_path / name)
    chunks = list(preprocess_read.read_chunks(tmp_path / name, ["text"]))
    assert (len(chunks) > 2) == small_chunks
    assert [chunk.first_row for chunk in chunks[:2]] == [1, 1 + len(chunks[0].rows)][: len(chunks)]
    run([tmp_path / name], tmp_path / "p")
    assert dataset(tmp_path / "p") == expected


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_every_type_of_string_column(tmp_path: Path, expected: dict[str, bytes], kind: pa.DataType) -> None:
    write_stream(table(TEXTS, kind), tmp_path / "a.arrow")
    run([tmp_path / "a.arrow"], tmp_path / "p")
    assert dataset(tmp_path / "p") == expected


def test_columns_by_json_keys_in_their_order(tmp_path: Path) -> None:
    parquet.write_table(table(["a", "b"]), tmp_path / "a.parquet")
    run([tmp_path / "a.parquet"], tmp_path / "p", json_keys=["other", "text"])
    assert content(tmp_path / "p") == "a|b|"
    assert (tmp_path / "p_other_document.bin").read_bytes()[::2] == b"other\x01" * 2
    with pytest.raises(DataError, match=r"a.parquet: no one column 'body'; columns there: id, text, other"):
        run([tmp_path / "a.parquet"], tmp_path / "q", json_keys=["body"], on_error="skip")
    with pytest.raises(DataError, match=r"a.parquet:1: 'id' holds a number, expected a string"):
        run([tmp_path / "a.parquet"], tmp_path / "q", json_keys=["id"])


def test_a_text_file_is_one_document(tmp_path: Path, expected: dict[str, bytes]) -> None:
    for number, text in enumerate(TEXTS):
        compression = list(COMPRESS)[number] if number < len(COMPRESS) else ""
        encoded = COMPRESS.get(compression, bytes)(text.encode())
        (tmp_path / f"{number}.txt{compression}").write_bytes(encoded)
    (tmp_path / "5.txt").write_bytes(b"\xef\xbb\xbf" + TEXTS[5].encode())  # as editors on Windows save it
    run([tmp_path / "[0-9].txt*"], tmp_path / "p")
    assert dataset(tmp_path / "p") == expected
    (tmp_path / "bad.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"bad.txt:1: not UTF-8 at byte 3 of the file"):
        run([tmp_path / "bad.txt"], tmp_path / "q")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"no documents for q_text_document \(1 empty texts\)"):
        run([tmp_path / "empty.txt"], tmp_path / "q")


def test_folders_globs_and_mixed_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / "a.jsonl.zst").write_bytes(zstd.compress(json_lines(["1"])))
    parquet.write_table(table(["2"]), folder / "b" / "a.parquet")
    parquet.write_table(table([]), folder / "b" / "b.parquet")  # a part without rows, as Spark writes them
    (folder / "b" / "deep" / "c.txt").write_text("3")
    write_stream(table(["4"]), folder / "c.arrow")
    (folder / "d.json.xz").write_bytes(lzma.compress(json_lines(["5"])))
    for ignored in (
        ".hidden.jsonl",
        "_SUCCESS",
        "notes.md",
        "b/x_text_document.idx",
        "b/x_text_document.json",
    ):
        (folder / ignored).write_text("not text to read")
    run([folder], tmp_path / "p")
    assert content(tmp_path / "p") == "1|2|3|4|5|"
    run([folder / "c.*", folder / "b", folder / "**" / "*.zst"], tmp_path / "q")
    assert content(tmp_path / "q") == "4|2|3|1|"
    monkeypatch.setattr(preprocess_module, "BYTES_PER_WORKER", 1)
    run([folder], tmp_path / "two", workers=2)
    assert dataset(tmp_path / "two") == dataset(tmp_path / "p")

    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.csv").write_text("a")
    for inputs, message in (
        (
            [tmp_path / "none"],
            r"none: nothing to read in this folder; kinds that are read: .jsonl, .json, .txt",
        ),
        ([folder / "*.csv"], r"\*.csv: no such file, and none that matches"),
        ([folder / "n*"], "notes.md: not a kind of file that is read; those are .jsonl"),
        (["-", "-"], "named twice"),
    ):
        with pytest.raises(DataError, match=message):
            run(inputs, tmp_path / "r")


def test_standard_input(tmp_path: Path, expected: dict[str, bytes]) -> None:
    command = [sys.executable, str(TOOL), "--input", "-", "--tokenizer-type", "ByteTokenizer", "--append-eod"]
    command += ["--workers", "1", "--output-prefix"]
    piped = subprocess.run(
        [*command, str(tmp_path / "p")], input=json_lines(TEXTS), check=False, capture_output=True
    )
    assert piped.returncode == 0, piped.stderr
    assert dataset(tmp_path / "p") == expected
    piped = subprocess.run(
        [*command, str(tmp_path / "q")], input=b'{"text": "a"}\n{', check=False, capture_output=True
    )
    assert piped.returncode == 2
    assert piped.stderr.startswith(b"error: stdin:2: not valid JSON")
    piped = subprocess.run([*command, str(tmp_path / "q")], input=b"", check=False, capture_output=True)
    assert piped.stderr.startswith(b"error: stdin: the input is empty")


def test_standard_input_as_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json_lines(["a"]))))
    run(["-"], tmp_path, shard_per_input=True)
    assert content(tmp_path / "stdin") == "a|"


@pytest.mark.parametrize("compression", COMPRESS)
def test_streams_behind_each_other(tmp_path: Path, compression: str) -> None:
    """pbzip2, pigz, pixz and pzstd write many; none may go missing, whole or damaged."""
    compress = COMPRESS[compression]
    parts = [compress(json_lines([f"{number}" * 50])) for number in range(3)]
    source = tmp_path / f"a.jsonl{compression}"
    source.write_bytes(b"".join(parts))
    run([source], tmp_path / "p")
    assert content(tmp_path / "p") == "".join(f"{number}" * 50 + "|" for number in range(3))
    source.write_bytes(parts[0] + parts[1] + b"\0" * 8)  # padding
    assert run([source], tmp_path / "q").datasets[0].statistics.documents == 2
    for damaged in (
        parts[0] + parts[1][:-3],
        parts[0] + parts[1][:2],
        parts[0] + b"\xff" * 8 + parts[1][8:],
        parts[0][:-1],
        parts[0] + b"garbage",
    ):
        source.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"a.jsonl{compression}: cannot be read beyond line") as raised:
            run([source], tmp_path / "r", on_error="skip")
        assert not list(tmp_path.glob("r*")), raised


def test_a_long_stream_in_small_steps(tmp_path: Path) -> None:
    content = json_lines(["abc" * number for number in range(2000)])
    for compression, compress in COMPRESS.items():
        path = tmp_path / f"a.jsonl{compression}"
        path.write_bytes(compress(content))
        with opened(path) as (stream, tell):
            assert stream.readlines() == content.splitlines(keepends=True)
            assert tell is not None
            assert tell() == path.stat().st_size


@pytest.mark.parametrize("writer", COLUMNAR)
def test_truncated_and_damaged_columns(tmp_path: Path, writer: str) -> None:
    name, write = COLUMNAR[writer]
    write(table(TEXTS * 50), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[: len(whole) // 2 + 1], whole[:7], b"PAR1 or so", b"x" * 500):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{name}: cannot be read"):
            run([tmp_path / name], tmp_path / "out" / "p", on_error="skip")
    assert not list(tmp_path.glob("out/*"))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writer=st.sampled_from(sorted(COLUMNAR)), place=st.floats(0, 1), value=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(tmp_path: Path, writer: str, place: float, value: int) -> None:
    name, write = COLUMNAR[writer]
    path = tmp_path / name
    write(table(TEXTS), path)
    changed = bytearray(path.read_bytes())
    changed[int(place * (len(changed) - 1))] = value
    path.write_bytes(changed)
    with contextlib.suppress(DataError):
        list(preprocess_read.read_chunks(path, ["text"]))


BAD_LINES = (
    b'{"text": "good"}\n\n{"text"\n{"text": "\xff"}\n{"body": "a"}\n{"text": 7}\n'
    b'[1]\n{"text": ""}\n{\n{"text": "end", "body": null}\n'
)


def test_bad_lines_are_counted_when_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(BAD_LINES)
    second.write_bytes(b'{"text": "more"}\n{"text": null}\n')
    arguments = ["preprocess", "--tokenizer-type", "ByteTokenizer", "--append-eod", "--input", str(tmp_path)]
    assert main([*arguments, "--output-prefix", f"{tmp_path}/p"]) == 2
    assert f"{first}:3: not valid JSON" in capsys.readouterr().err
    assert main([*arguments, "--output-prefix", f"{tmp_path}/p", "--on-error", "skip"]) == 0
    assert content(tmp_path / "p") == "good|end|more|"
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "1 empty texts became no document"
    assert [line.partition("; the first: ")[0] for line in printed[2:7]] == [
        "skipped bad lines, invalid JSON: 2",
        "skipped bad lines, invalid UTF-8: 1",
        "skipped bad lines, missing key: 1",
        "skipped bad lines, not a string: 2",
        "skipped bad lines, no JSON object: 1",
    ]
    assert printed[5].endswith(f"the first: {first}:6: 'text' holds a number, expected a string")


def test_skipping_is_the_same_with_workers_and_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess_module, "BYTES_PER_WORKER", 1)
    monkeypatch.setattr(preprocess_read, "CHUNK_BYTES", 30)
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_bytes(BAD_LINES)
    inputs = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    reports = [
        run(inputs, tmp_path / str(workers), workers=workers, on_error="skip", shard_per_input=True)
        for workers in (1, 2)
    ]
    assert reports[0].skipped == reports[1].skipped
    assert reports[0].skipped.total == 12
    assert (
        reports[0].skipped.firsts["missing key"].startswith(f"{inputs[0]}:5: no key 'text'; keys there: body")
    )
    assert dataset(tmp_path / "1" / "b") == dataset(tmp_path / "2" / "b")


def test_a_line_is_skipped_under_every_key(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "a", "title": "b"}\n{"text": "lost"}\n{"text": "c", "title": "d"}\n')
    report = run([source], tmp_path / "p", json_keys=["text", "title"], on_error="skip")
    assert [one.statistics.documents for one in report.datasets] == [2, 2]
    assert report.skipped.counts == {"missing key": 1}


def test_bad_rows_of_columns(tmp_path: Path) -> None:
    column = pa.array([b"a", b"\xff", None, b"d"], pa.binary())
    for path in (tmp_path / "a.parquet", tmp_path / "a.arrow"):
        values = pa.table({"text": column.view(pa.string()) if path.suffix == ".arrow" else column})
        write_stream(values, path) if path.suffix == ".arrow" else parquet.write_table(values, path)
        with pytest.raises(DataError, match=rf"{path.name}:2: not UTF-8 at byte 1 of 'text'"):
            run([path], tmp_path / "p", overwrite=True)
        report = run([path], tmp_path / "p", on_error="skip", overwrite=True)
        assert content(tmp_path / "p") == "a|d|"
        assert report.skipped.counts == {"invalid UTF-8": 1, "not a string": 1}
        assert report.skipped.firsts["not a string"] == f"{path}:3: 'text' holds null, expected a string"


def test_nothing_but_bad_lines(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("{}\n{}\n")
    with pytest.raises(DataError, match=r"\(0 empty texts, 2 bad lines, such as .*a.jsonl:1: no key 'text'"):
        run([source], tmp_path / "p", on_error="skip")


def test_pyarrow_is_asked_for_before_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet.write_table(table(["a"]), tmp_path / "a.parquet")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(MissingDependencyError, match=r"pip install 'megatron-ext\[parquet\]'"):
        run([tmp_path / "a.parquet"], tmp_path / "p")
