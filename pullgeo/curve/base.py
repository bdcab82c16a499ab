"""What every batch of curves can do."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._repr import ShortRepr, html_curves
from pullgeo.curve import spline
from pullgeo.curve.arc_length import equal_arcs
from pullgeo.errors import OptionError, ShapeError

C = TypeVar("C", bound="Curve")
"""A kind of curve; methods that change curves keep it."""

OVERSAMPLING = 32
"""Pieces that a segment is cut into to measure where on it equal arcs end."""


@runtime_checkable
class Ruler(Protocol):
    """What measures short segments, as every manifold does."""

    def chord_lengths(self, layers: Tensor) -> Tensor:
        """Lengths ``(p, s, k, k)`` from each point of one layer ``(p, s + 1, k, d)`` to those of the next."""


Measure = Ruler | Callable[[Tensor], Tensor] | None
"""How long a curve is: as a manifold says, as its image under a map ``(n, d) -> (n, *out)``, or in the chart."""


Times = Tensor | np.ndarray
"""Times in [0, 1]."""


class Curve(ShortRepr, ABC):
    """A batch of curves on [0, 1]: cubic splines through nodes at the times 0, 1/T, ..., 1, with not-a-knot ends."""

    nodes: Float[Tensor, "b n d"]

    @abstractmethod
    def with_nodes(self: C, nodes: Float[Tensor, "b n d"]) -> C:
        """Curves of this kind through other nodes."""

    def __call__(self, t: Times) -> Float[Tensor, "b m d"]:
        """Points at the times ``t``, ``(m,)`` or for each curve its own ``(b, m)``.

        Differentiable in the times and the nodes.

        Raises:
            ShapeError: ``t`` is of another shape.
        """
        return spline.evaluate(self.nodes, self._times(t))

    def velocity(self, t: Times) -> Float[Tensor, "b m d"]:
        """Velocities, per unit of time, at the times ``t``, ``(m,)`` or ``(b, m)``.

        Raises:
            ShapeError: ``t`` is of another shape.
        """
        return spline.differentiate(self.nodes, self._times(t))

    def acceleration(self, t: Times) -> Float[Tensor, "b m d"]:
        """Second derivatives in the chart at the times ``t``, ``(m,)`` or ``(b, m)``.

        Raises:
            ShapeError: ``t`` is of another shape.
        """
        return spline.differentiate_twice(self.nodes, self._times(t))

    def __repr__(self) -> str:
        b, n, d = self.nodes.shape
        return f"{type(self).__name__}({b} curve{'s' * (b != 1)}, {n - 1} segments, d={d})"

    def _repr_html_(self) -> str:
        return html_curves(repr(self), self.nodes)

    def __len__(self) -> int:
        """Number of curves in the batch."""
        return len(self.nodes)

    def __getitem__(self: C, index: int | slice | Tensor | list[int]) -> C:
        """Some curves of the batch; a single index keeps the batch dimension."""
        chosen = self.nodes[index]
        return self.with_nodes(chosen.unsqueeze(0) if chosen.ndim == 2 else chosen)

    @property
    def segments(self) -> int:
        """T, the number of segments."""
        return self.nodes.shape[1] - 1

    def to(self: C, dtype: torch.dtype) -> C:
        """The same curves with nodes of another dtype."""
        return self.with_nodes(self.nodes.to(dtype))

    def resample(self: C, segments: int) -> C:
        """The same curves through another number of nodes, by cubic interpolation.

        Raises:
            OptionError: ``segments`` is below 1.
        """
        if segments < 1:
            raise OptionError(f"{type(self).__name__}.resample: segments must be at least 1, got {segments}.")
        inner = self(self._even(segments)[1:-1])
        return self.with_nodes(torch.cat([self.nodes[:, :1], inner, self.nodes[:, -1:]], 1))

    def length(self, measure: Measure = None, segments: int = 1024) -> Float[Tensor, " b"]:
        """Length of each curve: as a manifold measures it, of its image under a map, or in the chart if ``None``.

        Args:
            measure: a manifold, or a map of points ``(n, d)`` to ``(n, *out)``.
            segments: number of chords, even; two resolutions are extrapolated.

        Raises:
            OptionError: ``segments`` is not even and positive.
        """
        fine, coarse = (pieces.sum(1) for pieces in self._pieces("length", measure, segments))
        return fine + (fine - coarse) / 3

    def energy(self, measure: Measure = None, segments: int = 1024) -> Float[Tensor, " b"]:
        """``∫ ‖ż‖² dt``, at least the length's square and equal to it at constant speed; arguments as for `length`.

        Raises:
            OptionError: ``segments`` is not even and positive.
        """
        pieces = self._pieces("energy", measure, segments)
        fine, coarse = (lengths.shape[1] * lengths.square().sum(1) for lengths in pieces)
        return fine + (fine - coarse) / 3

    def euclidean_length(self, segments: int = 1024) -> Float[Tensor, " b"]:
        """Length in the chart.

        Raises:
            OptionError: ``segments`` is not even and positive.
        """
        return self.length(None, segments)

    def constant_speed(self: C, measure: Measure = None, segments: int | None = None) -> C:
        """The same curves, run through at constant speed: as a manifold measures it, of the image, or in the chart.

        The new nodes lie on the curves, at equal distances along them; between them run new splines, which keep to the
        curves as well as their number allows. Differentiable in the nodes, not in the times.

        Args:
            measure: a manifold, or a map of points ``(n, d)`` to ``(n, *out)``.
            segments: number of segments of the result; as many as now if ``None``.

        Raises:
            OptionError: ``segments`` is below 1.

        Cost: 32 points for each segment.
        """
        segments = self.segments if segments is None else segments
        if segments < 1:
            raise OptionError(f"{type(self).__name__}.constant_speed: segments must be at least 1, got {segments}.")
        with torch.no_grad():
            fine = self._even(OVERSAMPLING * max(segments, self.segments))
            lengths = measured(self(fine), measure)
            t = equal_arcs(fine[None, :, None].expand(len(self), -1, 1), lengths, segments).squeeze(2)
        return self.with_nodes(torch.cat([self.nodes[:, :1], self(t[:, 1:-1]), self.nodes[:, -1:]], 1))

    def fit(self: C, t: Times, x: Float[Tensor, "b m d"], *, free_ends: bool = False) -> C:
        """The curves with the same end points and number of nodes that come closest to given points: least squares.

        ``min Σ_j ‖z(t_j) - x_j‖²`` over the inner nodes, which the curve depends on linearly; where the points leave
        some freedom the nodes change as little as possible. Differentiable in the points and the end points.

        Args:
            t: when the curves should be near the points, ``(m,)``.
            x: the points.
            free_ends: whether the end points may move too.

        Raises:
            ShapeError: there are not ``m`` points of the curves' dimension for each curve.
        """
        t = torch.as_tensor(t)
        if t.ndim != 1 or x.shape != (len(self), len(t), self.nodes.shape[2]):
            raise ShapeError(
                f"{type(self).__name__}.fit: expected times (m,) and points {(len(self), 'm', self.nodes.shape[2])}, "
                f"got {tuple(t.shape)} and {tuple(x.shape)}."
            )
        n = self.nodes.shape[1]
        unit = torch.eye(n, dtype=self.nodes.dtype, device=self.nodes.device).unsqueeze(0)
        basis = spline.evaluate(unit, self._times(t)).squeeze(0)
        chosen = slice(None) if free_ends else slice(1, n - 1)
        change = torch.linalg.pinv(basis[:, chosen]) @ (x.to(self.nodes) - self(t))
        pad = 0 if free_ends else 1
        return self.with_nodes(self.nodes + torch.nn.functional.pad(change, (0, 0, pad, pad)))

    def sample(self, count: int = 100) -> Float[np.ndarray, "b count d"]:
        """Points at equal steps of time, for plots and files.

        Raises:
            OptionError: ``count`` is below 2.
        """
        if count < 2:
            raise OptionError(f"{type(self).__name__}.sample: count must be at least 2, got {count}.")
        points: np.ndarray = self(self._even(count - 1)).numpy(force=True)
        return points

    def polyline(self, count: int = 100) -> Float[np.ndarray, "m d"]:
        """All curves as one line, with a row of NaN after each: plotly and matplotlib lift the pen there.

        Raises:
            OptionError: ``count`` is below 2.
        """
        points = self.sample(count)
        gap = np.full((len(points), 1, points.shape[2]), np.nan, dtype=points.dtype)
        return np.concatenate([points, gap], 1).reshape(-1, points.shape[2])

    def _pieces(self, where: str, measure: Measure, segments: int) -> tuple[Tensor, Tensor]:
        if segments < 2 or segments % 2:
            raise OptionError(f"{type(self).__name__}.{where}: segments must be even and at least 2, got {segments}.")
        points = self(self._even(segments))
        return measured(points, measure), measured(points[:, ::2], measure)

    def _even(self, segments: int) -> Tensor:
        return torch.linspace(0, 1, segments + 1, dtype=self.nodes.dtype, device=self.nodes.device)

    def _times(self, t: Times) -> Tensor:
        t = torch.as_tensor(t)
        if t.ndim != 1 and (t.ndim != 2 or len(t) != len(self)):
            raise ShapeError(
                f"{type(self).__name__}: times must have shape (m,) or ({len(self)}, m), got {tuple(t.shape)}. "
                "Use t.reshape(-1)."
            )
        return t.to(self.nodes.device)


def measured(points: Float[Tensor, "b n d"], measure: Measure) -> Float[Tensor, "b s"]:
    """Lengths of the segments between successive points."""
    if isinstance(measure, Ruler):
        return measure.chord_lengths(points.unsqueeze(2)).flatten(1)
    flat = points.reshape(-1, points.shape[-1])
    image = flat if measure is None else measure(flat)
    return image.reshape(*points.shape[:2], -1).diff(dim=1).norm(dim=-1)
