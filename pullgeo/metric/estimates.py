"""Diagonals of pulled-back metrics from random probes, with their standard errors."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError, ShapeError, SingularMetricError
from pullgeo.jacobian.base import ChunkSize, Jacobian
from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.recompute import recomputed
from pullgeo.jacobian.weights.weight_graph import WeightGraph
from pullgeo.metric.base import Metric
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.over_batch import batch_sum
from pullgeo.metric.rooted import FactoredMetric
from pullgeo.metric.structured import Diagonal, Identity


@dataclass(frozen=True, eq=False)
class Estimate:
    """An average over random draws.

    Args:
        value: the average; its expectation is what is estimated.
        standard_error: the standard deviation of ``value``, estimated from the spread of the draws.
        samples: number of draws.
    """

    value: Float[Tensor, "*n"]
    standard_error: Float[Tensor, "*n"]
    samples: int


class Probe(ABC):
    """Random vectors z with independent entries of mean 0 and variance 1, so that ``E[z zᵀ] = I``."""

    @abstractmethod
    def draw(
        self, shape: tuple[int, ...], like: Float[Tensor, "..."], generator: torch.Generator
    ) -> Float[Tensor, "..."]:
        """Entries of the given shape, with the dtype and on the device of another tensor."""


@dataclass(frozen=True, eq=False)
class Rademacher(Probe):
    """Signs: the smallest variance that independent entries can have for a diagonal."""

    def draw(
        self, shape: tuple[int, ...], like: Float[Tensor, "..."], generator: torch.Generator
    ) -> Float[Tensor, "..."]:
        """Plus or minus one."""
        signs = torch.randint(0, 2, shape, generator=generator, device=generator.device)
        return (2 * signs - 1).to(like)


@dataclass(frozen=True, eq=False)
class GaussianProbe(Probe):
    """Standard normal entries."""

    def draw(
        self, shape: tuple[int, ...], like: Float[Tensor, "..."], generator: torch.Generator
    ) -> Float[Tensor, "..."]:
        """Standard normal numbers."""
        return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like)


def hutchinson_diag(
    J: Jacobian,
    M: Metric,
    samples: int,
    generator: torch.Generator,
    probe: Probe | None = None,
    chunk_size: ChunkSize = "auto",
) -> Estimate:
    """The diagonal of ``Jᵀ M J`` as the average of ``z ∘ (Jᵀ M J z)`` over random tangents z.

    Unbiased for any M, symmetric or not; what it costs does not depend on the dimensions of either side. The variance
    of an entry is the sum of the squares of the others in its row, with `Rademacher` signs.

    Args:
        J: a Jacobian with respect to input or weights.
        M: a metric on its output.
        samples: number of draws, at least 2.
        generator: the source of randomness.
        probe: `Rademacher` (the default) or `GaussianProbe`.
        chunk_size: how many draws are moved at a time; ``"auto"`` keeps what J says, see `Jacobian.in_chunks`.

    Returns:
        An `Estimate` of the diagonals, ``(b, n)``.

    Raises:
        OptionError: fewer than two samples.
        ShapeError: ``M`` does not live where ``J`` ends.

    Cost: one push and one pull for each sample.

    Source: Bekas, Kokiopoulou, Saad, *An estimator for the diagonal of a matrix*, 2007.

    Example:
        >>> from pullgeo import linearize
        >>> from pullgeo.metric import Identity
        >>> J = linearize(torch.nn.Tanh(), torch.zeros(1, 2))[1]
        >>> hutchinson_diag(J, Identity(2, torch.float32), 4, torch.Generator().manual_seed(0)).value
        tensor([[1., 1.]])
    """
    _check("hutchinson_diag", J, M, samples)
    J = J.in_chunks(chunk_size)
    s, G = J.signature, Implicit(J, M)
    probe = Rademacher() if probe is None else probe
    like = torch.empty(0, dtype=s.dtype, device=s.device)

    def draws(part: slice) -> Callable[[], Tensor]:
        noise = repeatable(probe, (part.stop - part.start, s.batch, s.n_in), like, generator)

        def drawn() -> Tensor:
            z = noise()
            return z * G.apply(z)

        return drawn

    return averaged(map(recomputed, map(draws, J.parts(samples, J.item_bytes))), samples)


def monte_carlo_diag(
    J: Jacobian,
    M: Metric,
    samples: int,
    generator: torch.Generator,
    probe: Probe | None = None,
    reduction: str = "none",
    chunk_size: ChunkSize = "auto",
) -> Estimate:
    """The diagonal of ``Jᵀ M J`` as the average of ``(Jᵀ R ε)²`` over random ε, with ``M = R Rᵀ``.

    Unbiased, and every draw is positive. Needs a root of M, so M is symmetric and positive; with the Fisher information
    of a likelihood this is the Monte-Carlo Gauss-Newton diagonal. Draws of different samples of the batch are
    independent.

    Args:
        J: a Jacobian with respect to input or weights.
        M: a metric on its output.
        samples: number of draws, at least 2.
        generator: the source of randomness.
        probe: `Rademacher` (the default) or `GaussianProbe`.
        reduction: for weights, ``"sum"`` or ``"mean"`` over the batch, layer by layer, so that an array of the batch
            times the weights never exists; or ``"none"``.
        chunk_size: how many draws are pulled at a time; ``"auto"`` keeps what J says, see `Jacobian.in_chunks`.

    Returns:
        An `Estimate` of the diagonals, ``(b, n)``, or ``(n,)`` with a reduction.

    Raises:
        OptionError: fewer than two samples, or a reduction with respect to inputs.
        ShapeError: ``M`` does not live where ``J`` ends.
        SingularMetricError: ``M`` has no real root.

    Cost: one pull for each sample.

    Source: Dangel, Kunstner, Hennig, *BackPACK*, ICLR 2020, section 2.3.

    Example:
        >>> from pullgeo import linearize
        >>> from pullgeo.metric import Identity
        >>> J = linearize(torch.nn.Linear(1, 2), torch.ones(3, 1), "weight")[1]
        >>> monte_carlo_diag(J, Identity(2, torch.float32), 2, torch.Generator(), reduction="sum").value.tolist()
        [3.0, 3.0, 3.0, 3.0]
    """
    where = "monte_carlo_diag"
    _check(where, J, M, samples)
    J = J.in_chunks(chunk_size)
    over_batch = batch_sum(where, J, reduction)
    s = J.signature
    coloured, entries = _root(M, s.batch)
    probe, like = Rademacher() if probe is None else probe, torch.empty(0, dtype=s.dtype, device=s.device)

    def draws(part: slice) -> Callable[[], Tensor]:
        k = part.stop - part.start
        noise = repeatable(probe, (k, s.batch, entries), like, generator)

        def drawn() -> Tensor:
            W = coloured(noise()).reshape(k, s.batch, *s.out_shape)
            if over_batch is None:
                return flat(J.pull(W)).square()
            return torch.stack([over_batch.pull_diag(w, w) for w in W.split(1)])

        return drawn

    summed = max(J.sweep_bytes, s.n_in * s.dtype.itemsize) if over_batch and isinstance(J, WeightGraph) else None
    parts = J.parts(samples, J.item_bytes if summed is None else summed)
    estimate = averaged(map(recomputed, map(draws, parts)), samples)
    if reduction != "mean":
        return estimate
    return Estimate(estimate.value / s.batch, estimate.standard_error / s.batch, samples)


def _root(M: Metric, batch: int) -> tuple[Callable[[Tensor], Tensor], int]:
    """What a root of M does to noise, and how many entries that has; no matrix where M has none."""
    if isinstance(M, Identity):
        return lambda noise: noise, M.dim
    if isinstance(M, Diagonal):
        if bool((M.values < 0).any()):
            raise SingularMetricError("monte_carlo_diag: a diagonal entry of M is negative, so M has no real root.")
        scale = M.values.sqrt()
        return lambda noise: noise * scale, M.dim
    if isinstance(M, FactoredMetric):
        R = M.root_map
        return lambda noise: R.push(noise.reshape(*noise.shape[:2], *R.signature.in_shape)), R.signature.n_in
    root = M.root().expand(batch, -1, -1)
    return lambda noise: torch.einsum("bor,kbr->kbo", root, noise), root.shape[-1]


def repeatable(
    probe: Probe, shape: tuple[int, ...], like: Float[Tensor, "..."], generator: torch.Generator
) -> Callable[[], Float[Tensor, "..."]]:
    """What draws noise from a generator, and the same noise at every further call without moving the generator."""
    before = generator.get_state()
    drawn = False

    def draw() -> Tensor:
        nonlocal drawn
        if not drawn:
            drawn = True
            return probe.draw(shape, like, generator)
        return probe.draw(shape, like, torch.Generator(generator.device).set_state(before))

    return draw


def averaged(draws: Iterator[Float[Tensor, "k *n"]], samples: int) -> Estimate:
    """Mean and standard error of the mean, merged from chunks without subtracting large squares.

    Args:
        draws: stacks of independent draws, each at least one long.
        samples: how many there are in all, at least two.
    """
    first = next(draws)
    count, mean = len(first), first.mean(0)
    spread = (first - mean).square().sum(0)
    for part in draws:
        both = count + len(part)
        change = part.mean(0) - mean
        spread = spread + (part - part.mean(0)).square().sum(0) + change.square() * count * len(part) / both
        mean, count = mean + change * len(part) / both, both
    return Estimate(mean, (spread / (samples - 1) / samples).sqrt(), samples)


def _check(where: str, J: Jacobian, M: Metric, samples: int) -> None:
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise OptionError(f"{where}: samples must be at least 2, so that there is a standard error, got {samples!r}.")
    if J.signature.n_out != M.dim:
        raise ShapeError(
            f"{where}: J maps to dimension {J.signature.n_out} and M lives in dimension {M.dim}. The metric belongs to "
            "the output."
        )
