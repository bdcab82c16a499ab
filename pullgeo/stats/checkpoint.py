"""Finished batches of a long computation on disk, so that what was interrupted can go on."""

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from pullgeo._version import __version__
from pullgeo.errors import DataError
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.status import Status
from pullgeo.manifold.base import Manifold

PROBES = 16
"""Straight lines whose energies tell one manifold from another."""

PROBE_TOLERANCE = 1e-9
"""Relative difference of energies that the same manifold may have on another processor."""


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
            DataError: the folder holds another computation, or something else.
        """
        folder = Path(path)
        note = folder / "computation.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not note.exists():
                if any(folder.glob("batch-*.npz")):
                    raise DataError(f"pairwise_distances: cache {folder} has batches but no {note.name}. Empty it.")
                _write(note, json.dumps(fingerprint, indent=1).encode())
            known = json.loads(note.read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(f"pairwise_distances: cache {folder} cannot be used: {error}. Name a folder.") from error
        different = sorted(key for key in {*known, *fingerprint} if not _same(known.get(key), fingerprint.get(key)))
        if different:
            raise DataError(
                f"pairwise_distances: cache {folder} holds a computation with other {', '.join(different)}. Resume "
                "with the same arguments, or name another folder."
            )
        return Checkpoint(folder)

    def load(self, number: int, size: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Lengths and statuses of a batch; ``None`` if it is not there, or not as it was written."""
        try:
            with np.load(self._file(number), allow_pickle=False) as stored:
                length, names = stored["length"], stored["status"]
                status = np.array([Status[name] for name in names.tolist()], dtype=object)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return (length, status) if length.shape == status.shape == (size,) else None

    def save(self, number: int, length: np.ndarray, status: np.ndarray) -> None:
        """Keep a batch."""
        temporary = self._file(number).with_suffix(f".{uuid4().hex}.part")
        with temporary.open("wb") as file:
            np.savez(file, length=length, status=np.array([s.name for s in status], dtype=str))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file(number))

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


def _same(known: Any, new: Any) -> bool:
    if isinstance(known, list) and isinstance(new, list) and len(known) == len(new):
        return all(_same(a, b) for a, b in zip(known, new, strict=True))
    if isinstance(known, float) and isinstance(new, float):
        same = abs(known - new) <= PROBE_TOLERANCE * max(abs(known), abs(new))
        return same or (known != known and new != new)  # NaN is what the decoder says there
    return bool(known == new)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(f".{uuid4().hex}.part")
    temporary.write_bytes(content)
    temporary.replace(path)
