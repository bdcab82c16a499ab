"""What code of a user's raised, in one sentence."""

import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pullgeo.errors import ModuleError, PullgeoError

Result = TypeVar("Result")


def guarded(failure: str, action: Callable[[], Result], fix: str = "") -> Result:
    """Run code of the user's; whatever it raises becomes one sentence that says where it was.

    Raises:
        PullgeoError: unchanged, where the code got an error of this package.
        ModuleError: it raised anything else.
    """
    try:
        return action()
    except PullgeoError:
        raise
    except (Exception, SystemExit) as error:
        raise ModuleError(f"{failure}: {summary(error)}. {fix}".strip()) from error


def summary(error: BaseException) -> str:
    """What was raised and in which of the user's lines, the last one outside of installed packages."""
    # the str() of an error may fail in turn, which this class sees to
    told = traceback.TracebackException.from_exception(error)
    words = " ".join(str(told).split()).rstrip(".")
    said = f"{type(error).__name__}: {words}" if words else type(error).__name__
    if isinstance(error, SyntaxError):
        return said
    frames = [frame for frame in told.stack if _is_users(frame.filename)]
    return f"{said} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else said


def _is_users(filename: str) -> bool:
    path = Path(filename)
    installed = [
        Path(__file__).parents[1],
        *(Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")),
    ]
    return path.is_file() and not any(folder in path.parents for folder in installed)
