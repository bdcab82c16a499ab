"""The page that a command leaves behind."""

import os
from collections.abc import Sequence
from pathlib import Path

from pullgeo.errors import DataError
from pullgeo.numerics.atomic_file import check_writable
from pullgeo.viz.page import Section, page


def check_output(path: Path) -> None:
    """Find out before the work whether its result could be written.

    Raises:
        DataError: the path is a folder, or its folder is missing or cannot be written to.
    """
    try:
        if path.is_dir():
            raise DataError(f"--output: {path} is a folder, expected the path of a file such as {path / 'page.html'}.")
        folder = path.absolute().parent
        if not folder.is_dir():
            raise DataError(f"--output: there is no folder {folder}. Make it first, or write somewhere else.")
        if not os.access(folder, os.W_OK):
            raise DataError(f"--output: the folder {folder} cannot be written to. Write somewhere else.")
        check_writable(path)
    except OSError as error:
        raise DataError(
            f"--output: {path} cannot be written: {error.strerror or error}. Write somewhere else."
        ) from error
    except ValueError as error:  # a NUL byte
        if isinstance(error, DataError):
            raise
        raise DataError(f"--output: {str(path)!r} cannot be the name of a file: {error}.") from error


def write_page(sections: Sequence[Section], path: Path, *, title: str, lead: str) -> None:
    """Write the page and say where it is.

    Raises:
        DataError: it cannot be written.
    """
    try:
        page(sections, path, title=title, lead=lead)
    except OSError as error:
        raise DataError(f"--output: {path} cannot be written: {error.strerror or error}. Nothing was left.") from error
    size = path.stat().st_size / 1e6
    print(f"Wrote {path.absolute()} ({size:.1f} MB). Open it in a browser.")
