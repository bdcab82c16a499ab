"""Files that are there whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write bytes to, which takes its name when it is complete.

    The bytes go to a neighbour of the file first: whatever interrupts the writing, no reader meets half a file, an old
    file of this name survives, and nothing else is left behind. A symbolic link is followed.

    Args:
        path: the file's name.

    Raises:
        OSError: it cannot be written there, or something stands there that is no file, such as a folder or a device.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_file(Path(folder) / "numbers.txt") as file:
        ...         _ = file.write(b"1 2 3")
        ...     [(found.name, found.read_text()) for found in Path(folder).iterdir()]
        [('numbers.txt', '1 2 3')]
    """
    target = _target(path)
    draft = target.with_name(f".{uuid4().hex}.part")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file by `atomic_file`; text is encoded in UTF-8.

    Raises:
        OSError: it cannot be written there.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_writable(path: Path) -> None:
    """Raise unless a file could be written: its folder takes new files, and the name is free or a file's.

    Raises:
        OSError: it could not.
    """
    target = _target(path)
    draft = target.with_name(f".{uuid4().hex}.part")
    draft.touch(exist_ok=False)
    draft.unlink()
    if not target.exists():  # a name may be too long, or hold what the file system does not take
        target.touch(exist_ok=False)
        target.unlink()


def _target(path: Path) -> Path:
    """What is written, which a draft may take the place of: that of a device would do away with it."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "it exists and is not a file", str(path))
    return target
