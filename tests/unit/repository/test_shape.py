"""The repository's own shape: small files and functions, typed arguments, clean text, layers."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDERS = (".ci", "benchmarks", "configs", "csrc", "examples", "megatron_ext", "tests", "tools")
CODE = {".py", ".pyi", ".cpp", ".h", ".sh", ".yaml"}
TEXT = CODE | {".md", ".toml", ".txt"}
NAMES = {"Makefile", "LICENSE", "run"}

LARGEST_FILE = 400
LARGEST_FUNCTION = 60
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
MACHINE_PATH = re.compile(r"(?<![\w.$}])/(work|root|home/\w+|Users/\w+)/")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def text_files() -> list[Path]:
    inside = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))]
    own = [
        path
        for path in [*sorted(ROOT.iterdir()), *inside]
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return [path for path in own if path.suffix in TEXT or path.name in NAMES]


FILES = text_files()
PYTHON = [path for path in FILES if path.suffix in {".py", ".pyi"}]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, Function):
            yield node


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name(path)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_the_search_sees_the_repository() -> None:
    seen = {name(path) for path in FILES}
    assert {"megatron_ext/errors.py", "pyproject.toml", ".ci/run", "csrc/bindings.cpp"} <= seen


def test_no_file_is_long() -> None:
    lengths = {
        name(path): path.read_text(encoding="utf-8").count("\n") for path in FILES if path.suffix in CODE
    }
    assert {path: length for path, length in lengths.items() if length > LARGEST_FILE} == {}


def test_no_function_is_long() -> None:
    lengths = {
        f"{name(path)}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in PYTHON
        for function in functions(path)
    }
    assert {where: length for where, length in lengths.items() if length > LARGEST_FUNCTION} == {}


def test_every_argument_and_result_is_typed() -> None:
    untyped = []
    for path in PYTHON:
        for function in functions(path):
            signature = function.args
            named = [*signature.posonlyargs, *signature.args, *signature.kwonlyargs]
            starred = [one for one in (signature.vararg, signature.kwarg) if one is not None]
            missing = [
                one.arg
                for one in [*named, *starred]
                if one.annotation is None and one.arg not in {"self", "cls"}
            ]
            if function.returns is None:
                missing.append("return")
            untyped += [f"{name(path)}:{function.lineno} {function.name}: {one}" for one in missing]
    assert untyped == []


def test_nothing_is_left_unfinished() -> None:
    assert lines_that_match(UNFINISHED) == []


def test_no_line_ends_in_blanks_and_every_file_in_a_newline() -> None:
    assert lines_that_match(re.compile(r"[ \t\r]+$")) == []
    texts = {name(path): path.read_text(encoding="utf-8") for path in FILES}
    assert [path for path, text in texts.items() if text and not text.endswith("\n")] == []


def test_no_path_of_one_machine() -> None:
    assert lines_that_match(MACHINE_PATH) == []


def test_every_folder_of_the_package_is_a_package() -> None:
    folders = {path.parent for path in PYTHON if (ROOT / "megatron_ext") in path.parents}
    assert [name(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_test_files_have_unique_names() -> None:
    """Tests are no packages, so pytest needs each module name once."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [one for one, count in names.items() if count > 1] == []


def test_every_package_has_a_layer() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = next(one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    layered = {part.strip() for layer in layers["layers"] for part in layer.split("|")}
    children = [path for path in (ROOT / "megatron_ext").iterdir() if (path / "__init__.py").exists()]
    packages = {f"megatron_ext.{path.name}" for path in children}
    modules = {f"megatron_ext.{path.stem}" for path in (ROOT / "megatron_ext").glob("[!_]*.py")}
    assert packages | modules == layered


def test_imports_keep_to_the_layers() -> None:
    """In a process of its own: import-linter configures logging, and with it disables every logger there is."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_extension_uses_no_compiled_out_checks() -> None:
    """Extensions are built with NDEBUG, so an assert in them guards nothing."""
    asserts = re.compile(r"(?<!static_)\bassert\(|<cassert>")
    sources = [path for path in FILES if path.suffix in {".cpp", ".h"}]
    assert [name(path) for path in sources if asserts.search(path.read_text(encoding="utf-8"))] == []
