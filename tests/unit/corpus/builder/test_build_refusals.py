"""Input that cannot be used: one message with the source's name, exit code 2, nothing left behind."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build_command import finish, start
from corpus_sources import read_shard, sample_rows, write_jsonl, write_manifest

from megatron_ext.cli.main import main
from megatron_ext.corpus.builder import read
from megatron_ext.corpus.counts import Corpus

GOOD = [{"text": row["text"], "lang": "eng"} for row in sample_rows("eng") if len(row["text"]) > 200]
FIXED = {"fixed": "eng"}


def check_nothing_is_left(folder: Path) -> None:
    left = list((folder / "corpus").rglob("*"))
    assert not [path for path in left if ".build" not in path.parts[:-1] and path.name != ".build"]
    assert not [path for path in left if path.suffix == ".tmp"]


def told(folder: Path, capsys: pytest.CaptureFixture[str], source: dict[str, Any], **more: Any) -> str:
    """What the command says; it leaves nothing that looks like a corpus, or half of a file."""
    source = {"name": "web", "language": FIXED, **source}
    source["files"] = str(folder / source["files"])
    assert main(["build-corpus", str(write_manifest(folder, [source], **more)), "--workers", "1"]) == 2
    check_nothing_is_left(folder)
    said = capsys.readouterr().err
    assert said.count("error: ") == 1
    return said.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.jsonl", b"\n\n", "no documents in its files"),
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", b'{"txt": "a"}\n', "a.jsonl:1: no key 'text'; keys there: txt; "),
        ("a.jsonl", b'{"text": 3}\n', "a.jsonl:1: 'text' holds a number, expected a string"),
        (
            "a.jsonl",
            '{"text": "é"}\n'.encode("latin-1"),
            "a.jsonl:1: not UTF-8 at byte 11 of the line; convert the file",
        ),
        (
            "a.jsonl",
            '{"text": "a"}\n'.encode("utf-16"),
            "a.jsonl: not text: byte 4 is zero; a binary file, or UTF-16",
        ),
        ("a.txt", b"\x7fELF\0\0", "a.txt:1: not text: byte 5 is zero; a binary file, or UTF-16"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz: cannot be read to its end: Not a gzipped file"),
        ("a.parquet", b"PAR1 and nothing", "a.parquet: cannot be read: "),
        ("a.csv", b"a,b", "a.csv: not a kind of file that is read; those are .jsonl, "),
    ],
)
def test_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"error: source web: {message}" in told(tmp_path, capsys, {"files": name})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": "absent.jsonl"}, "absent.jsonl: no such file"),
        ({"files": "*.json"}, "*.json: no such file, and none that matches"),
        ({"text_key": ["text", "body"]}, "a.jsonl:1: no key 'body'; keys there: text, lang; "),
        ({"language": {"fixed": "engl"}}, "language: 'engl' is no code"),
        (
            {"language": {"fixed": "eng", "script": "Ltan"}},
            "language: 'Ltan' is no script of ISO 15924; the nearest ",
        ),
        (
            {"language": {"field": "lang"}},
            "a.jsonl:3: lang: 'xxx-bad' is no code and no English name of a language",
        ),
        ({"language": {"path": "/(?P<language>[a-z]{3})/a"}}, "a.jsonl: language.path does not match"),
        ({"category_field": "lang"}, "a.jsonl:1: lang: 'eng' is no category; those are mono, code, book, "),
    ],
)
def test_sources(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [*GOOD[:2], {"text": GOOD[2]["text"], "lang": "xxx-bad"}])
    assert f"error: source web: {message}" in told(tmp_path, capsys, {"files": "a.jsonl", **change})


def test_plain_text_has_no_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("text")
    said = told(tmp_path, capsys, {"files": "a.txt", "language": {"field": "lang"}})
    assert "source web: a.txt is plain text, which has no lang; it is one document under the key text" in said


def test_a_corpus_without_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "…"}])
    source = {"name": "web", "files": str(tmp_path / "a.jsonl"), "language": FIXED}
    assert main(["build-corpus", str(write_manifest(tmp_path, [source]))]) == 2
    assert "every document was removed" in capsys.readouterr().err
    check_nothing_is_left(tmp_path)


def test_bad_rows_are_skipped_and_counted_where_the_source_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK_BYTES", 4096)
    bad = [
        b"{",
        b"\xff",
        b'"text"',
        b'{"lang": "eng"}',
        b'{"text": "a", "lang": "xxx-bad"}',
        b'{"text": "%s"}' % (b"x" * (2 << 20)),
    ]
    lines = [json.dumps(row).encode() for row in GOOD]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*lines[:3], *bad, *bad, *lines[3:]]))
    source = {
        "name": "web",
        "files": str(tmp_path / "a.jsonl"),
        "language": {"field": "lang"},
        "on_error": "skip",
    }
    manifest = write_manifest(tmp_path, [source], max_document_bytes=1 << 20)
    assert main(["build-corpus", str(manifest), "--workers", "1"]) == 0
    corpus = Corpus.read(tmp_path / "corpus")
    assert corpus.skipped == {
        "invalid JSON": 2,
        "invalid UTF-8": 2,
        "no JSON object": 2,
        "missing key": 2,
        "unknown value of lang": 2,
        "too long": 2,
    }
    files = [file for one in corpus.sets for part in (one.train, one.valid) for file in part.files]
    texts = {row["text"] for file in files for row in read_shard(tmp_path / "corpus" / file)}
    assert texts == {row["text"] for row in GOOD}


def test_a_value_of_a_column_may_not_be_longer_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"text": [GOOD[0]["text"], "x" * (2 << 20)]}), tmp_path / "a.parquet")
    said = told(tmp_path, capsys, {"files": "a.parquet"}, max_document_bytes=1 << 20)
    assert "a.parquet:1: from this row on: a text of more than 1,048,576 characters" in said


def test_a_gigabyte_in_one_line_takes_no_gigabyte(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", GOOD)
    with path.open("r+b") as stream:
        stream.seek(0, 2)
        stream.write(b'{"text": "')
        stream.seek(1 << 30, 1)
        stream.write(b'"}\n')
    source = {"name": "web", "files": str(path), "language": FIXED}
    code = (
        "import resource, sys; from megatron_ext.cli.main import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )
    command = ["build-corpus", str(write_manifest(tmp_path, [source])), "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert f"a.jsonl:{len(GOOD) + 1}: longer than 67,108,864 bytes; cut it into documents" in done.stderr
    assert int(done.stdout.split()[-1]) < 1_000_000  # kB, most of them libraries


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "a.jsonl",
        [{**row, "text": f"{number} {row['text']}"} for number, row in enumerate(GOOD * 20)],
    )
    source = {"name": "web", "files": str(tmp_path / "a.jsonl"), "language": FIXED}
    manifest = str(write_manifest(tmp_path, [source], duplicates={"minhash": None}))
    process = start([manifest, "--workers", "1"], tmp_path)
    resource.prlimit(
        process.pid, resource.RLIMIT_FSIZE, (4096, 4096)
    )  # EFBIG, as ENOSPC, is an OSError on write
    done = finish(process)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "cannot be written: File too large; what is complete is kept" in done.stderr
    check_nothing_is_left(tmp_path)
