"""Monte-Carlo estimates of Gauss-Newton matrices, from targets that the network's own distribution gives."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.jacobian.base import ChunkSize, Jacobian
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.linearize import linearize
from pullgeo.jacobian.recompute import over_chunks
from pullgeo.jacobian.weights.batch_sum import BatchSum
from pullgeo.likelihood.base import Likelihood
from pullgeo.metric.base import Metric
from pullgeo.metric.estimates import Estimate, averaged
from pullgeo.metric.low_rank import LowRank
from pullgeo.metric.over_batch import batch_sum
from pullgeo.typing import Decoder, Parameters


def sampled_fisher(
    likelihood: Likelihood, eta: Float[Tensor, "b *out"], generator: torch.Generator, samples: int
) -> LowRank:
    """``1/S Σ_s g_s g_sᵀ`` with ``g_s = ∂nll/∂η`` at targets drawn from ``p(· | η)``: unbiased, of rank S.

    Args:
        likelihood: what the output means.
        eta: the output.
        generator: where the randomness comes from.
        samples: S.

    Raises:
        OptionError: S is less than one.
    """
    stack = _gradients("sampled_fisher", likelihood, eta, generator, samples, 1) / math.sqrt(samples)
    return LowRank(flat(stack).permute(1, 2, 0))


def sampled_ggn(
    module: Decoder,
    x: Shaped[Tensor, "b *x"],
    likelihood: Likelihood,
    generator: torch.Generator,
    samples: int,
    wrt: str = "input",
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> Metric:
    """`ggn` with S draws in place of the whole information: a metric of rank S, whose root are S pulled gradients.

    Args:
        module: the network.
        x: a batch of points.
        likelihood: what the output means.
        generator: where the randomness comes from.
        samples: S; a network of many outputs needs far fewer of them than it has outputs.
        wrt: ``"input"`` or ``"weight"``.
        chunk_size: as for `ggn`.
        parameters: which parameters are the weights, as for `linearize`.

    Raises:
        OptionError: S is less than one. Others as `ggn`.

    Example:
        >>> from pullgeo.likelihood import Categorical
        >>> f, generator = torch.nn.Linear(2, 1000), torch.Generator().manual_seed(0)
        >>> sampled_ggn(f, torch.zeros(3, 2), Categorical(), generator, samples=5, wrt="weight").root().shape
        torch.Size([3, 3000, 5])
    """
    y, J = linearize(module, x, wrt, parameters)
    return sampled_fisher(likelihood, y, generator, samples).pullback(J.in_chunks(chunk_size))


def sampled_ggn_diag(
    module: Decoder,
    x: Shaped[Tensor, "b *x"],
    likelihood: Likelihood,
    generator: torch.Generator,
    samples: int,
    wrt: str = "input",
    reduction: str = "none",
    parameters: Parameters = "all",
    chunk_size: ChunkSize = "auto",
) -> Estimate:
    """The diagonal of `ggn` from S draws, with its standard error.

    Args:
        module: the network.
        x: a batch of points.
        likelihood: what the output means.
        generator: where the randomness comes from.
        samples: S, at least two.
        wrt: ``"input"`` or ``"weight"``.
        reduction: as for `ggn_diag`.
        chunk_size: how many draws are pulled at a time; ``"auto"`` bounds the memory by bytes.
        parameters: which parameters are the weights, as for `linearize`.

    Returns:
        An average ``(b, n)``, or ``(P,)`` with a reduction.

    Raises:
        OptionError: S is less than two, or the reduction is not one of the choices. Others as `ggn`.

    Cost: S pulls, in chunks of bounded size.

    Example:
        >>> from pullgeo.likelihood import Bernoulli
        >>> f, generator = torch.nn.Linear(2, 3), torch.Generator().manual_seed(0)
        >>> found = sampled_ggn_diag(f, torch.zeros(1, 2), Bernoulli(), generator, samples=10, wrt="weight")
        >>> found.value.shape, found.standard_error.shape
        (torch.Size([1, 9]), torch.Size([1, 9]))
    """
    where = "sampled_ggn_diag"
    y, J = linearize(module, x, wrt, parameters)
    J = J.in_chunks(chunk_size)
    over_batch = batch_sum(where, J, reduction)
    gradients = _gradients(where, likelihood, y, generator, samples, 2)
    squares = _squares(J, gradients) if over_batch is None else _summed_squares(over_batch, gradients)
    found = averaged(squares, samples)
    if reduction != "mean":
        return found
    return Estimate(found.value / len(x), found.standard_error / len(x), samples)


def _squares(J: Jacobian, gradients: Tensor) -> Iterator[Float[Tensor, "s b n"]]:
    parts = J.parts(len(gradients), J.item_bytes)
    return over_chunks(parts, lambda part: flat(J.pull(gradients[part])).square())


def _summed_squares(over_batch: BatchSum, gradients: Tensor) -> Iterator[Float[Tensor, "1 p"]]:
    def squares(s: int) -> Tensor:
        gradient = gradients[s : s + 1]
        return over_batch.pull_diag(gradient, gradient).unsqueeze(0)

    return over_chunks(range(len(gradients)), squares)


def _gradients(
    where: str, likelihood: Likelihood, eta: Tensor, generator: torch.Generator, samples: int, least: int
) -> Float[Tensor, "s b *out"]:
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < least:
        raise OptionError(f"{where}: samples must be at least {least}, got {samples!r}.")
    targets = likelihood.sample(eta.detach(), generator, samples)
    repeated = eta.expand(samples, *eta.shape).flatten(0, 1)
    return likelihood.gradient(repeated, targets.flatten(0, 1)).reshape(samples, *eta.shape)
