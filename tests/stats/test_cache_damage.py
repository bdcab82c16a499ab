"""A cache that is damaged is refused by name or computed again, and never taken for what it is not."""

import errno
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pullgeo import Newton, PullbackManifold, pairwise_distances
from pullgeo.errors import DataError, OptionError
from pullgeo.stats.checkpoint import Checkpoint
from pullgeo.testing.charts import StereographicSphere

MANIFOLD = PullbackManifold(StereographicSphere(2))
Z = 0.5 * torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def distances(cache: object) -> np.ndarray:
    return pairwise_distances(MANIFOLD, Z, solver=Newton(segments=2), batch_size=3, cache=cache)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, dict[str, bytes]]:
    """The distances, and the files of a cache with them."""
    folder = tmp_path_factory.mktemp("cache")
    D = distances(folder)
    return D, {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def cache(tmp_path: Path, truth: tuple[np.ndarray, dict[str, bytes]]) -> Path:
    for name, content in truth[1].items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


NOTES: dict[str, bytes | Callable[[Path], None]] = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "number": b"3",
    "text": b'"points"',
    "truth": b"true",
    "not finite": b"NaN",
    "not utf-8": b"\xff\xfe{}",
    "utf-16": '{"points": 1}'.encode("utf-16"),
    "zeros": bytes(64),
    "cut off": b'{"points": "abc',
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "long number": b"1" * 10_000,
    "huge": b" " * 2**21,
    "other keys": b'{"a": 1}',
    "no keys": b"{}",
    "nested": b'{"points": {"points": []}}',
    "folder": folder,
    "pipe": pipe,
    "dangling": dangling,
    "loop": loop,
}


@pytest.mark.quick(11)
@pytest.mark.parametrize("kind", NOTES)
def test_notes(cache: Path, kind: str) -> None:
    note, damage = cache / "computation.json", NOTES[kind]
    note.write_bytes(damage) if isinstance(damage, bytes) else damage(note)
    with pytest.raises(DataError, match=r"pairwise_distances: .*(computation.json|cache)"):
        distances(cache)


@pytest.mark.parametrize("key", ["points", "targets", "manifold", "solver", "batch_size", "version"])
@pytest.mark.parametrize("value", [None, [], {}, "x", True, 3.0, [[["deep"]]]])
def test_every_entry_of_a_note_counts(cache: Path, key: str, value: object) -> None:
    note = cache / "computation.json"
    known = json.loads(note.read_text())
    if key == "targets" and value is None:
        value = 0
    note.write_text(json.dumps(known | {key: value}))
    with pytest.raises(DataError, match=f"other {key}"):
        distances(cache)


def archive(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def batch(**changes: object) -> bytes:
    good = {"number": 0, "length": np.ones(3), "status": np.array(["CONVERGED"] * 3)}
    return archive(**{k: v for k, v in (good | changes).items() if v is not None})


def bare(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def flipped(at: int, mask: int = 0xFF) -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at % len(content)] ^= mask
        path.write_bytes(content)

    return flip


def method(code: int) -> Callable[[Path], None]:
    """Other compression methods in both headers of a member."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        central = content.rfind(b"PK\x01\x02")
        content[central + 10] = content[8] = code
        path.write_bytes(content)

    return change


HEADER = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }".ljust(117) + b"\n"
BATCHES: dict[str, bytes | Callable[[Path], None]] = {
    "empty": b"",
    "text": b"not an archive",
    "zeros": bytes(512),
    "bare array": bare(np.ones(3)),
    "bare numbers": bare(np.array(3.0)),
    "pickle": bare(np.array([{"a": 1}])),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "without its end": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "header": flipped(0),
    "member's name": flipped(30),
    "member's numbers": flipped(160),
    "directory": flipped(-60),
    "end": flipped(-10),
    "encrypted": flipped(6, 1),
    "unknown compression": method(99),
    "deflated that is not": method(8),
    "lzma that is not": method(14),
    "no entries": zipped(),
    "entries that are no arrays": zipped(number=b"0", length=b"1", status=b"2"),
    "array that promises too much": zipped(number=bare(np.array(0)), length=HEADER % b"9999999999999", status=b""),
    "array with a bad header": zipped(number=bare(np.array(0)), length=b"\x93NUMPY\x01\x00\x05\x00{'(:\n", status=b""),
    "no number": batch(number=None),
    "no length": batch(length=None),
    "no status": batch(status=None),
    "another batch": batch(number=1),
    "a vector of numbers": batch(number=np.zeros(3, int)),
    "too few": batch(length=np.ones(2), status=np.array(["CONVERGED"] * 2)),
    "too many": batch(length=np.ones(4), status=np.array(["CONVERGED"] * 4)),
    "a matrix": batch(length=np.ones((3, 1))),
    "strings": batch(length=np.array(["1", "2", "3"])),
    "whole numbers": batch(length=np.ones(3, int)),
    "complex": batch(length=np.ones(3, complex)),
    "single precision": batch(length=np.ones(3, np.float32)),
    "negative": batch(length=-np.ones(3)),
    "infinite": batch(length=np.full(3, np.inf)),
    "nan that converged": batch(length=np.full(3, np.nan)),
    "length of what did not": batch(status=np.array(["SINGULAR"] * 3)),
    "unknown status": batch(status=np.array(["FINE"] * 3)),
    "status in numbers": batch(status=np.zeros(3)),
    "status in bytes": batch(status=np.array([b"CONVERGED"] * 3)),
    "pipe": pipe,
    "dangling": dangling,
    "loop": loop,
}


@pytest.mark.quick(22)
@pytest.mark.parametrize("kind", BATCHES)
def test_batches(cache: Path, truth: tuple[np.ndarray, dict[str, bytes]], kind: str) -> None:
    file, damage = cache / "batch-0000000.npz", BATCHES[kind]
    file.write_bytes(damage) if isinstance(damage, bytes) else damage(file)
    np.testing.assert_array_equal(distances(cache), truth[0])
    assert not list(cache.glob("*.part"))


def test_a_batch_that_is_a_folder(cache: Path) -> None:
    folder(cache / "batch-0000000.npz")
    with pytest.raises(DataError, match=r"batch 0 cannot be written to cache"):
        distances(cache)
    assert sorted(p.name for p in cache.iterdir()) == ["batch-0000000.npz", "batch-0000001.npz", "computation.json"]


def test_every_single_byte_counts(cache: Path, truth: tuple[np.ndarray, dict[str, bytes]]) -> None:
    content = truth[1]["batch-0000000.npz"]
    length = Checkpoint(cache).load(0, 3)[0]
    for at in range(0, len(content), 7):
        (cache / "batch-0000000.npz").write_bytes(content[:at] + bytes([content[at] ^ 0x5A]) + content[at + 1 :])
        found = Checkpoint(cache).load(0, 3)
        assert found is None or np.array_equal(found[0], length)


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    where = {"fsync": "os.fsync", "replace": "pathlib.Path.replace", "write": "numpy.savez"}[call]
    monkeypatch.setattr(where, full)
    with pytest.raises(DataError, match=os.strerror(code)):
        distances(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"computation.json"}
    monkeypatch.undo()
    assert np.isfinite(distances(tmp_path)).all()


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize("value", ["", "  ", "a\0b", 3, 0, True, False, b"cache", 1.5, [], object(), Path])
def test_what_is_no_path(value: object) -> None:
    with pytest.raises(OptionError, match="cache must be the path of a folder"):
        distances(value)
