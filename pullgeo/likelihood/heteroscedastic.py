"""Gaussian observations whose noise the network puts out as well."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo.errors import ModuleError, OptionError, ShapeError
from pullgeo.likelihood.base import Likelihood, euclidean, flat_rows, per_sample
from pullgeo.likelihood.channel_blocks import ChannelBlocks
from pullgeo.likelihood.scales import Scale
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Diagonal


@dataclass(frozen=True, eq=False)
class HeteroscedasticGaussian(Likelihood):
    """``N(μ, σ²)`` for each output, where ``η = [μ, s]`` along axis 1 and ``s`` says what ``σ`` is.

    The Fisher information is ``1/σ²`` for ``μ`` and ``2 (∂ log σ/∂s)²`` for ``s``. Each pair ``(μ, σ)`` is a hyperbolic
    plane of curvature -1/2. ``η`` is not a natural parameter: `hessian` depends on the target and may be indefinite.

    Args:
        scale: what the second half of the channels is: `Std`, `LogStd`, `Variance` or `LogVariance`.

    Raises:
        OptionError: ``scale`` is not one of them.

    Example:
        >>> from pullgeo.likelihood import LogStd
        >>> gaussian = HeteroscedasticGaussian(LogStd())
        >>> eta = torch.tensor([[0.0, 0.0], [0.0, 1.0]])  # N(0, 1) and N(0, e²)
        >>> gaussian.distance(eta[:1], eta[1:])
        tensor([1.4142])
    """

    scale: Scale

    def __post_init__(self) -> None:
        if not isinstance(self.scale, Scale):
            raise OptionError(
                "HeteroscedasticGaussian: scale must be one of Std(), LogStd(), Variance(), LogVariance(), got "
                f"{self.scale!r}."
            )

    def fisher(self, eta: Float[Tensor, "b *out"]) -> Diagonal:
        """``diag(1/σ², 2 (∂ log σ/∂s)²)``."""
        _, s = self._split("fisher", eta)
        precision = (-2 * self.scale.log_std(s)).exp()
        return Diagonal(flat_rows(torch.cat([precision, 2 * self.scale.slope(s).square()], 1)))

    def sample(
        self, eta: Float[Tensor, "b *out"], generator: torch.Generator, count: int = 1
    ) -> Float[Tensor, "k b *t"]:
        """``μ + σ ε``."""
        mean, s = self._split("sample", eta)
        noise = torch.randn(count, *mean.shape, generator=generator, dtype=eta.dtype, device=eta.device)
        return mean + self.scale.log_std(s).exp() * noise

    @property
    def embedding(self) -> None:
        """None: a hyperbolic plane has no closed isometry into a Euclidean space."""
        return None

    def distance(self, eta: Float[Tensor, "b *out"], other: Float[Tensor, "b *out"]) -> Float[Tensor, " b"]:
        """Root of the sum of squares of ``√2 arcosh(1 + (Δμ²/2 + Δσ²)/(2σσ'))``, with its digits at small distances."""
        self._check_pair(eta, other)
        (mean, s), (other_mean, other_s) = self._split("distance", eta), self._split("distance", other)
        log_std, other_log_std = self.scale.log_std(s), self.scale.log_std(other_s)
        # arcosh(1 + 2 t²) = 2 arsinh t
        across = (mean - other_mean) * (-0.5 * (log_std + other_log_std)).exp() / math.sqrt(8)
        along = torch.sinh(0.5 * (log_std - other_log_std))
        each = torch.linalg.vector_norm(torch.stack([across, along], -1), dim=-1)
        return 2 * math.sqrt(2) * euclidean(each.asinh())

    def _nll(self, eta: Tensor, target: Tensor) -> Tensor:
        mean, s = self._split("nll", eta)
        log_std = self.scale.log_std(s)
        return per_sample(0.5 * self._residual(mean, log_std, target).square() + log_std + 0.5 * math.log(2 * math.pi))

    def _gradient(self, eta: Tensor, target: Tensor) -> Tensor:
        mean, s = self._split("gradient", eta)
        log_std = self.scale.log_std(s)
        r = self._residual(mean, log_std, target)
        return torch.cat([-r * (-log_std).exp(), (1 - r.square()) * self.scale.slope(s)], 1)

    def _hessian(self, eta: Tensor, target: Tensor) -> Metric:
        mean, s = self._split("hessian", eta)
        log_std, slope = self.scale.log_std(s), self.scale.slope(s)
        r, inverse = self._residual(mean, log_std, target), (-log_std).exp()
        mixed = 2 * r * inverse * slope
        own = 2 * (r * slope).square() + (1 - r.square()) * self.scale.curvature(s)
        rows = [torch.stack([inverse.square(), mixed], -1), torch.stack([mixed, own], -1)]
        return ChannelBlocks(torch.stack(rows, -2).reshape(len(eta), mean.shape[1:].numel(), 2, 2))

    def _residual(self, mean: Tensor, log_std: Tensor, target: Tensor) -> Tensor:
        return (target - mean) * (-log_std).exp()

    def _checked(self, where: str, eta: Tensor, target: Tensor) -> Tensor:
        mean, _ = self._split(where, eta)
        if target.shape != mean.shape:
            raise ShapeError(
                f"HeteroscedasticGaussian.{where}: target must have the shape of the mean, {tuple(mean.shape)}, got "
                f"{tuple(target.shape)}. The output holds means and scales, so it has twice the channels."
            )
        return target.to(eta.dtype)

    def _split(self, where: str, eta: Tensor) -> tuple[Tensor, Tensor]:
        self._check_eta(where, eta)
        if eta.ndim < 2 or eta.shape[1] % 2:
            raise ShapeError(
                f"HeteroscedasticGaussian.{where}: the output must have shape (b, 2 h, *s), means first and then as "
                f"many scales along axis 1, got {tuple(eta.shape)}. For a network that returns them as a pair use "
                "Paired(network)."
            )
        mean, s = eta.chunk(2, 1) if eta.shape[1] else (eta, eta)
        return mean, s


class Paired(nn.Module):
    """A network that returns ``(mean, scale)``, with both joined along axis 1, as `HeteroscedasticGaussian` takes them.

    Args:
        network: returns a tuple or list of two tensors of the same shape ``(b, h, *s)``.

    Raises:
        ModuleError: when called, if it returns something else.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Float[Tensor, "b *out"]:
        """``[mean, scale]``."""
        found: Any = self.network(x)
        if not isinstance(found, tuple | list) or len(found) != 2:
            got = f"{len(found)} values" if isinstance(found, tuple | list) else type(found).__name__
            raise ModuleError(f"Paired: {type(self.network).__name__} must return (mean, scale), got {got}.")
        return torch.cat(tuple(found), 1)
