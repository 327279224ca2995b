"""The console command: verbs, help, exit codes."""

import argparse
import sys
import time
import types

import pytest

from megatron_ext.cli import main as cli
from megatron_ext.errors import ConfigError, MegatronExtError


def verb_that(action: object) -> types.ModuleType:
    """A module of the shape of a verb whose run() raises or returns ``action``."""
    module = types.ModuleType("fake_verb", "What the fake verb does.")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--flag", action="store_true")

    def run(arguments: argparse.Namespace) -> int:
        if isinstance(action, BaseException):
            raise action
        sys.stdout.write(f"{arguments.words} {arguments.flag}\n")
        return int(str(action))

    vars(module).update(add_arguments=add_arguments, run=run)
    return module


def start(monkeypatch: pytest.MonkeyPatch, action: object, *argv: str) -> int:
    monkeypatch.setitem(sys.modules, "fake_verb", verb_that(action))
    monkeypatch.setitem(cli.VERBS, "fake", cli.Verb("fake_verb", "fake"))
    return cli.main(["fake", *argv])


def test_help_names_every_verb_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    before = set(sys.modules)
    assert cli.main(["--help"]) == 0
    assert cli.main([]) == 0
    output = capsys.readouterr().out
    assert all(verb in output and entry.help in output for verb, entry in cli.VERBS.items())
    assert not {entry.module for entry in cli.VERBS.values()} & (set(sys.modules) - before)


def test_every_verb_has_its_module() -> None:
    training = {"launch", "estimate", "benchmark", "train", "generate"}
    corpus = {"build-corpus", "preprocess", "merge", "inspect", "plan-mixture"}
    assert set(cli.VERBS) == {*corpus, "convert", "inspect-checkpoint", *training}
    assert all(
        entry.module == f"megatron_ext.cli.{verb.replace('-', '_')}" for verb, entry in cli.VERBS.items()
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("megatron-ext 0.")


def test_unknown_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lunch"]) == 2
    assert capsys.readouterr().err == "error: lunch: unknown verb; did you mean launch?\n"
    assert cli.main(["xyzzy"]) == 2
    assert "verbs: build-corpus, preprocess, merge" in capsys.readouterr().err


def test_options_may_stand_anywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, 7, "a", "--flag", "b") == 7
    assert capsys.readouterr().out == "['a', 'b'] True\n"


def test_a_verb_s_help_begins_with_its_module_s_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        start(monkeypatch, 0, "--help")
    assert stopped.value.code == 0
    assert "usage: megatron-ext fake" in (output := capsys.readouterr().out)
    assert "What the fake verb does." in output


def test_wrong_input_is_one_message_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, ConfigError(["a.yaml:1: one", "a.yaml:2: two"])) == 2
    assert capsys.readouterr().err == "error: a.yaml:1: one\na.yaml:2: two\n"


def test_an_interrupt_is_130_and_a_bug_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(monkeypatch, KeyboardInterrupt()) == 130
    with pytest.raises(ZeroDivisionError):
        start(monkeypatch, ZeroDivisionError())


def test_other_ranks_wait_for_rank_0_to_speak(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setenv("RANK", "3")
    assert start(monkeypatch, MegatronExtError("alone")) == 2
    assert waits == [cli.OTHER_RANKS_WAIT_S]
    assert capsys.readouterr().err == "[rank 3] error: alone\n"
