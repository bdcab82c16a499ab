"""Finished batches of a long computation on disk, so that what was interrupted can go on."""

import hashlib
import json
import logging
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pullgeo._version import __version__
from pullgeo.errors import DataError, OptionError
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold.base import Manifold
from pullgeo.numerics.atomic_file import atomic_file, write_atomically

PROBES = 16
"""Straight lines whose energies tell one manifold from another."""

PROBE_TOLERANCE = 1e-9
"""Relative difference of energies that the same manifold may have on another processor."""

MAX_NOTE = 2**20
"""Bytes of the longest note that is read."""

DAMAGE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    RuntimeError,
    MemoryError,
    ArithmeticError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
)
"""What numpy and zipfile raise when they read a damaged archive."""

_log = logging.getLogger("pullgeo")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A folder with one file for each finished batch, written by the process that computed it.

    A file appears under its name only when it is complete, so that a process may be killed at any time.

    Args:
        folder: where the files are.
    """

    folder: Path

    @staticmethod
    def open(path: str | os.PathLike[str], fingerprint: dict[str, Any]) -> "Checkpoint":
        """A new folder, or one that the same computation has begun to fill.

        Raises:
            DataError: the folder cannot be used, holds another computation, or something else.
        """
        folder = Path(path)
        note = folder / "computation.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(note):
                if any(folder.glob("batch-*.npz")):
                    raise DataError(f"pairwise_distances: cache {folder} has batches but no {note.name}. Empty it.")
                write_atomically(note, json.dumps(fingerprint, indent=1))
            known = _noted(note)
        except OSError as error:
            raise DataError(
                f"pairwise_distances: cache {folder} cannot be used: {error.strerror or error}. Name a folder that can "
                "be written to."
            ) from error
        different = sorted(key for key in {*known, *fingerprint} if not _same(known.get(key), fingerprint.get(key)))
        if different:
            raise DataError(
                f"pairwise_distances: cache {folder} holds a computation with other {', '.join(different)}. Resume "
                "with the same arguments, or name another folder."
            )
        return Checkpoint(folder)

    def load(self, number: int, size: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Lengths and statuses of a batch; ``None`` if it is not there, or not as it was written."""
        file = self._file(number)
        if not os.path.lexists(file):
            return None
        found = _stored(file, number, size) if file.is_file() else None
        if found is None:
            _log.warning("pairwise_distances: %s is damaged, and its %d pairs are solved for again.", file, size)
        return found

    def save(self, number: int, length: np.ndarray, status: np.ndarray) -> None:
        """Keep a batch.

        Raises:
            DataError: it cannot be written.
        """
        names, path = np.array([s.name for s in status], dtype=str), self._file(number)
        try:
            if not path.is_file() and not path.is_dir():  # a pipe, say, or a link to nothing
                path.unlink(missing_ok=True)
            with atomic_file(path) as file:
                np.savez(file, number=number, length=length, status=names)
        except OSError as error:
            raise DataError(
                f"pairwise_distances: batch {number} cannot be written to cache {self.folder}: "
                f"{error.strerror or error}. Batches written before are complete; make room and call again."
            ) from error

    def kept(self, batches: Sequence[slice]) -> str:
        """How much of these batches is there, in a sentence for somebody who has interrupted the computation."""
        sizes = [batch.stop - batch.start for batch in batches]
        there = sum(size for number, size in enumerate(sizes) if self._file(number).is_file())
        return (
            f"pairwise_distances: interrupted. {there} of {sum(sizes)} pairs are kept in cache {self.folder}; the same "
            "call goes on from there."
        )

    def _file(self, number: int) -> Path:
        return self.folder / f"batch-{number:07d}.npz"


def fingerprint(
    manifold: Manifold, solver: Solver | None, points: Tensor, others: Tensor | None, batch_size: int
) -> dict[str, Any]:
    """What tells one computation from another, in words and numbers that JSON can hold.

    The manifold is known by what it does: the discrete energies of some straight lines between the points.
    """
    double = points.double()
    ends = double if others is None else torch.cat([double, others.double()])
    a, b = ends[:-1][:PROBES], ends[1:][-PROBES:][: len(ends[:-1][:PROBES])]
    t = torch.linspace(0, 1, 5, dtype=a.dtype, device=a.device)[None, :, None]
    with torch.no_grad():
        energies = (
            manifold.in_double().energy(a.unsqueeze(1) * (1 - t) + b.unsqueeze(1) * t) if len(a) else a.new_zeros(0)
        )
    return {
        "points": _digest(double),
        "targets": None if others is None else _digest(others.double()),
        "manifold": [type(manifold).__name__, *(float(e) for e in energies)],
        "solver": describe(solver),
        "batch_size": batch_size,
        "version": __version__,
    }


def describe(value: object) -> str:
    """A value in words that are the same in every process."""
    if isinstance(value, Tensor):
        return f"{value.dtype}{tuple(value.shape)}:{_digest(value)}"
    if is_dataclass(value) and not isinstance(value, type):
        inside = ", ".join(f"{f.name}={describe(getattr(value, f.name))}" for f in fields(value))
        return f"{type(value).__name__}({inside})"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(describe, value))}]"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"{type(value).__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.numpy(force=True).tobytes()).hexdigest()[:32] + f"/{tuple(values.shape)}"


def check_cache(cache: Any) -> None:
    """Raise unless it can be the path of a folder.

    Raises:
        OptionError: it cannot.
    """
    path = os.fspath(cache) if isinstance(cache, str | os.PathLike) else None
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise OptionError(f"pairwise_distances: cache must be the path of a folder, a str or a Path, got {cache!r}.")


def _noted(note: Path) -> dict[str, Any]:
    """What a folder says of the computation in it.

    Raises:
        DataError: it is not what was written.
        OSError: it cannot be read.
    """
    advice = f"pairwise_distances: {note} is not the note of a computation"
    if not note.is_file() or note.stat().st_size > MAX_NOTE:
        raise DataError(f"{advice}: it is {'too large' if note.is_file() else 'not a file'}. Name another folder.")
    try:
        known = json.loads(note.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{advice}: {error}. It is damaged: empty the folder, or name another one.") from error
    if not isinstance(known, dict):
        raise DataError(f"{advice}: it holds {known!r:.40}, expected an object. Empty the folder, or name another one.")
    return known


def _stored(file: Path, number: int, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with file.open("rb") as stream:
            stored = np.load(stream, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                return None
            length, names, own = stored["length"], stored["status"], stored["number"]
    except DAMAGE:
        return None
    if not all(isinstance(part, np.ndarray) for part in (length, names, own)):  # bytes of no array
        return None
    shaped = length.shape == names.shape == (size,) and length.dtype == np.float64 and names.dtype.kind == "U"
    if not shaped or own.shape != () or own.dtype.kind not in "iu" or int(own) != number:
        return None
    if not set(names.tolist()) <= set(Status.__members__):
        return None
    status = np.array([Status[name] for name in names.tolist()], dtype=object)
    solved = np.array([s.converged for s in status], dtype=bool)
    good = np.isfinite(length) & (length >= 0)
    return (length, status) if bool(np.where(solved, good, np.isnan(length)).all()) else None


def _same(known: Any, new: Any) -> bool:
    if isinstance(known, list) and isinstance(new, list):
        return len(known) == len(new) and all(_same(a, b) for a, b in zip(known, new, strict=True))
    if type(known) is float and type(new) is float:
        same = abs(known - new) <= PROBE_TOLERANCE * max(abs(known), abs(new))
        return same or (known != known and new != new)  # NaN is what the decoder says there
    return type(known) is type(new) and bool(known == new)
