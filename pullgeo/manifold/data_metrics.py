"""Metrics from data: cheap where the data are, expensive far away from them. For `MetricManifold`."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo._torch.plain_memory import outside_inference
from pullgeo.errors import OptionError, ShapeError
from pullgeo.metric.structured import Dense, Diagonal


class LandMetric(nn.Module):
    """The inverse of the local diagonal covariance of data, ``G(z) = diag(1 / (Σ_n w_n (x_n - z)² + ρ))``.

    The weights are ``w_n = exp(-‖x_n - z‖²/(2σ²))``, so that geodesics keep to the data. As a map it takes points
    ``(b, d)`` to a `Diagonal` metric.

    Args:
        data: ``x_n``, ``(n, d)``, in the same coordinates as the points.
        sigma: how far the influence of a datum reaches, in their unit.
        rho: the variance far away from all data, in their unit squared: ``G`` is there ``1/ρ``, and never more.

    Raises:
        ShapeError, OptionError: the data are no points, or a number is not positive.

    Cost: ``b n d`` operations; a few hundred data, such as cluster centres, are usually enough.

    Source: Arvanitidis, Hansen, Hauberg, *A Locally Adaptive Normal Distribution*, NeurIPS 2016, equation 9.

    Example:
        >>> import torch
        >>> from pullgeo import MetricManifold
        >>> from pullgeo.manifold import LandMetric
        >>> t = torch.linspace(0, 3.14, 100, dtype=torch.float64)
        >>> arc = torch.stack([t.cos(), t.sin()], 1)
        >>> around = MetricManifold(LandMetric(arc, sigma=0.15, rho=0.01)).geodesic(arc[0], arc[-1])
        >>> bool(around.curve(torch.tensor([0.5], dtype=torch.float64))[0, 0, 1] > 0.8)  # along the arc
        True
    """

    def __init__(self, data: Float[Tensor, "n d"], sigma: float, rho: float) -> None:
        super().__init__()
        _check("LandMetric", data, sigma=sigma, rho=rho)
        self.data: Tensor
        self.register_buffer("data", outside_inference(data))
        self.sigma = sigma
        self.rho = rho

    def forward(self, z: Float[Tensor, "b d"]) -> Diagonal:
        """``G(z)``.

        Raises:
            ShapeError: the points are of another dimension than the data.
        """
        _check_points("LandMetric", self.data, z)
        away = (self.data - z.unsqueeze(1)).square()
        weight = (away.sum(2) / (-2 * self.sigma**2)).exp()
        return Diagonal(1 / ((weight.unsqueeze(2) * away).sum(1) + self.rho))


class RHVAEMetric(nn.Module):
    """The inverse of a sum of bumps, ``G(z) = (Σ_i L_i L_iᵀ exp(-‖z - c_i‖²/τ²) + λ I)⁻¹``.

    The metric that Riemannian Hamiltonian variational autoencoders learn. As a map it takes points ``(b, d)`` to
    matrices ``(b, d, d)``.

    Args:
        centroids: ``c_i``, ``(n, d)``.
        factors: ``L_i``, ``(n, d, d)``, lower triangular in the source; any square matrices will do.
        temperature: ``τ``, how far a bump reaches, in the unit of the points.
        regularisation: ``λ``; ``G`` is ``1/λ`` far away from all centroids, and never more.

    Raises:
        ShapeError, OptionError: the centroids and factors do not fit, or a number is not positive.

    Cost: ``b n d²`` operations and a d x d inverse for each point.

    Source: Chadebec, Thibeau-Sutre, Burgos, Allassonnière, *Data Augmentation in High Dimensional Low Sample Size
    Setting Using a Geometry-Based Variational Autoencoder*, IEEE TPAMI 2023, section 3.2.

    Example:
        >>> import torch
        >>> from pullgeo import MetricManifold
        >>> from pullgeo.manifold import RHVAEMetric
        >>> metric = RHVAEMetric(torch.zeros(1, 2), 2 * torch.eye(2).unsqueeze(0), temperature=1.0, regularisation=1.0)
        >>> MetricManifold(metric).metric(torch.zeros(1, 2)).dense()
        tensor([[[0.2000, 0.0000],
                 [0.0000, 0.2000]]])
    """

    def __init__(
        self,
        centroids: Float[Tensor, "n d"],
        factors: Float[Tensor, "n d d"],
        temperature: float,
        regularisation: float,
    ) -> None:
        super().__init__()
        _check("RHVAEMetric", centroids, temperature=temperature, regularisation=regularisation)
        if factors.shape != (*centroids.shape, centroids.shape[1]):
            raise ShapeError(
                f"RHVAEMetric: expected factors of shape {(*centroids.shape, centroids.shape[1])}, one square matrix "
                f"for each centroid, got {tuple(factors.shape)}."
            )
        self.centroids: Tensor
        self.bumps: Tensor
        self.register_buffer("centroids", outside_inference(centroids))
        factors = outside_inference(factors)
        self.register_buffer("bumps", factors @ factors.mT)
        self.temperature = temperature
        self.regularisation = regularisation

    def forward(self, z: Float[Tensor, "b d"]) -> Dense:
        """``G(z)``.

        Raises:
            ShapeError: the points are of another dimension than the centroids.
        """
        _check_points("RHVAEMetric", self.centroids, z)
        away = (self.centroids - z.unsqueeze(1)).square().sum(2)
        weight = (-away / self.temperature**2).exp()
        total = (weight @ self.bumps.flatten(1)).unflatten(1, self.bumps.shape[1:])
        floor = self.regularisation * torch.eye(z.shape[1], dtype=total.dtype, device=total.device)
        return Dense(torch.linalg.inv(total + floor))


class ConformalMetric(nn.Module):
    """A density turned into a metric, ``G(z) = (h(z) + ε)^(-α) I``: the rarer the data, the longer the way.

    As a map it takes points ``(b, d)`` to a `Diagonal` metric.

    Args:
        density: ``h``, points ``(b, d)`` to non-negative numbers ``(b,)``: a `KernelDensity`, or
            ``lambda z: prior.log_prob(z).exp()`` for a distribution of torch.
        epsilon: bounds ``G`` by ``ε^(-α)`` far away from all data, in the unit of the density.
        alpha: how strongly the density counts; ``2/d`` makes volumes proportional to ``1/h``.

    Raises:
        OptionError: the density cannot be called, or a number is not positive.

    Source: Arvanitidis, Georgiev, Schölkopf, *A prior-based approximate latent Riemannian metric*, AISTATS 2022.

    Example:
        >>> import torch
        >>> from pullgeo import MetricManifold
        >>> from pullgeo.manifold import ConformalMetric, KernelDensity
        >>> data = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        >>> manifold = MetricManifold(ConformalMetric(KernelDensity(data, 0.5), epsilon=1e-2, alpha=1.0))
        >>> near, far = torch.zeros(2).double(), torch.full((2,), 9.0).double()
        >>> bool(manifold.log_volume(near[None]) < manifold.log_volume(far[None]))
        True
    """

    def __init__(self, density: Callable[[Tensor], Tensor], epsilon: float, alpha: float = 1.0) -> None:
        super().__init__()
        if not callable(density):
            raise OptionError(f"ConformalMetric: density must be a function or module, got {type(density).__name__}.")
        _check_positive("ConformalMetric", epsilon=epsilon, alpha=alpha)
        self.density = density
        self.epsilon = epsilon
        self.alpha = alpha

    def forward(self, z: Float[Tensor, "b d"]) -> Diagonal:
        """``G(z)``.

        Raises:
            ShapeError: the density does not return one number per point.
        """
        h = self.density(z)
        if h.shape != z.shape[:1]:
            raise ShapeError(
                f"ConformalMetric: density must map {tuple(z.shape)} to {tuple(z.shape[:1])}, got {tuple(h.shape)}. "
                "Return one number per point."
            )
        return Diagonal((h + self.epsilon).pow(-self.alpha).unsqueeze(1).expand(z.shape))


class KernelDensity(nn.Module):
    """``h(z) = 1/n Σ_n exp(-‖z - x_n‖²/(2σ²))``: a Gaussian kernel density, with the peak of a kernel as its unit.

    Args:
        data: ``x_n``, ``(n, d)``.
        bandwidth: ``σ``, in their unit.

    Raises:
        ShapeError, OptionError: the data are no points, or the bandwidth is not positive.
    """

    def __init__(self, data: Float[Tensor, "n d"], bandwidth: float) -> None:
        super().__init__()
        _check("KernelDensity", data, bandwidth=bandwidth)
        self.data: Tensor
        self.register_buffer("data", outside_inference(data))
        self.bandwidth = bandwidth

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """``h(z)``.

        Raises:
            ShapeError: the points are of another dimension than the data.
        """
        _check_points("KernelDensity", self.data, z)
        away = (self.data - z.unsqueeze(1)).square().sum(2)
        return (away / (-2 * self.bandwidth**2)).exp().mean(1)


def _check(where: str, data: Tensor, **numbers: float) -> None:
    if data.ndim != 2 or not len(data):
        raise ShapeError(f"{where}: expected data of shape (n, d) with n > 0, got {tuple(data.shape)}.")
    _check_positive(where, **numbers)


def _check_points(where: str, data: Tensor, z: Tensor) -> None:
    if z.ndim != 2 or z.shape[1] != data.shape[1]:
        raise ShapeError(f"{where}: points must have shape (b, {data.shape[1]}), as its data, got {tuple(z.shape)}.")


def _check_positive(where: str, **numbers: float) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise OptionError(f"{where}: {name} must be positive, got {value}.")
