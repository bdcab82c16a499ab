"""Files are written whole, and nothing else is put away for them."""

import os
from pathlib import Path

import pytest

from pullgeo.numerics.atomic_file import write_atomically


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with a name")
def test_what_is_no_file_stays(tmp_path: Path) -> None:
    """A device would be replaced by a file where the user may do so."""
    pipe, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    folder.mkdir()
    for path in (pipe, link, folder):
        with pytest.raises(OSError, match="not a file"):
            write_atomically(path, "text")
    assert pipe.is_fifo()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["folder", "link", "pipe"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "link", "text")
    assert (tmp_path / "file").read_text() == "text"
    assert (tmp_path / "link").is_symlink()
