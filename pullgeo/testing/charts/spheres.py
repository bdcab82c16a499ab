"""Charts of round spheres: maps from coordinates into R^(d+1)."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.testing.charts.space_forms import SpaceForm, scaled_identity


class StereographicSphere(SpaceForm):
    """The sphere of radius R seen from its north pole: x -> R (2x, ‖x‖² - 1) / (‖x‖² + 1).

    Covers everything but the north pole. G = 4R²/(1 + ‖x‖²)² I, sectional curvature 1/R².

    Args:
        d: dimension of the sphere, the number of coordinates.
        radius: R, in ambient units.

    Raises:
        OptionError: ``d`` or ``radius`` is out of range.

    Example:
        >>> chart = StereographicSphere(2)
        >>> x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
        >>> chart.distance(x, y)  # a quarter of the equator
        tensor([1.5708])
    """

    kappa = 1

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b D"]:
        """Coordinates ``(*b, d)`` to points ``(*b, d + 1)`` of the sphere."""
        self._check(x)
        return self.radius * self.embed(x)

    def embed(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        """Coordinates to the unit sphere."""
        s = x.square().sum(-1, keepdim=True)
        return torch.cat([2 * x, s - 1], dim=-1) / (s + 1)

    def unembed(self, p: Float[Tensor, "*b e"]) -> Float[Tensor, "*b d"]:
        """The unit sphere without its north pole to coordinates."""
        return p[..., :-1] / (1 - p[..., -1:])

    def metric(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """4R²/(1 + ‖x‖²)² I."""
        self._check(x)
        s = x.square().sum(-1, keepdim=True)
        return scaled_identity(4 * self.radius**2 / (1 + s).square(), self.d)

    def distance(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Great-circle distance 2R arctan(‖p - q‖ / ‖p + q‖) of the unit vectors p and q, accurate at every distance.

        ‖p - q‖ = 2‖x - y‖ / sqrt((1 + ‖x‖²)(1 + ‖y‖²)) keeps its digits for close points.
        """
        self._check(x, y)
        chord = 2 * (x - y).norm(dim=-1) / ((1 + x.square().sum(-1)) * (1 + y.square().sum(-1))).sqrt()
        return 2 * self.radius * torch.atan2(chord, (self.embed(x) + self.embed(y)).norm(dim=-1))


class AngularSphere(SpaceForm):
    """The two-sphere in angles: (θ, φ) -> R (sin θ cos φ, sin θ sin φ, cos θ), θ in (0, π) from the north pole.

    Singular at the poles. G = R² diag(1, sin²θ), curvature 1/R².

    Args:
        radius: R, in ambient units.

    Raises:
        OptionError: ``radius`` is not positive.

    Example:
        >>> AngularSphere(radius=2.0).metric(torch.tensor([[torch.pi / 2, 0.3]]))
        tensor([[[4., 0.],
                 [0., 4.]]])
    """

    kappa = 1

    def __init__(self, radius: float = 1.0) -> None:
        super().__init__(2, radius)

    def forward(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3"]:
        """Angles ``(*b, 2)`` to points ``(*b, 3)`` of the sphere."""
        self._check(x)
        return self.radius * self.embed(x)

    def embed(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3"]:
        """Angles to the unit sphere."""
        theta, phi = x.unbind(-1)
        return torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], dim=-1)

    def unembed(self, p: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2"]:
        """The unit sphere without its poles to angles, φ in (-π, π]."""
        x, y, z = p.unbind(-1)
        return torch.stack([torch.atan2((x.square() + y.square()).sqrt(), z), torch.atan2(y, x)], dim=-1)

    def metric(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2 2"]:
        """R² diag(1, sin²θ)."""
        self._check(x)
        sine = x[..., 0].sin()
        return torch.diag_embed(self.radius**2 * torch.stack([torch.ones_like(sine), sine.square()], dim=-1))

    def distance(self, x: Float[Tensor, "*b 2"], y: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """Great-circle distance 2R arctan(‖p - q‖ / ‖p + q‖) of the unit vectors p and q."""
        self._check(x, y)
        p, q = self.embed(x), self.embed(y)
        return 2 * self.radius * torch.atan2((p - q).norm(dim=-1), (p + q).norm(dim=-1))
