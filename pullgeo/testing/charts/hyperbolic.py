"""Charts of hyperbolic space: metric functions G(z), since no smooth map into Euclidean space has them."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.testing.charts.space_forms import SpaceForm, scaled_identity


class PoincareBall(SpaceForm):
    """The Poincaré ball ‖z‖ < 1: G = 4R²/(1 - ‖z‖²)² I, curvature -1/R². Outside the ball G is NaN.

    Called as a module it is the metric function ``(*b, d) -> (*b, d, d)``.

    Args:
        d: dimension.
        radius: R, in ambient units.

    Raises:
        OptionError: ``d`` or ``radius`` is out of range.

    Example:
        >>> ball = PoincareBall(2)
        >>> ball.distance(torch.zeros(1, 2), torch.full((1, 2), 0.5))
        tensor([1.7627])
    """

    kappa = -1

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """The metric, see `metric`."""
        return self.metric(x)

    def metric(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """4R²/(1 - ‖z‖²)² I."""
        self._check(x)
        room = 1 - x.square().sum(-1, keepdim=True)
        scale = 4 * self.radius**2 / room.square()
        return scaled_identity(torch.where(room > 0, scale, torch.full_like(scale, torch.nan)), self.d)

    def embed(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        """The ball to the hyperboloid: (2z, 1 + ‖z‖²)/(1 - ‖z‖²)."""
        s = x.square().sum(-1, keepdim=True)
        return torch.cat([2 * x, 1 + s], dim=-1) / (1 - s)

    def unembed(self, p: Float[Tensor, "*b e"]) -> Float[Tensor, "*b d"]:
        """The hyperboloid to the ball."""
        return p[..., :-1] / (1 + p[..., -1:])

    def distance(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """2R arsinh(‖x - y‖ / sqrt((1 - ‖x‖²)(1 - ‖y‖²)))."""
        self._check(x, y)
        room = (1 - x.square().sum(-1)) * (1 - y.square().sum(-1))
        return 2 * self.radius * torch.asinh((x - y).norm(dim=-1) / room.sqrt())


class HalfPlane(SpaceForm):
    """The upper half-plane (x, y), y > 0: G = R²/y² I, curvature -1/R². Below the axis G is NaN.

    Called as a module it is the metric function ``(*b, 2) -> (*b, 2, 2)``.

    Args:
        radius: R, in ambient units.

    Raises:
        OptionError: ``radius`` is not positive.

    Example:
        >>> HalfPlane().distance(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, torch.e]]))
        tensor([1.0000])
    """

    kappa = -1

    def __init__(self, radius: float = 1.0) -> None:
        super().__init__(2, radius)

    def forward(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2 2"]:
        """The metric, see `metric`."""
        return self.metric(x)

    def metric(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2 2"]:
        """R²/y² I."""
        self._check(x)
        height = x[..., 1:]
        scale = self.radius**2 / height.square()
        return scaled_identity(torch.where(height > 0, scale, torch.full_like(scale, torch.nan)), 2)

    def embed(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3"]:
        """The half-plane to the hyperboloid: (x/y, (s - 1)/2y, (s + 1)/2y) with s = x² + y²."""
        across, height = x.unbind(-1)
        s = across.square() + height.square()
        return torch.stack([across / height, (s - 1) / (2 * height), (s + 1) / (2 * height)], dim=-1)

    def unembed(self, p: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """The hyperboloid to the half-plane."""
        height = 1 / (p[..., 2] - p[..., 1])
        return torch.stack([p[..., 0] * height, height], dim=-1)

    def distance(self, x: Float[Tensor, "*b 2"], y: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """2R arsinh(‖x - y‖ / 2 sqrt(x₂ y₂))."""
        self._check(x, y)
        return 2 * self.radius * torch.asinh((x - y).norm(dim=-1) / (2 * (x[..., 1] * y[..., 1]).sqrt()))
