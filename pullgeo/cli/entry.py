"""The entry point of the command line: parse, run, and end in one sentence where something the user named is wrong."""

import sys
from collections.abc import Sequence

from pullgeo.cli.arguments import parser
from pullgeo.errors import PullgeoError

_MISUSE = 2
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments after the program's name; those of this process if ``None``.

    Returns:
        0 where the page was written; 2 where something given was wrong, said in one sentence on stderr.

    Raises:
        SystemExit: after ``--help`` and ``--version`` (0), and where the arguments do not parse (2).
    """
    root = parser()
    arguments = root.parse_args(argv)
    if arguments.command is None:
        root.print_help(sys.stderr)
        return _MISUSE
    try:
        arguments.run(arguments)
    except PullgeoError as error:
        print(f"pullgeo {arguments.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return _MISUSE
    except KeyboardInterrupt:
        print(f"pullgeo {arguments.command}: interrupted, nothing was written.", file=sys.stderr)
        return _INTERRUPTED
    return 0
