"""What torchrun and spawned processes do to a script that does not expect it."""

import argparse
import ast
import runpy
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from megatron_ext.cli import benchmark, train

ROOT = Path(__file__).parents[3]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {
        option for action in parser._actions for option in action.option_strings if option.startswith("--")
    }


@pytest.mark.parametrize("verb", [train, benchmark], ids=["train", "benchmark"])
def test_torchrun_takes_none_of_our_options_for_an_abbreviated_one_of_its_own(verb: object) -> None:
    """It reads ``--start`` as its ``--start-method``, also behind the script's name."""
    ours = argparse.ArgumentParser(add_help=False)
    verb.add_arguments(ours)  # type: ignore[attr-defined]
    theirs = options_of(get_args_parser())
    assert options_of(ours)
    assert {(own, other) for own in options_of(ours) for other in theirs if other.startswith(own)} == set()


@pytest.mark.parametrize("script", sorted((ROOT / "tools").glob("*.py")), ids=lambda path: path.stem)
def test_a_script_does_nothing_when_a_spawned_process_imports_it(script: Path) -> None:
    body = ast.parse(script.read_text(encoding="utf-8")).body
    guard = body[-1]
    assert isinstance(guard, ast.If)
    assert ast.unparse(guard.test) == "__name__ == '__main__'"
    harmless = (
        ast.Import,
        ast.ImportFrom,
        ast.Expr,
    )  # an Expr is the docstring: nothing else may stand there
    assert all(isinstance(node, harmless) for node in body[:-1])
    assert [node for node in body if isinstance(node, ast.Expr)] == [body[0]]


@pytest.mark.parametrize("module", ["main", "torchrun"])
def test_neither_does_the_module_that_workers_run(module: str) -> None:
    """A process that it spawns imports it again, under this name; without a guard it would start to train, too."""
    runpy.run_path(str(ROOT / f"megatron_ext/cli/{module}.py"), run_name="__mp_main__")
