"""Fisher-Rao geometry of simple families: isometric maps into Euclidean space, and the Gaussian's metric."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo.testing.charts.checks import coordinates, dimension


class BernoulliFisherRao(nn.Module):
    """p -> 2 arcsin √p, entry by entry: pulls the Euclidean metric back to I(p) = 1/(p(1 - p)). NaN outside [0, 1].

    Example:
        >>> family = BernoulliFisherRao()
        >>> family.distance(torch.tensor([[0.2]]), torch.tensor([[0.8]]))
        tensor([1.2870])
    """

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Probabilities to the cube (0, π)^d."""
        return 2 * x.sqrt().asin()

    def metric(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """I = diag 1/(p(1 - p))."""
        return torch.diag_embed(1 / (x * (1 - x)))

    def distance(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """‖2 arcsin √x - 2 arcsin √y‖."""
        return 2 * (x.sqrt().asin() - y.sqrt().asin()).norm(dim=-1)


class PoissonFisherRao(nn.Module):
    """λ -> 2√λ, entry by entry: pulls the Euclidean metric back to I(λ) = 1/λ. NaN for negative rates.

    Example:
        >>> PoissonFisherRao().distance(torch.tensor([[1.0]]), torch.tensor([[4.0]]))
        tensor([2.])
    """

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Rates to the positive orthant."""
        return 2 * x.sqrt()

    def metric(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """I = diag 1/λ."""
        return torch.diag_embed(1 / x)

    def distance(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """‖2√x - 2√y‖."""
        return 2 * (x.sqrt() - y.sqrt()).norm(dim=-1)


class CategoricalFisherRao(nn.Module):
    """(p_1, ..., p_d) -> 2√(p_1, ..., p_d, 1 - Σp), on a sphere of radius 2. NaN outside the simplex.

    G = diag(1/p) + 1/(1 - Σp) 11ᵀ, sectional curvature 1/4.

    Args:
        d: number of free probabilities, one less than the number of classes.

    Raises:
        OptionError: ``d`` is less than one.

    Example:
        >>> family = CategoricalFisherRao(1)  # two classes are a Bernoulli variable
        >>> family.distance(torch.tensor([[0.2]]), torch.tensor([[0.8]]))
        tensor([1.2870])
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        dimension("CategoricalFisherRao", d)
        self.d = d

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b D"]:
        """Free probabilities ``(*b, d)`` to the sphere in ``(*b, d + 1)``."""
        return 2 * self._all(x).sqrt()

    def metric(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """diag(1/p) + 1/(1 - Σp) 11ᵀ."""
        rest = self._all(x)[..., -1]
        return torch.diag_embed(1 / x) + (1 / rest)[..., None, None]

    def distance(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """4 arctan(‖√p - √q‖ / ‖√p + √q‖) = 2 arccos Σ√(pq), accurate at every distance."""
        p, q = self._all(x).sqrt(), self._all(y).sqrt()
        return 4 * torch.atan2((p - q).norm(dim=-1), (p + q).norm(dim=-1))

    def _all(self, x: Tensor) -> Tensor:
        coordinates("CategoricalFisherRao", x, self.d)
        return torch.cat([x, 1 - x.sum(-1, keepdim=True)], dim=-1)


class GaussianFisherRao(nn.Module):
    """Independent normal variables in the coordinates (μ_1, ..., μ_n, σ_1, ..., σ_n): G = diag(1/σ², 2/σ²).

    Called as a module it is the metric function ``(*b, 2n) -> (*b, 2n, 2n)``. Each pair (μ, σ) is a hyperbolic plane
    of curvature -1/2.

    Args:
        n: number of variables.

    Raises:
        OptionError: ``n`` is less than one.

    Example:
        >>> family = GaussianFisherRao(1)  # from N(0, 1) to N(0, e²) is √2
        >>> family.distance(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, torch.e]]))
        tensor([1.4142])
    """

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        dimension("GaussianFisherRao", n)
        self.n = n

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """The metric, see `metric`."""
        return self.metric(x)

    def metric(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d d"]:
        """diag(1/σ², 2/σ²); NaN where σ is not positive."""
        _, scale = self._split(x)
        weight = torch.where(scale > 0, scale.square().reciprocal(), torch.full_like(scale, torch.nan))
        return torch.diag_embed(torch.cat([weight, 2 * weight], dim=-1))

    def distance(self, x: Float[Tensor, "*b d"], y: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """Root of the sum of squares of √2 arcosh(1 + (Δμ²/2 + Δσ²)/(2σ₁σ₂)) over the variables."""
        (mean_x, scale_x), (mean_y, scale_y) = self._split(x), self._split(y)
        chord = (mean_x - mean_y).square() / 2 + (scale_x - scale_y).square()
        # arcosh(1 + 2t²) = 2 arsinh(t) keeps its digits at small distances.
        each = 2 * 2**0.5 * torch.asinh((chord / (scale_x * scale_y)).sqrt() / 2)
        return each.norm(dim=-1)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        coordinates("GaussianFisherRao", x, 2 * self.n)
        return x[..., : self.n], x[..., self.n :]
