"""Cubic splines between fixed end points, given by a few parameters."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.plain_memory import hold_outside_inference
from pullgeo.curve.base import Curve
from pullgeo.curve.discrete import DiscreteCurve, straight_line
from pullgeo.errors import ShapeError


@dataclass(frozen=True, eq=False)
class CubicSpline(Curve):
    """A batch of cubic splines on [0, 1]: a straight line, and by how much its inner knots are off it.

    The knots are at the times ``0, 1/T, ..., 1``. The curve is linear in its parameters, and with all of them zero it
    is the line: a leaf tensor ``params`` is all that an optimiser needs, and the end points stay where they are.

    Args:
        begin: where the curves begin.
        end: where they end.
        params: ``(b, T - 1, d)``, T at least 1.

    Raises:
        ShapeError: the three do not fit together.

    Example:
        >>> import torch
        >>> line = CubicSpline.line(torch.zeros(3, 2), torch.ones(3, 2), segments=4)
        >>> t = torch.linspace(0, 1, 7)
        >>> arc = line.fit(t, torch.stack([t, t.square()], 1).expand(3, 7, 2))
        >>> bool(torch.allclose(arc(torch.tensor([0.5]))[0], torch.tensor([[0.5, 0.25]])))
        True
    """

    begin: Float[Tensor, "b d"]
    end: Float[Tensor, "b d"]
    params: Float[Tensor, "b m d"]

    def __post_init__(self) -> None:
        hold_outside_inference(self)
        b, d = self.begin.shape if self.begin.ndim == 2 else (-1, -1)
        if self.end.shape != (b, d) or self.params.ndim != 3 or self.params.shape[::2] != (b, d):
            raise ShapeError(
                "CubicSpline: expected begin and end (b, d) and params (b, T - 1, d), got "
                f"{tuple(self.begin.shape)}, {tuple(self.end.shape)} and {tuple(self.params.shape)}."
            )

    @staticmethod
    def line(begin: Float[Tensor, "b d"], end: Float[Tensor, "b d"], segments: int = 8) -> "CubicSpline":
        """The straight lines of the chart between points ``(b, d)``, which broadcast.

        Raises:
            ShapeError: the points are not ``(b, d)``.
            OptionError: ``segments`` is below 1.
        """
        params = torch.zeros_like(straight_line(begin, end, segments).params)
        return CubicSpline(begin.expand(len(params), -1), end.expand(len(params), -1), params)

    @staticmethod
    def of(curve: Curve, segments: int | None = None) -> "CubicSpline":
        """Any curves as splines: the same curves, or close to them with another number of segments.

        Raises:
            OptionError: ``segments`` is below 1.
        """
        nodes = curve.nodes if segments is None else curve.resample(segments).nodes
        return CubicSpline(nodes[:, 0], nodes[:, -1], nodes[:, 1:-1] - _line(nodes[:, 0], nodes[:, -1], nodes.shape[1]))

    @property
    def nodes(self) -> Float[Tensor, "b n d"]:  # type: ignore[override]
        """The knots."""
        inner = self.params + _line(self.begin, self.end, self.params.shape[1] + 2)
        return torch.cat([self.begin.unsqueeze(1), inner, self.end.unsqueeze(1)], 1)

    def with_nodes(self, nodes: Float[Tensor, "b n d"]) -> "CubicSpline":
        """Splines through other knots."""
        return CubicSpline.of(DiscreteCurve(nodes))

    def discrete(self, segments: int | None = None) -> DiscreteCurve:
        """The same curves as nodes; with ``segments``, as that many nodes and one on them."""
        curve = DiscreteCurve(self.nodes)
        return curve if segments is None else curve.resample(segments)


def _line(begin: Tensor, end: Tensor, n: int) -> Tensor:
    return straight_line(begin, end, n - 1).params
