"""Curves given by equidistant nodes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.plain_memory import hold_outside_inference
from pullgeo.curve.arc_length import equal_arcs
from pullgeo.curve.base import Curve
from pullgeo.errors import DtypeError, OptionError, ShapeError
from pullgeo.numerics.batch import Batch


@dataclass(frozen=True, eq=False)
class DiscreteCurve(Curve, Batch):
    """A batch of curves on [0, 1], each through nodes at the times ``0, 1/T, ..., 1``.

    Between the nodes runs the cubic spline through them: it is of fourth order, so that it does not spoil the fourth
    order of a discrete geodesic.

    Args:
        nodes: ``(b, T + 1, d)``, with T at least 1.

    Raises:
        ShapeError: the nodes are not of this shape.
        DtypeError: they are not floating point.

    Example:
        >>> import torch
        >>> line = straight_line(torch.zeros(3, 2), torch.ones(3, 2), segments=4)
        >>> line(torch.tensor([0.0, 0.5])).shape, line.velocity(torch.tensor([0.5]))[0]
        (torch.Size([3, 2, 2]), tensor([[1., 1.]]))
    """

    nodes: Float[Tensor, "b n d"]

    def __post_init__(self) -> None:
        hold_outside_inference(self)
        if self.nodes.ndim != 3 or self.nodes.shape[1] < 2:
            raise ShapeError(
                f"DiscreteCurve: nodes must have shape (b, T + 1, d) with T >= 1, got {tuple(self.nodes.shape)}."
            )
        if not self.nodes.is_floating_point():
            raise DtypeError(
                f"DiscreteCurve: nodes must be floating point, got {self.nodes.dtype}. Use nodes.double()."
            )

    def with_nodes(self, nodes: Float[Tensor, "b n d"]) -> "DiscreteCurve":
        """Curves through other nodes."""
        return DiscreteCurve(nodes)

    @property
    def begin(self) -> Float[Tensor, "b d"]:
        """First nodes."""
        return self.nodes[:, 0]

    @property
    def end(self) -> Float[Tensor, "b d"]:
        """Last nodes."""
        return self.nodes[:, -1]

    @property
    def params(self) -> Float[Tensor, "b m d"]:
        """Inner nodes: what is free between fixed end points."""
        return self.nodes[:, 1:-1]

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


def straight_line(z0: Float[Tensor, "b d"], z1: Float[Tensor, "b d"], segments: int = 32) -> DiscreteCurve:
    """The straight lines of the chart between pairs of points ``(b, d)``, which broadcast.

    Raises:
        ShapeError: the points are not ``(b, d)``.
        OptionError: ``segments`` is below 1.
    """
    if segments < 1:
        raise OptionError(f"straight_line: segments must be at least 1, got {segments}.")
    if z0.ndim != 2 or z1.ndim != 2 or z0.shape[1] != z1.shape[1] or 1 < len(z0) != len(z1) > 1:
        raise ShapeError(
            f"straight_line: expected pairs of points (b, d), got {tuple(z0.shape)} and {tuple(z1.shape)}. A single "
            "point is z[None]."
        )
    t = torch.linspace(0, 1, segments + 1, dtype=z0.dtype, device=z0.device)[None, :, None]
    return DiscreteCurve((1 - t) * z0.unsqueeze(1) + t * z1.unsqueeze(1))
