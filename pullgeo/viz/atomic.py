"""Writing a file so that it is there whole or not at all."""

import os
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text file, replacing the one of this name if there is one.

    The text goes to a neighbour of the file first, which then takes its name: whatever interrupts the writing, no
    reader meets half a file and an old one survives.

    Raises:
        OSError: the file cannot be written there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
