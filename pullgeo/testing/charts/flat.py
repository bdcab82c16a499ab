"""Maps whose pulled-back metric is flat, so that distances have closed forms."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo.errors import ShapeError
from pullgeo.testing.charts.checks import coordinates, positive


class LinearChart(nn.Module):
    """z -> W z + b: geodesics are straight lines and the distance is ‖W(x - y)‖.

    Args:
        W: ``(D, d)``; of any rank, a distance of zero between different points included.
        b: ``(D,)``, zero by default.

    Raises:
        ShapeError: ``W`` is not a matrix, or ``b`` does not have its number of rows.

    Example:
        >>> LinearChart(torch.diag(torch.tensor([3.0, 4.0]))).distance(torch.zeros(1, 2), torch.ones(1, 2))
        tensor([5.])
    """

    W: Tensor
    b: Tensor

    def __init__(self, W: Float[Tensor, "..."], b: Float[Tensor, "..."] | None = None) -> None:
        super().__init__()
        if W.ndim != 2:
            raise ShapeError(f"LinearChart: W must be a matrix (D, d), got {tuple(W.shape)}.")
        b = W.new_zeros(len(W)) if b is None else b
        if b.shape != W.shape[:1]:
            raise ShapeError(f"LinearChart: b must have shape ({len(W)},) like the rows of W, got {tuple(b.shape)}.")
        self.register_buffer("W", W.detach().clone())
        self.register_buffer("b", b.detach().clone())

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n D"]:
        """``(*n, d) -> (*n, D)``."""
        coordinates("LinearChart", x, self.W.shape[1])
        return x @ self.W.T + self.b

    def metric(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d d"]:
        """WᵀW."""
        coordinates("LinearChart", x, self.W.shape[1])
        return (self.W.T @ self.W).expand(*x.shape[:-1], -1, -1)

    def distance(self, x: Float[Tensor, "*n d"], y: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """‖W(x - y)‖."""
        coordinates("LinearChart", x, self.W.shape[1])
        return ((x - y) @ self.W.T).norm(dim=-1)


class SwissRoll(nn.Module):
    """A rolled plane, (u, h) -> a (u cos u, h, u sin u): curved outside, flat inside.

    G = a² diag(1 + u², 1). In arc length s(u) = ½(u sqrt(1 + u²) + arsinh u) it is the plane, all of it.

    Args:
        scale: a, in ambient units.

    Raises:
        OptionError: ``scale`` is not positive.

    Example:
        >>> roll = SwissRoll()
        >>> roll.distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([1.1478])
    """

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        positive("SwissRoll", scale=scale)
        self.scale = float(scale)

    def forward(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3"]:
        """``(*b, 2) -> (*b, 3)``."""
        coordinates("SwissRoll", x, 2)
        u, h = x.unbind(-1)
        return self.scale * torch.stack([u * u.cos(), h, u * u.sin()], dim=-1)

    def metric(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2 2"]:
        """a² diag(1 + u², 1)."""
        coordinates("SwissRoll", x, 2)
        u = x[..., 0]
        return torch.diag_embed(self.scale**2 * torch.stack([1 + u.square(), torch.ones_like(u)], dim=-1))

    def unroll(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """The isometry a (s(u), h) onto the plane."""
        coordinates("SwissRoll", x, 2)
        u, h = x.unbind(-1)
        arc = (u * (1 + u.square()).sqrt() + u.asinh()) / 2
        return self.scale * torch.stack([arc, h], dim=-1)

    def distance(self, x: Float[Tensor, "*b 2"], y: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """‖unroll(x) - unroll(y)‖."""
        return (self.unroll(x) - self.unroll(y)).norm(dim=-1)
