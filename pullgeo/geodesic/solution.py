"""What a solver found, pair by pair, and how the search ended, in words that say what to do."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, EnumType
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor

from pullgeo._repr import SHOWN, counted, html_table
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import DataError, PullgeoError
from pullgeo.numerics.atomic_file import write_atomically
from pullgeo.numerics.batch import Batch

_OLD = {"PATH": "UPPER_BOUND", "UNSETTLED": "NOT_REFINED"}
"""Names of one release ago."""


class _Named(EnumType):
    def __getattr__(cls, name: str) -> Any:
        members = vars(cls).get("_member_map_", {})
        if name in _OLD:
            warnings.warn(f"Status.{name} is now called Status.{_OLD[name]}.", DeprecationWarning, stacklevel=2)
        found = members.get(_OLD.get(name, name))
        if found is None:
            raise AttributeError(f"{cls.__name__} has no member {name!r}; it has {', '.join(members)}.")
        return found


class Status(Enum, metaclass=_Named):
    """The end of the search for one pair; its value says what was seen, and what to do.

    The texts name no cause that the search has not seen: why a residual does not fall, a solver cannot tell.
    """

    CONVERGED = "converged: the residual is below the tolerance"
    ROUNDING = (
        "converged as far as the arithmetic allows: the end points are so close, compared with the size of the "
        "outputs, that rounding errors alone keep the residual above the tolerance; nothing needs to be done"
    )
    COINCIDENT = "the end points coincide: the curve is the point and its length is 0"
    DEGENERATE = (
        "the end points differ but no distance between them can be told from 0: the metric vanishes along the curve; "
        "add a floor to the metric if they must be told apart"
    )
    COARSE = (
        "the discrete curve converged, but measured between its nodes it has another length: the error estimate is "
        "above rtol, or the curve is longer than the straight line; raise max_segments, or rtol"
    )
    UPPER_BOUND = (
        "a shortest path of a graph: its length bounds the distance from above, and it is not a geodesic; let Newton "
        "shorten it: Newton(starts=(GraphPath(points),))"
    )
    MISSED = (
        "no initial velocity was found whose geodesic meets the second point; begin nearer (starts=...), or solve for "
        "the whole curve with Newton()"
    )
    SINGULAR = (
        "the metric is singular on the way, so that geodesics there have no equation; solve by energies with Newton(), "
        "or add a floor to the metric"
    )
    KINKED = (
        "the discrete curve converged, but the metric jumps on the way, so that no initial velocity leads along it; "
        "make the metric continuous (a decoder needs activations with continuous first derivatives), or use geodesic() "
        "and dist()"
    )
    NOT_REFINED = (
        "the discrete curve converged, but did not lead to a solution of the geodesic equation to the accuracy asked "
        "for; take a curve between nearer points, or use geodesic() and dist()"
    )
    MAX_STEPS = "stopped at the step limit; raise max_steps, or start from a better curve (starts=...)"
    STALLED = (
        "no step decreases the energy any more although the residual is above the tolerance: near the curve the energy "
        "does not follow its second derivatives; if the error estimate is small enough, raise tol, else evaluate in "
        "float64 throughout and make the decoder or the metric smoother"
    )
    NON_FINITE = (
        "on the way the decoder or the metric returned NaN or infinity, or the metric is not positive, and no way "
        "around was found; keep latents where the decoder was trained, and metrics positive"
    )

    @property
    def converged(self) -> bool:
        """Whether the pair's curve is a discrete geodesic, to the tolerance asked for or to rounding errors."""
        return self in (Status.CONVERGED, Status.ROUNDING, Status.COINCIDENT, Status.DEGENERATE)

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


S = TypeVar("S", bound="Solution")

_FORMAT = "pullgeo.Solution.1"
_COUNTS = ("iterations", "minima")
_TENSORS = ("length", "energy", "iterations", "residual", "error_estimate", "speed_ratio", "minima")


@dataclass(frozen=True, eq=False)
class Solution(Batch):
    """Geodesics between b pairs of points.

    Args:
        curve: the curves; ``curve(t)`` evaluates them at times ``(m,)`` in [0, 1].
        length: extrapolated lengths, the geodesic distances where the search found the shortest curve.
        energy: discrete energies, about ``length²``.
        status: how the search ended, one `Status` for each pair; its text says what to do.
        iterations: steps taken.
        residual: scale-free norms of the energy's gradient; 0 for curves of no length.
        error_estimate: estimated discretisation errors of ``length``, in its unit.
        speed_ratio: largest over median length of a curve's chords; far from 1 tells of a curve that is too coarse.
        minima: how many distinct locally shortest curves the search saw, of those it followed to the end: more than 1
            only if all candidates are, as with ``Newton(search="thorough")``.
    """

    curve: DiscreteCurve
    length: Float[Tensor, " b"]
    energy: Float[Tensor, " b"]
    status: tuple[Status, ...]
    iterations: Int[Tensor, " b"]
    residual: Float[Tensor, " b"]
    error_estimate: Float[Tensor, " b"]
    speed_ratio: Float[Tensor, " b"]
    minima: Int[Tensor, " b"]

    @property
    def converged(self) -> Bool[Tensor, " b"]:
        """Whether each pair's curve is a discrete geodesic to the tolerance asked for."""
        return torch.tensor([s.converged for s in self.status], dtype=torch.bool, device=self.length.device)

    @classmethod
    def cat(cls: type[S], parts: Sequence[S]) -> S:
        """The pairs of all parts, one after the other; all curves with as many nodes as the finest has."""
        finest = max(part.curve.segments for part in parts)
        curves = (part.curve if part.curve.segments == finest else part.curve.resample(finest) for part in parts)
        return super().cat([replace(part, curve=curve) for part, curve in zip(parts, curves, strict=True)])

    def save(self, path: str | PathLike[str]) -> None:
        """Write the solution to one safetensors file, which holds numbers and names and no code.

        What it depends on, and so its derivatives, are not written.

        Raises:
            OSError: the file cannot be written; an older one of this name survives then.

        Example:
            >>> import tempfile
            >>> from pullgeo import PullbackManifold
            >>> solution = PullbackManifold(torch.nn.Linear(2, 5)).geodesic(torch.zeros(3, 2), torch.ones(3, 2))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     solution.save(Path(folder) / "pairs.safetensors")
            ...     Solution.load(Path(folder) / "pairs.safetensors")
            Solution(3 pairs: 3 CONVERGED)
        """
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in _TENSORS}
        nodes = self.curve.nodes.detach().cpu().contiguous()
        names = ",".join(status.name for status in self.status)
        told = {"format": _FORMAT, "status": names, "sha256": _digest({"nodes": nodes, **tensors}, names)}
        content = safetensors.torch.save({"nodes": nodes, **tensors}, told)
        write_atomically(Path(path), content)

    @classmethod
    def load(cls: type[S], path: str | PathLike[str], device: torch.device | str = "cpu") -> S:
        """The solution that `save` wrote.

        Args:
            path: of the file.
            device: where the tensors shall live.

        Raises:
            DataError: the file cannot be read, holds something else, or other numbers than were written.
        """
        where = f"Solution.load: expected a file that Solution.save wrote at {path}"
        try:
            with safetensors.safe_open(Path(path), framework="pt") as file:
                told = file.metadata() or {}
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(f"{where}, got: {error}. Check the path.") from error
        if told.get("format") != _FORMAT or tensors.keys() != {"nodes", *_TENSORS}:
            raise DataError(
                f"{where}, got the format {told.get('format')!r} with {sorted(tensors)}. Was it written by another "
                "program, or a newer release?"
            )
        names = told.get("status", "").split(",") if len(tensors["nodes"]) else []
        members = Status.__members__
        unknown = [name for name in names if name not in members]
        shapes = {name: tuple(tensors[name].shape) for name in _TENSORS}
        if unknown or len(names) != len(tensors["nodes"]) or set(shapes.values()) != {(len(names),)}:
            raise DataError(
                f"{where}, got nodes of shape {tuple(tensors['nodes'].shape)} with {shapes}, {len(names)} statuses, of "
                f"which unknown: {unknown[:3]}."
            )
        numbers = {name: tensor.is_floating_point() for name, tensor in tensors.items()}
        if any(floating == (name in _COUNTS) or tensors[name].is_complex() for name, floating in numbers.items()):
            raise DataError(f"{where}, got { ({name: str(tensor.dtype) for name, tensor in tensors.items()}) }.")
        if "sha256" in told and told["sha256"] != _digest(tensors, told.get("status", "")):  # older ones have none
            raise DataError(f"{where}, got numbers that are not those that were written. Write or copy it again.")
        try:
            curve = DiscreteCurve(tensors.pop("nodes").to(device))
        except PullgeoError as error:
            raise DataError(f"{where}, got nodes that make no curves: {error}") from error
        rest = {name: tensor.to(device) for name, tensor in tensors.items()}
        return cls(curve=curve, status=tuple(members[name] for name in names), **rest)

    def __repr__(self) -> str:
        return f"Solution({len(self)} pairs: {counted(self.status)})"

    def _repr_html_(self) -> str:
        numbers = zip(
            self.length.tolist(), self.error_estimate.tolist(), self.iterations.tolist(), self.status, strict=True
        )
        rows = [
            (str(i), f"{length:.6g}", f"{error:.1e}", str(steps), status.name)
            for i, (length, error, steps, status) in enumerate(islice(numbers, SHOWN))
        ]
        return html_table(repr(self), ("pair", "length", "± error", "steps", "status"), rows, len(self))


def _digest(tensors: dict[str, Tensor], names: str) -> str:
    """What tells numbers, and how the search ended, from any others."""
    found = hashlib.sha256(names.encode())
    for name in sorted(tensors):
        found.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].contiguous().numpy().tobytes())
    return found.hexdigest()
