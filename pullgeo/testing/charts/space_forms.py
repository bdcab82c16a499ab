"""Exponential map, logarithm and transport of spheres and hyperbolic spaces, in closed form, in any chart.

Both are a quadric ⟨p, p⟩ = κ in R^(d+1), κ = +1 for the unit sphere with the Euclidean product and κ = -1 for the
hyperboloid with the Minkowski product (last axis negative). Written with κ, their formulas are the same.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import jvp

from pullgeo.testing.charts.checks import coordinates, dimension, positive


class SpaceForm(nn.Module, ABC):
    """A chart of a space of constant curvature κ/R².

    Args:
        d: number of coordinates.
        radius: R, in ambient units; distances are R times those for R = 1.

    Raises:
        OptionError: ``d`` or ``radius`` is out of range.
    """

    kappa: int

    def __init__(self, d: int, radius: float = 1.0) -> None:
        super().__init__()
        dimension(type(self).__name__, d)
        positive(type(self).__name__, radius=radius)
        self.d = d
        self.radius = float(radius)

    @property
    def curvature(self) -> float:
        """The sectional curvature κ/R² of every plane."""
        return self.kappa / self.radius**2

    @abstractmethod
    def embed(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b e"]:
        """Coordinates to the unit quadric in R^(d+1)."""

    @abstractmethod
    def unembed(self, p: Float[Tensor, "*b e"]) -> Float[Tensor, "*b d"]:
        """The unit quadric to coordinates, defined and smooth in a neighbourhood of it."""

    @abstractmethod
    def metric(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """G(x), in closed form."""

    @abstractmethod
    def distance(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Geodesic distance, in ambient units."""

    def expmap(self, x: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """exp_x(v): cos(‖V‖) p + sin(‖V‖)/‖V‖ V, with cosh and sinh for κ = -1."""
        self._check(x, v)
        p, V = self._push(x, v)
        length = self._product(V, V).clamp(min=0).sqrt()
        return self.unembed(self._cos(length) * p + self._sinc(length) * V)

    def logmap(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The v with exp_x(v) = y along the shortest geodesic: (q - cos(ℓ) p) ℓ/sin(ℓ) with ℓ = d(x, y)/R."""
        self._check(x, y)
        p, q = self.embed(x), self.embed(y)
        length = self.distance(x, y)[..., None] / self.radius
        return self._to_coordinates(p, (q - self._cos(length) * p) / self._sinc(length))

    def transp(
        self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"], v: Float[Tensor, "*b d"]
    ) -> Float[Tensor, "*b d"]:
        """Parallel transport of v from x to y along the shortest geodesic: V - ⟨q, V⟩/(κ + ⟨p, q⟩) (p + q)."""
        self._check(x, y, v)
        p, V = self._push(x, v)
        q = self.embed(y)
        return self._to_coordinates(q, V - self._product(q, V) / (self.kappa + self._product(p, q)) * (p + q))

    def _check(self, *points: Tensor) -> None:
        for x in points:
            coordinates(type(self).__name__, x, self.d)

    def _push(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        # Forward mode refuses expanded tensors, which contiguous() copies.
        p, V = jvp(self.embed, (x.contiguous(),), (v.contiguous(),))[:2]
        return p, V

    def _to_coordinates(self, p: Tensor, V: Tensor) -> Tensor:
        return jvp(self.unembed, (p.contiguous(),), (V.contiguous(),))[1]

    def _product(self, u: Tensor, v: Tensor) -> Tensor:
        spatial = (u[..., :-1] * v[..., :-1]).sum(-1, keepdim=True)
        return spatial + self.kappa * u[..., -1:] * v[..., -1:]

    def _cos(self, length: Tensor) -> Tensor:
        return torch.cos(length) if self.kappa > 0 else torch.cosh(length)

    def _sinc(self, length: Tensor) -> Tensor:
        safe = torch.where(length > 0, length, torch.ones_like(length))
        ratio = (torch.sin(safe) if self.kappa > 0 else torch.sinh(safe)) / safe
        return torch.where(length > 0, ratio, torch.ones_like(length))


def scaled_identity(scale: Float[Tensor, "*b 1"], d: int) -> Float[Tensor, "*b d d"]:
    """Conformal metrics: ``scale`` times the identity."""
    return scale[..., None] * torch.eye(d, dtype=scale.dtype, device=scale.device)
