"""Spaces of constant curvature: Poincaré balls and stereographic spheres in coordinates, and the hyperboloid."""

from dataclasses import dataclass
from math import comb

import torch
from geoopt.manifolds.lorentz import Lorentz
from geoopt.manifolds.stereographic import Stereographic
from jaxtyping import Float
from torch import Tensor

from pullgeo.manifold.ambient.base import Ambient
from pullgeo.metric.structured import Diagonal

_SERIES = [4**n / (2 * n**2 * comb(2 * n, n)) for n in range(1, 14)]
"""``arcsin²(√s)/s`` in powers of s; the radius of convergence is 1."""

_NEAR = 0.05
"""Below it the series is exact to rounding, and above it the closed form can be differentiated."""


def squared_arc(chord: Float[Tensor, " n"], curvature: Float[Tensor, ""] | float) -> Float[Tensor, " n"]:
    """Squared geodesic distance ``d²`` of points whose squared distance in the flat space around them is ``chord``.

    ``d² = chord · (arcsin √s / √s)²`` with ``s = κ chord / 4``, and arsinh for negative s: great circles for κ > 0,
    hyperbolas for κ < 0, lines for κ = 0. Smooth where the points coincide, and in κ.
    """
    s = curvature * chord / 4
    near = s.abs() < _NEAR
    small = torch.where(near, s, 0.0)
    series = torch.full_like(s, _SERIES[-1])
    for coefficient in reversed(_SERIES[:-1]):
        series = series * small + coefficient
    root = torch.where(near, 1.0, s.abs()).sqrt()
    positive = s > 0
    # each branch sees only its own values, so that the gradient of the other is finite
    arc = torch.where(
        positive,
        torch.asin(torch.where(positive & ~near, root, 0.5)),
        torch.asinh(torch.where(positive | near, 0.5, root)),
    )
    return chord * torch.where(near, series, (arc / root).square())


@dataclass(frozen=True, eq=False)
class ConformalBall(Ambient):
    """The Poincaré ball, or a sphere in stereographic projection: ``M(y) = λ² I``, ``λ = 2 / (1 + κ‖y‖²)``.

    Segments are measured by their exact geodesic length. Points outside the ball have NaN for a metric.

    Source: Bachmann, Bécigneul, Ganea, *Constant Curvature Graph Convolutional Networks*, ICML 2020, section 2.
    """

    manifold: Stereographic

    def metric(self, y: Float[Tensor, "b D"]) -> Diagonal:
        """``λ² I``."""
        return Diagonal(self._factor(y).square().expand(y.shape))

    def segment_energy(self, a: Float[Tensor, "n D"], b: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """Squared geodesic distances."""
        chord = (self._factor(a) * self._factor(b)).squeeze(1) * (b - a).square().sum(1)
        return squared_arc(chord, self._curvature(a))

    def lowered_christoffel(
        self, y: Float[Tensor, "b D"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """``-κ λ³ (⟨y, u⟩ w + ⟨y, w⟩ u - ⟨u, w⟩ y)``."""
        yu, yw, uw = ((p * q).sum(1, keepdim=True) for p, q in ((y, u), (y, w), (u, w)))
        return -self._curvature(y) * self._factor(y) ** 3 * (yu * w + yw * u - uw * y)

    @property
    def fix(self) -> str:
        """How a decoder is made to end inside the ball."""
        return (
            "Points of a ball have ‖y‖ < 1/√c, and a decoder for it should end with the ball's exponential map: "
            "let it return manifold.expmap0(output)."
        )

    def _factor(self, y: Tensor) -> Float[Tensor, "b 1"]:
        room = 1 + self._curvature(y) * y.square().sum(1, keepdim=True)
        return 2 / torch.where(room > 0, room, torch.nan)

    def _curvature(self, y: Tensor) -> Tensor:
        return self.manifold.k.to(y.dtype)


@dataclass(frozen=True, eq=False)
class Hyperboloid(Ambient):
    """Hyperbolic space as ``-y_0² + y_1² + ... = -k`` in Minkowski space, with curvature -1/k.

    The metric around it is constant and not positive, which tangents of the hyperboloid do not notice. Segments are
    measured by their exact geodesic length.
    """

    manifold: Lorentz

    def metric(self, y: Float[Tensor, "b D"]) -> Diagonal:
        """``diag(-1, 1, ..., 1)``."""
        signs = torch.ones(y.shape[1], dtype=y.dtype, device=y.device)
        return Diagonal(torch.cat([-signs[:1], signs[1:]]))

    def segment_energy(self, a: Float[Tensor, "n D"], b: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """Squared geodesic distances."""
        step = b - a
        return squared_arc(self.metric(a).inner(step, step), -1 / self.manifold.k.to(a.dtype))

    def lowered_christoffel(
        self, y: Float[Tensor, "b D"], u: Float[Tensor, "b D"], w: Float[Tensor, "b D"]
    ) -> Float[Tensor, "b D"]:
        """Zero: the metric around is constant."""
        return torch.zeros_like(u)

    def _tolerance(self, y: Tensor) -> float:
        # y₀² and the other squares, which nearly cancel, are rounded each by itself
        return 1e-5 * max(1.0, float(y.abs().max()) ** 2)
