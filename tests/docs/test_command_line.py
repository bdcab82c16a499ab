"""docs/command_line.rst knows every command, every option and every exit code."""

import argparse
import re
from pathlib import Path

import pytest

from pullgeo.cli import entry
from pullgeo.cli.arguments import parser

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.rst").read_text(encoding="utf-8")


def commands() -> dict[str, argparse.ArgumentParser]:
    root = parser()
    (found,) = (action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    return {"": root, **found.choices}


OPTIONS = sorted(
    {
        (flag, "" if action.nargs == 0 else str(action.metavar or action.dest.upper()))
        for command in commands().values()
        for action in command._actions
        for flag in action.option_strings
    }
)


@pytest.mark.parametrize("name", [name for name in commands() if name])
def test_every_command_has_a_section(name: str) -> None:
    heading = f"pullgeo {name}"
    assert f"\n{heading}\n{'-' * len(heading)}\n" in PAGE


@pytest.mark.parametrize(("flag", "value"), OPTIONS)
def test_every_option_is_defined(flag: str, value: str) -> None:
    assert re.search(rf"^(?:``.*``, )?``{re.escape(f'{flag} {value}'.strip())}``", PAGE, re.MULTILINE)


def test_no_option_is_made_up() -> None:
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) <= {flag for flag, _ in OPTIONS}


def test_defaults_are_those_of_the_parser() -> None:
    words = " ".join(PAGE.split())
    for name, command in commands().items():
        for action in command._actions:
            # what is switched off, 0 and None needs no word
            if action.nargs != 0 and action.default and action.default != argparse.SUPPRESS:
                default = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
                assert re.search(rf"(?<![\w.]){re.escape(default)}(?!\w)", words), (name, action.dest)


def test_every_exit_code_is_there() -> None:
    for code in (0, entry._FAILURE, entry._MISUSE, entry._INTERRUPTED):
        assert re.search(rf"^{code} {{2,}}\S", PAGE, re.MULTILINE)
    assert f"``{entry._DEBUG}=1``" in PAGE
