"""The entry point of the command line: parse, run, and end in one sentence whatever happens."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from pullgeo.cli.arguments import parser
from pullgeo.cli.failure import summary
from pullgeo.errors import ModuleError, PullgeoError

_FAILURE = 1
_MISUSE = 2
_INTERRUPTED = 130
_DEBUG = "PULLGEO_DEBUG"
_HINT = f"Set {_DEBUG}=1 for the traceback."


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    With ``PULLGEO_DEBUG=1`` in the environment the traceback of a failure is printed before its sentence.

    Args:
        argv: the arguments after the program's name; those of this process if ``None``.

    Returns:
        0 where the page was written; 2 where something given was wrong, 1 where anything unexpected happened, both said
        in one sentence on stderr; 130 after an interrupt. Nothing is left of a page that was not finished.

    Raises:
        SystemExit: after ``--help`` and ``--version`` (0), and where the arguments do not parse (2).
    """
    root = parser()
    arguments = root.parse_args(argv)
    if arguments.command is None:
        root.print_help(sys.stderr)
        return _MISUSE
    try:
        # commands need torch, which takes longer to import than the help to print
        importlib.import_module(arguments.run).run(arguments)
        sys.stdout.flush()
    except PullgeoError as error:
        # where the user's own code raised something, its traceback tells more
        theirs = isinstance(error, ModuleError) and error.__cause__ is not None
        _say(arguments.command, f"{error} {_HINT}" if theirs else str(error))
        return _MISUSE
    except KeyboardInterrupt:
        print(f"pullgeo {arguments.command}: interrupted, nothing was written.", file=sys.stderr)
        return _INTERRUPTED
    # The outermost boundary: a decoder may raise anything at any time, and so may a mistake of ours. All of it is
    # reported, none of it is taken for success.
    except (Exception, SystemExit) as error:  # noqa: BLE001
        _say(arguments.command, f"stopped by {summary(error)}. Nothing was written. {_HINT}")
        return _FAILURE
    return 0


def _say(command: str, sentence: str) -> None:
    if os.environ.get(_DEBUG, "0") not in ("", "0"):
        traceback.print_exc()
    print(f"pullgeo {command}: {' '.join(sentence.split())}", file=sys.stderr)
