"""Exact answers to what a page asks: solved by the library in all dimensions of the latent space."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pullgeo.errors import NonFiniteError, OptionError, PullgeoError, ShapeError
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.manifold.base import Manifold
from pullgeo.stats.frechet import frechet_mean
from pullgeo.stats.uncertainty import member_distances
from pullgeo.viz.batches import at_home
from pullgeo.viz.explore.members import members_of
from pullgeo.viz.explore.slice import Slice

Answer = dict[str, Any]
"""What JSON can hold, always with ``status``, the name of a `Status` (of a `Verdict` for members) or ``FAILED``, and
``text``, which explains it."""

MAX_ROWS = 500
"""The most latents of which a mean is asked for: each is a geodesic."""

_SHOTS = 24
_LONGEST_TEXT = 2000


@dataclass(frozen=True, eq=False)
class Exact:
    """Solves in all d dimensions what a page asks in two.

    Args:
        manifold: the latent space, not restricted to the plane.
        plane: the plane that the page shows.
        latents: the points that a message names by their rows.
        solver: how geodesics are found.
        draw: what makes the map of another plane, in the form that a page takes, or shows it by itself and returns
            ``None``; pages stay on their plane without it.

    Raises:
        ShapeError: plane and latents do not belong to one latent space.

    Example:
        >>> from pullgeo import PullbackManifold
        >>> z = torch.eye(3)
        >>> exact = Exact(PullbackManifold(torch.nn.Linear(3, 5)), Slice.of_dims(z, anchor=[0, 0, 7]), z)
        >>> answer = exact.task({"kind": "geodesic", "a": [0, 0], "b": [1, 2]})()
        >>> answer["status"], answer["full"][-1]
        ('CONVERGED', [1.0, 2.0, 7.0])
    """

    manifold: Manifold
    plane: Slice
    latents: Float[Tensor, "n d"]
    solver: Solver = field(default_factory=Newton)
    draw: Callable[[Slice], dict[str, Any] | None] | None = None

    def __post_init__(self) -> None:
        d = len(self.plane.origin)
        if self.latents.ndim != 2 or self.latents.shape[1] != d:
            raise ShapeError(
                f"Exact: latents must have shape (n, {d}), as the plane's, got {tuple(self.latents.shape)}."
            )
        # beside the decoder's weights, if it has any
        device = at_home(self.manifold, self.latents[:1]).device
        object.__setattr__(self, "latents", self.latents.detach().to(device, torch.float64))

    def task(self, message: object) -> Callable[[], Answer]:
        """Check a message, and return what will answer it.

        Args:
            message: what came from a page, as parsed from JSON: ``{"kind": ..., ...}`` with

                * ``geodesic``: its ends, ``a`` and ``b`` on the page or ``z0`` and ``z1`` in the latent space;
                * ``members``: the same, for the geodesic distance of each member of an ensemble;
                * ``exponential``: where it begins, ``a`` or ``z0``, and its velocity, ``v`` on the page or ``u`` in the
                  latent space;
                * ``mean``: ``rows`` of latents, at most 500;
                * ``map``: the map of a ``plane``, which comes as ``payload``.

                Every question may name its ``plane`` as `Slice.named` takes it; without, it is about the first.

        Returns:
            A function that solves and never raises an `Exception`: where the library or the decoder does, the answer
            says so. Curves come as ``full``, nodes in the latent space, and ``nodes``, their projections onto the page;
            distances of members as ``lengths``, with their ``mean``, ``std`` and ``cv``.

        Raises:
            OptionError: the message has another form, or names what is not there.
            ShapeError: a point has too few or too many coordinates.
            NonFiniteError: a coordinate is NaN or infinite.
        """
        if not isinstance(message, Mapping):
            raise OptionError(f"the message must be an object with a kind, got a {type(message).__name__}.")
        name = message.get("plane")
        if name is not None and name != self.plane.name:
            return replace(self, plane=self._named(name)).task({**message, "plane": None})
        kind = message.get("kind")
        if kind == "geodesic":
            ends = torch.stack([self._point(message, "a", "z0"), self._point(message, "b", "z1")])
            return _safe(lambda: self._geodesic(ends))
        if kind == "members":
            ends = torch.stack([self._point(message, "a", "z0"), self._point(message, "b", "z1")])
            return _safe(lambda: self._members(ends))
        if kind == "exponential":
            begin, velocity = self._point(message, "a", "z0"), self._point(message, "v", "u", direction=True)
            return _safe(lambda: self._exponential(begin, velocity))
        if kind == "mean":
            rows = self._rows(message)
            return _safe(lambda: self._mean(rows))
        if kind == "map" and self.draw is not None:
            return _safe(partial(self._map, self.draw))
        raise OptionError(f"kind must be geodesic, members, exponential, mean or map, got {_short(kind)}.")

    def _named(self, name: object) -> Slice:
        if not isinstance(name, str):
            raise OptionError(f"plane must be text such as components:0,1, got {_short(name)}.")
        return Slice.named(self.latents, name)

    def _map(self, draw: Callable[[Slice], dict[str, Any] | None]) -> Answer:
        return {"converged": True, "status": "DRAWN", "text": "the map of this plane", "payload": draw(self.plane)}

    def _geodesic(self, ends: Float64[Tensor, "2 d"]) -> Answer:
        solution = self.manifold.geodesic(ends[:1], ends[1:], self.solver)
        status = solution.status[0]
        return {
            **_explained(status),
            "length": _number(solution.length[0]),
            "error": _number(solution.error_estimate[0]),
            **self._curve(solution.curve.nodes[0]),
        }

    def _members(self, ends: Float64[Tensor, "2 d"]) -> Answer:
        members = members_of(self.manifold)
        if members is None:
            raise OptionError("members: the decoder is no ensemble of at least two.")
        found = member_distances(members, ends[:1], ends[1:], self.solver)
        verdict = found.verdict[0]
        return {
            "converged": bool(found.converged.all()),
            "status": verdict.name,
            "text": verdict.value,
            "lengths": [_number(length) for length in found.members[:, 0]],
            "mean": _number(found.mean[0]),
            "std": _number(found.std[0]),
            "cv": _number(found.cv[0]),
        }

    def _exponential(self, begin: Float64[Tensor, " d"], velocity: Float64[Tensor, " d"]) -> Answer:
        times = torch.linspace(0, 1, _SHOTS + 1, dtype=torch.float64, device=begin.device)[1:, None]
        ends = self.manifold.expmap(begin.expand(_SHOTS, -1), times * velocity)
        length = self.manifold.in_double().norm(begin[None], velocity[None])[0]
        return {
            "converged": True,
            "status": Status.CONVERGED.name,
            "text": "the geodesic with this initial velocity, followed to the accuracy asked for",
            "length": _number(length),
            "error": None,
            **self._curve(torch.cat([begin[None], ends.double()])),
        }

    def _mean(self, rows: list[int]) -> Answer:
        found = frechet_mean(self.manifold, self.latents[rows], solver=self.solver)
        mean = torch.stack([found.point[0].double(), self.latents[rows].mean(0)])
        on_page = torch.from_numpy(self.plane.project(mean))
        return {
            **_explained(found.status[0]),
            "variance": _number(found.variance[0]),
            "full": _numbers(mean[0]),
            "point": _numbers(on_page[0]),
            "euclidean": _numbers(on_page[1]),
        }

    def _curve(self, nodes: Tensor) -> Answer:
        nodes = nodes.detach().double().cpu()
        return {"nodes": _numbers(torch.from_numpy(self.plane.project(nodes))), "full": _numbers(nodes)}

    def _point(self, message: Mapping[str, Any], flat: str, full: str, direction: bool = False) -> Tensor:
        if (flat in message) == (full in message):
            raise OptionError(f"{message['kind']}: expected one of {flat} and {full}, got {_short(sorted(message))}.")
        if full in message:
            return self._coordinates(full, message[full], len(self.plane.origin))
        x = self._coordinates(flat, message[flat], 2)
        return x @ self.plane.axes.to(x) if direction else self.plane.lift(x)

    def _coordinates(self, name: str, value: object, count: int) -> Tensor:
        if not isinstance(value, list) or not all(_is_number(x) for x in value):
            raise OptionError(f"{name} must be a list of {count} numbers, got {_short(value)}.")
        if len(value) != count:
            raise ShapeError(f"{name} must have {count} coordinates, got {len(value)}.")
        try:
            point = torch.tensor([float(x) for x in value], dtype=torch.float64, device=self.latents.device)
        except OverflowError as error:  # a whole number beyond the range of floats
            raise NonFiniteError(f"{name} has a coordinate beyond the range of numbers.") from error
        if not bool(torch.isfinite(point).all()):
            raise NonFiniteError(f"{name} holds NaN or infinity: {_short(value)}.")
        return point

    def _rows(self, message: Mapping[str, Any]) -> list[int]:
        rows, n = message.get("rows"), len(self.latents)
        if not isinstance(rows, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in rows):
            raise OptionError(f"mean: rows must be a list of whole numbers, got {_short(rows)}.")
        if not 1 <= len(rows) <= MAX_ROWS:
            raise OptionError(f"mean: rows must name 1 to {MAX_ROWS} latents, got {len(rows)}. Choose fewer.")
        outside = [i for i in rows if not 0 <= i < n]
        if outside:
            raise OptionError(f"mean: rows must lie between 0 and {n - 1}, got {outside[0]}.")
        return rows


def refusal(error: Exception) -> Answer:
    """The answer to what cannot be solved or was not understood."""
    # the str() of an error may fail in turn, which this function sees to
    said = " ".join("".join(traceback.format_exception_only(error)).split())
    # an error of our own explains itself; its class would not help
    text = " ".join(str(error).split()) if isinstance(error, PullgeoError) else said
    return {"converged": False, "status": "FAILED", "text": text[:_LONGEST_TEXT]}


def _safe(solve: Callable[[], Answer]) -> Callable[[], Answer]:
    def answer() -> Answer:
        try:
            with torch.no_grad():
                return solve()
        # The outermost boundary: a decoder may raise anything. All of it is told, none of it is taken for success.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            return refusal(error if isinstance(error, Exception) else RuntimeError(f"the decoder called exit: {error}"))

    return answer


def _explained(status: Status) -> Answer:
    return {"converged": status.converged, "status": status.name, "text": status.value}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Tensor) -> float | None:
    """JSON has no NaN and no infinity."""
    number = float(value)
    return number if torch.isfinite(value) else None


def _numbers(values: Tensor) -> list[Any]:
    listed = values.tolist()
    if bool(torch.isfinite(values).all()):
        return listed
    return [_numbers(row) if row.ndim else _number(row) for row in values]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
