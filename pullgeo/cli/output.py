"""The page that a command leaves behind."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

from pullgeo.errors import CoarseMapWarning, DataError
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.atomic_file import check_writable
from pullgeo.stats.points import Points
from pullgeo.viz.classes import Labels
from pullgeo.viz.explore.page import explore


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


def bars_shown() -> bool:
    """Whether somebody sees progress bars: not where stderr goes to a file or a pipe."""
    return sys.stderr.isatty()


def write_map(manifold: Manifold, z: Points, labels: Labels | None, path: Path, **options: Any) -> None:
    """Write the living map and say where it is.

    Args:
        manifold: the latent space.
        z: latents.
        labels: the class of each latent, if there are classes.
        path: where to write.
        **options: of `explore`.

    Raises:
        DataError: it cannot be written.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CoarseMapWarning)
            explore(manifold, z, labels, path=path, progress=bars_shown(), **options)
    except OSError as error:
        raise DataError(f"--output: {path} cannot be written: {error.strerror or error}. Nothing was left.") from error
    for warning in caught:
        print(f"Note: {warning.message}")
    size = path.stat().st_size / 1e6
    print(f"Wrote {path.absolute()} ({size:.1f} MB). Open it in a browser.")
