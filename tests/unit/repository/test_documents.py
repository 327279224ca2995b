"""What the documents name exists: files, make targets, verbs, flags, configuration keys."""

import re
from pathlib import Path

import pytest

from megatron_ext.cli.main import VERBS
from megatron_ext.config.section import Section
from megatron_ext.config.sections import RunConfig

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "configs/recipes/emma500/README.md"]
OWN_FOLDERS = (".ci", "benchmarks", "configs", "csrc", "examples", "megatron_ext", "tests", "tools")
OWN_PATH = re.compile(rf"(?<![\w./$-])(?:{'|'.join(map(re.escape, OWN_FOLDERS))})/[\w./-]*[\w/]")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OTHER_PROGRAMS_FLAGS = {"--local-dir", "--strict", "--signal"}  # of `hf download`, mypy and sbatch


def short(path: Path) -> str:
    return path.name


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_files_that_are_named_exist(document: Path) -> None:
    named = set(OWN_PATH.findall(text_of(document)))
    assert named, "no path found: has the pattern gone stale?"
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_make_targets_that_are_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):(?!=)", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", text_of(document), flags=re.MULTILINE)) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_verbs_that_are_named_exist(document: Path) -> None:
    assert set(re.findall(r"megatron-ext ([a-z]+)", text_of(document))) <= set(VERBS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_flags_that_are_named_exist(document: Path) -> None:
    programs = [*(ROOT / "megatron_ext" / "cli").glob("*.py"), *(ROOT / "examples").rglob("*.py")]
    sources = "".join(text_of(program) for program in programs)
    named = set(FLAG.findall(text_of(document))) - OTHER_PROGRAMS_FLAGS
    assert [flag for flag in sorted(named) if f'"{flag}"' not in sources] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_nothing_is_left_to_fill_in(document: Path) -> None:
    assert "@@" not in text_of(document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=short)
def test_overrides_that_are_named_are_configuration_keys(document: Path) -> None:
    sections = {
        name: field.annotation.model_fields
        for name, field in RunConfig.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    for section, key in re.findall(
        rf"(?<![\w/.])({'|'.join(sections)})\.(?!yaml\b|py\b|sh\b)(\w+)", text_of(document)
    ):
        assert key in sections[section], f"{section}.{key}"
