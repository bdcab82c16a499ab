"""Curves given by equidistant nodes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve import spline
from pullgeo.curve.arc_length import equal_arcs
from pullgeo.errors import OptionError, ShapeError


@dataclass(frozen=True, eq=False)
class DiscreteCurve:
    """A batch of curves on [0, 1], each through nodes at the times ``0, 1/T, ..., 1``.

    Between the nodes runs the cubic spline through them: it is of fourth order, so that it does not spoil the second
    order of a discrete geodesic, nor the fourth order that extrapolation of lengths reaches.

    Args:
        nodes: ``(b, T + 1, d)``, with T at least 1.

    Raises:
        ShapeError: the nodes are not of this shape.

    Example:
        >>> import torch
        >>> line = straight_line(torch.zeros(3, 2), torch.ones(3, 2), segments=4)
        >>> line(torch.tensor([0.0, 0.5])).shape, line.velocity(torch.tensor([0.5]))[0]
        (torch.Size([3, 2, 2]), tensor([[1., 1.]]))
    """

    nodes: Float[Tensor, "b n d"]

    def __post_init__(self) -> None:
        if self.nodes.ndim != 3 or self.nodes.shape[1] < 2:
            raise ShapeError(
                f"DiscreteCurve: nodes must have shape (b, T + 1, d) with T >= 1, got {tuple(self.nodes.shape)}."
            )

    def __call__(self, t: Tensor) -> Float[Tensor, "b m d"]:
        """Points at the times ``t`` ``(m,)``; differentiable in the times and the nodes.

        Raises:
            ShapeError: ``t`` is not a vector.
        """
        return spline.evaluate(self.nodes, self._times(t))

    def velocity(self, t: Tensor) -> Float[Tensor, "b m d"]:
        """Velocities, per unit of time, at the times ``t`` ``(m,)``.

        Raises:
            ShapeError: ``t`` is not a vector.
        """
        return spline.differentiate(self.nodes, self._times(t))

    def __len__(self) -> int:
        """Number of curves in the batch."""
        return len(self.nodes)

    def __getitem__(self, index: int | slice | Tensor | list[int]) -> "DiscreteCurve":
        """Some curves of the batch; a single index keeps the batch dimension."""
        chosen = self.nodes[index]
        return DiscreteCurve(chosen.unsqueeze(0) if chosen.ndim == 2 else chosen)

    @property
    def segments(self) -> int:
        """T, the number of segments."""
        return self.nodes.shape[1] - 1

    @property
    def begin(self) -> Float[Tensor, "b d"]:
        """First nodes."""
        return self.nodes[:, 0]

    @property
    def end(self) -> Float[Tensor, "b d"]:
        """Last nodes."""
        return self.nodes[:, -1]

    def resample(self, segments: int) -> "DiscreteCurve":
        """The same curves through another number of nodes, by cubic interpolation.

        Raises:
            OptionError: ``segments`` is below 1.
        """
        if segments < 1:
            raise OptionError(f"DiscreteCurve.resample: segments must be at least 1, got {segments}.")
        times = torch.linspace(0, 1, segments + 1, dtype=self.nodes.dtype, device=self.nodes.device)
        inner = self(times[1:-1])
        return DiscreteCurve(torch.cat([self.nodes[:, :1], inner, self.nodes[:, -1:]], 1))

    def at_equal_arcs(self, lengths: Float[Tensor, "b s"], segments: int) -> "DiscreteCurve":
        """The polygons through the nodes, cut into pieces of equal length.

        Args:
            lengths: how long each of the T segments is, in whatever metric.
            segments: number of pieces.

        Raises:
            ShapeError: there is not one length for each segment.
            OptionError: ``segments`` is below 1.
        """
        if lengths.shape != (len(self), self.segments):
            raise ShapeError(
                f"DiscreteCurve.at_equal_arcs: expected lengths {(len(self), self.segments)}, one for each segment, "
                f"got {tuple(lengths.shape)}."
            )
        if segments < 1:
            raise OptionError(f"DiscreteCurve.at_equal_arcs: segments must be at least 1, got {segments}.")
        return DiscreteCurve(equal_arcs(self.nodes, lengths, segments))

    def constant_speed(
        self, decode: Callable[[Tensor], Tensor] | None = None, segments: int | None = None
    ) -> "DiscreteCurve":
        """The same curves, run through at constant speed of their image under a map; in the chart if ``None``.

        Args:
            decode: points ``(n, d)`` to ``(n, *out)``.
            segments: number of segments of the result; as many as now if ``None``.

        Cost: ``decode`` at eight points for each segment.
        """
        segments = self.segments if segments is None else segments
        fine = self.resample(8 * max(segments, self.segments))
        return fine.at_equal_arcs(_chords(fine.nodes, decode).norm(dim=-1), segments)

    def to(self, dtype: torch.dtype) -> "DiscreteCurve":
        """The same curves with nodes of another dtype."""
        return DiscreteCurve(self.nodes.to(dtype))

    def length(self, decode: Callable[[Tensor], Tensor] | None = None, segments: int = 1024) -> Float[Tensor, " b"]:
        """Length of the image of each curve under a map, as a polygon of many chords; in the chart if ``None``.

        Args:
            decode: points ``(n, d)`` to ``(n, *out)``.
            segments: number of chords; the error falls with its square.
        """
        return _chords(self.resample(segments).nodes, decode).norm(dim=-1).sum(1)

    def _times(self, t: Tensor) -> Tensor:
        if t.ndim != 1:
            raise ShapeError(f"DiscreteCurve: times must have shape (m,), got {tuple(t.shape)}. Use t.reshape(-1).")
        return t.to(self.nodes.device)


def _chords(points: Tensor, decode: Callable[[Tensor], Tensor] | None) -> Tensor:
    flat = points.reshape(-1, points.shape[-1])
    return (flat if decode is None else decode(flat)).reshape(*points.shape[:2], -1).diff(dim=1)


def straight_line(z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"], segments: int = 32) -> DiscreteCurve:
    """The straight lines of the chart between pairs of points.

    Raises:
        OptionError: ``segments`` is below 1.
    """
    if segments < 1:
        raise OptionError(f"straight_line: segments must be at least 1, got {segments}.")
    t = torch.linspace(0, 1, segments + 1, dtype=z0.dtype, device=z0.device)[None, :, None]
    return DiscreteCurve((1 - t) * z0.unsqueeze(1) + t * z1.unsqueeze(1))
