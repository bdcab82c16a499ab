"""Monte-Carlo estimates of Gauss-Newton matrices, from targets that the network's own distribution gives."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.jacobian import flat, linearize
from pullgeo.likelihood.base import Likelihood
from pullgeo.likelihood.roots import Columns, FromRoot
from pullgeo.metric import Metric
from pullgeo.typing import Decoder


@dataclass(frozen=True, eq=False)
class SampledDiagonal:
    """A mean over independent draws, and how far it is off.

    Args:
        value: the estimate.
        standard_error: its standard deviation, estimated from the spread of the draws; of the same shape.
        draws: how many there were.
    """

    value: Float[Tensor, "*b n"]
    standard_error: Float[Tensor, "*b n"]
    draws: int


def sampled_fisher(
    likelihood: Likelihood, eta: Float[Tensor, "b *out"], generator: torch.Generator, draws: int
) -> FromRoot:
    """``1/S Σ_s g_s g_sᵀ`` with ``g_s = ∂nll/∂η`` at targets drawn from ``p(· | η)``: unbiased, of rank S.

    Args:
        likelihood: what the output means.
        eta: the output.
        generator: where the randomness comes from.
        draws: S.

    Raises:
        OptionError: S is less than one.
    """
    return FromRoot(Columns(_gradients("sampled_fisher", likelihood, eta, generator, draws, 1) / math.sqrt(draws)))


def sampled_ggn(
    module: Decoder,
    x: Shaped[Tensor, "b *x"],
    likelihood: Likelihood,
    generator: torch.Generator,
    draws: int,
    wrt: str = "input",
) -> Metric:
    """`ggn` with S draws in place of the whole information: a metric of rank S, whose root are S pulled gradients.

    Args:
        module: the network.
        x: a batch of points.
        likelihood: what the output means.
        generator: where the randomness comes from.
        draws: S; a network of many outputs needs far fewer of them than it has outputs.
        wrt: ``"input"`` or ``"weight"``.

    Raises:
        OptionError: S is less than one. Others as `ggn`.

    Example:
        >>> from pullgeo.likelihood import Categorical
        >>> f, generator = torch.nn.Linear(2, 1000), torch.Generator().manual_seed(0)
        >>> sampled_ggn(f, torch.zeros(3, 2), Categorical(), generator, draws=5, wrt="weight").root().shape
        torch.Size([3, 3000, 5])
    """
    y, J = linearize(module, x, wrt)
    return sampled_fisher(likelihood, y, generator, draws).pullback(J)


def sampled_ggn_diag(
    module: Decoder,
    x: Shaped[Tensor, "b *x"],
    likelihood: Likelihood,
    generator: torch.Generator,
    draws: int,
    wrt: str = "input",
) -> SampledDiagonal:
    """The diagonal of `ggn` from S draws, with its standard error.

    Args:
        module: the network.
        x: a batch of points.
        likelihood: what the output means.
        generator: where the randomness comes from.
        draws: S, at least two.
        wrt: ``"input"`` or ``"weight"``.

    Raises:
        OptionError: S is less than two. Others as `ggn`.

    Cost: S pulls, one after another, and three tensors of the diagonal's size.

    Example:
        >>> from pullgeo.likelihood import Bernoulli
        >>> f, generator = torch.nn.Linear(2, 3), torch.Generator().manual_seed(0)
        >>> found = sampled_ggn_diag(f, torch.zeros(1, 2), Bernoulli(), generator, draws=10, wrt="weight")
        >>> found.value.shape, found.standard_error.shape
        (torch.Size([1, 9]), torch.Size([1, 9]))
    """
    y, J = linearize(module, x, wrt)
    gradients = _gradients("sampled_ggn_diag", likelihood, y, generator, draws, 2)
    mean = spread = torch.zeros(len(x), J.signature.n_in, dtype=y.dtype, device=y.device)
    for count, gradient in enumerate(gradients, start=1):
        square = flat(J.pull(gradient.unsqueeze(0))).squeeze(0).square()
        away = square - mean
        mean = mean + away / count
        spread = spread + away * (square - mean)  # Welford's recurrence: no difference of large sums
    return SampledDiagonal(mean, (spread / (draws * (draws - 1))).sqrt(), draws)


def _gradients(
    where: str, likelihood: Likelihood, eta: Tensor, generator: torch.Generator, draws: int, least: int
) -> Float[Tensor, "s b *out"]:
    if draws < least:
        raise OptionError(f"{where}: draws must be at least {least}, got {draws}.")
    targets = likelihood.sample(eta.detach(), generator, draws)
    return torch.stack([likelihood.gradient(eta, target) for target in targets])
