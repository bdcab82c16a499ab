"""Curved surfaces in space with closed forms for curvature, conserved quantities and some distances."""

import torch
from jaxtyping import Float
from scipy.special import ellipeinc
from torch import Tensor, nn

from pullgeo.errors import OptionError
from pullgeo.testing.charts.checks import coordinates, positive


class Paraboloid(nn.Module):
    """(x, y) -> (x, y, a(x² + y²)).

    G = I + 4a² z zᵀ, det G = 1 + 4a²‖z‖² (33 at (-2, -2) for a = 1), Gaussian curvature 4a²/(1 + 4a²‖z‖²)².

    Args:
        a: steepness, in 1/length.

    Raises:
        OptionError: ``a`` is not positive.

    Example:
        >>> torch.linalg.det(Paraboloid().metric(torch.tensor([[-2.0, -2.0]])))
        tensor([33.])
    """

    def __init__(self, a: float = 1.0) -> None:
        super().__init__()
        positive("Paraboloid", a=a)
        self.a = float(a)

    def forward(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3"]:
        """``(*b, 2) -> (*b, 3)``."""
        coordinates("Paraboloid", x, 2)
        return torch.cat([x, self.a * x.square().sum(-1, keepdim=True)], dim=-1)

    def metric(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2 2"]:
        """I + 4a² z zᵀ."""
        coordinates("Paraboloid", x, 2)
        eye = torch.eye(2, dtype=x.dtype, device=x.device)
        return eye + 4 * self.a**2 * x[..., :, None] * x[..., None, :]

    def gaussian_curvature(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """4a²/(1 + 4a²‖z‖²)²."""
        coordinates("Paraboloid", x, 2)
        return 4 * self.a**2 / (1 + 4 * self.a**2 * x.square().sum(-1)).square()

    def clairaut(self, x: Float[Tensor, "*b 2"], v: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """x₁v₂ - x₂v₁ = ρ²φ̇, constant along geodesics."""
        return x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]

    def ray_distance(self, inner: Float[Tensor, "*b"], outer: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Distance of two points on one ray from the apex, at radii ``inner`` and ``outer``: ``|s(r₁) - s(r₀)|``.

        s(r) = ½ r sqrt(1 + 4a²r²) + arsinh(2ar)/4a; such a ray is a shortest path.
        """
        return (self._arc(outer) - self._arc(inner)).abs()

    def _arc(self, r: Tensor) -> Tensor:
        return r * (1 + (2 * self.a * r).square()).sqrt() / 2 + (2 * self.a * r).asinh() / (4 * self.a)


class Torus(nn.Module):
    """(θ, φ) -> ((R + r cos θ) cos φ, (R + r cos θ) sin φ, r sin θ): θ runs around the tube, φ around the axis.

    G = diag(r², (R + r cos θ)²), Gaussian curvature cos θ / (r(R + r cos θ)).

    Args:
        R: distance of the tube's centre from the axis, in ambient units.
        r: radius of the tube, less than R.

    Raises:
        OptionError: not 0 < r < R.

    Example:
        >>> Torus(3.0, 2.0).gaussian_curvature(torch.tensor([[1.0, 0.0]], dtype=torch.float64)).item()
        0.0662037
    """

    def __init__(self, R: float = 3.0, r: float = 1.0) -> None:
        super().__init__()
        positive("Torus", R=R, r=r)
        if r >= R:
            raise OptionError(f"Torus: expected r < R, got r = {r} and R = {R}. The tube would meet itself; swap them?")
        self.R, self.r = float(R), float(r)

    @property
    def area(self) -> float:
        """4π²Rr."""
        return 4 * torch.pi**2 * self.R * self.r

    def forward(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3"]:
        """``(*b, 2) -> (*b, 3)``."""
        phi, rho = x[..., 1], self.axis_distance(x)
        return torch.stack([rho * phi.cos(), rho * phi.sin(), self.r * x[..., 0].sin()], dim=-1)

    def axis_distance(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """ρ = R + r cos θ."""
        coordinates("Torus", x, 2)
        return self.R + self.r * x[..., 0].cos()

    def metric(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2 2"]:
        """diag(r², ρ²)."""
        rho = self.axis_distance(x)
        return torch.diag_embed(torch.stack([torch.full_like(rho, self.r**2), rho.square()], dim=-1))

    def gaussian_curvature(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """K = cos θ / (r ρ)."""
        return x[..., 0].cos() / (self.r * self.axis_distance(x))

    def clairaut(self, x: Float[Tensor, "*b 2"], v: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """ρ² φ̇, constant along geodesics."""
        return self.axis_distance(x).square() * v[..., 1]

    def meridian_distance(self, start: Float[Tensor, "*b"], end: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """Arc ``r |θ₁ - θ₀|``, the distance of two points with the same φ whose angles differ by at most π."""
        return self.r * (end - start).abs()


class Ellipsoid(nn.Module):
    """(u, v) -> (a sin u cos v, b sin u sin v, c cos u), u in (0, π) from the pole of the third axis.

    Gaussian curvature (abc)⁻² (x²/a⁴ + y²/b⁴ + z²/c⁴)⁻². Singular at the poles u = 0, π.

    Args:
        a: first half axis, in ambient units.
        b: second half axis.
        c: third half axis.

    Raises:
        OptionError: an axis is not positive.

    Example:
        >>> Ellipsoid(2.0, 2.0, 2.0).gaussian_curvature(torch.tensor([[1.0, 0.5]]))
        tensor([0.2500])
    """

    def __init__(self, a: float = 3.0, b: float = 2.0, c: float = 1.0) -> None:
        super().__init__()
        positive("Ellipsoid", a=a, b=b, c=c)
        self.axes = (float(a), float(b), float(c))

    def forward(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3"]:
        """``(*b, 2) -> (*b, 3)``."""
        coordinates("Ellipsoid", x, 2)
        u, v = x.unbind(-1)
        a, b, c = self.axes
        return torch.stack([a * u.sin() * v.cos(), b * u.sin() * v.sin(), c * u.cos()], dim=-1)

    def metric(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2 2"]:
        """The first fundamental form, from the two coordinate tangents."""
        coordinates("Ellipsoid", x, 2)
        tangents = self._tangents(x)
        return tangents @ tangents.mT

    def gaussian_curvature(self, x: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """(abc)⁻² (x²/a⁴ + y²/b⁴ + z²/c⁴)⁻²."""
        a, b, c = self.axes
        return 1 / (a * b * c * self._weighted(self.forward(x), 4)).square()

    def joachimsthal(self, x: Float[Tensor, "*b 2"], v: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
        """(Σ pᵢ²/aᵢ⁴)(Σ ṗᵢ²/aᵢ²) for the point p and its velocity ṗ in space, constant along geodesics."""
        velocity = (v[..., None] * self._tangents(x)).sum(-2)
        return self._weighted(self.forward(x), 4) * self._weighted(velocity, 2)

    def equator_length(self, start: float, end: float) -> float:
        """Length of the equator u = π/2, a geodesic, from v = start to v = end: ``b |E(v | 1 - a²/b²)|``."""
        a, b, _ = self.axes
        modulus = 1 - (a / b) ** 2
        return float(b * abs(ellipeinc(end, modulus) - ellipeinc(start, modulus)))

    def _tangents(self, x: Tensor) -> Tensor:
        u, v = x.unbind(-1)
        a, b, c = self.axes
        along_u = torch.stack([a * u.cos() * v.cos(), b * u.cos() * v.sin(), -c * u.sin()], dim=-1)
        along_v = torch.stack([-a * u.sin() * v.sin(), b * u.sin() * v.cos(), torch.zeros_like(u)], dim=-1)
        return torch.stack([along_u, along_v], dim=-2)

    def _weighted(self, p: Tensor, power: int) -> Tensor:
        weights = torch.tensor([axis**-power for axis in self.axes], dtype=p.dtype, device=p.device)
        return (p.square() * weights).sum(-1)
