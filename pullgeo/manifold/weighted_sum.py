"""Several metrics on one latent space, added up."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo.errors import OptionError
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.manifold.ambient.composite import Product, Times
from pullgeo.manifold.ambient.convert import ambient_of
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.float64.as_module import as_module
from pullgeo.manifold.pullback import PullbackManifold
from pullgeo.typing import Decoder


def weighted_sum(
    manifolds: Sequence[Manifold], z: Float[Tensor, "b d"], weights: Sequence[float] | None = None
) -> PullbackManifold:
    """The latent space with the metric ``G(z) = Σ_i w_i G_i(z)``: squared lengths of tangents add up.

    For decoders of several heads, an image and counts, each measured in its own way; for pixels beside features of a
    network; for a decoder beside a metric of the data's density. The sum is the pullback of one map
    ``z -> (f_1(z), f_2(z), ...)`` into the product of the spaces that measure: where all of these are Euclidean, or
    have a flat embedding as Bernoulli and Poisson have, it is a Euclidean pullback and as fast.

    Args:
        manifolds: at least one `PullbackManifold` or `MetricManifold`, on the same latents.
        z: some latents, one is enough, to see of which shape the outputs are, and whether those that must lie on a
            sphere or a Stiefel manifold do: in the sum only the way they are measured is left of that.
        weights: ``w_i``, positive; one each if ``None``. Squared lengths are in units of the outputs' squares, or
            pure numbers for Fisher-Rao metrics: weights say how these compare.

    Returns:
        A manifold whose decoder returns the flattened outputs of all, of Euclidean ones times ``√w_i``.

    Raises:
        OptionError: there is none, one is of neither class, or the weights are not one positive number for each.
        ModuleError, ShapeError: a decoder does not take the latents.

    Cost: that of all decoders. Heads that share a body run it once for each head.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import weighted_sum
        >>> image, rates = torch.nn.Linear(2, 12), torch.nn.Linear(2, 5)
        >>> heads = [
        ...     PullbackManifold(image),
        ...     PullbackManifold(lambda z: torch.distributions.Poisson(rates(z).exp())),
        ... ]
        >>> z = torch.zeros(3, 2)
        >>> both = weighted_sum(heads, z, weights=[1.0, 0.1])
        >>> G = heads[0].metric(z).dense() + 0.1 * heads[1].metric(z).dense()
        >>> torch.allclose(both.metric(z).dense(), G)
        True
    """
    factors = _checked(manifolds, weights)
    spaces = [_space(manifold, z) for manifold in manifolds]
    euclidean = [_euclidean(space) for space in spaces]
    roots = [math.sqrt(w) if flat else 1.0 for w, flat in zip(factors, euclidean, strict=True)]
    maps = [_identity if space.embedding is None else space.embedding for space in spaces]
    decoder = Stacked(maps, roots)
    if all(euclidean):
        return PullbackManifold(decoder)
    with torch.no_grad():
        shapes = tuple(tuple(y.shape[1:]) for y in decoder.parts(z))
    measured = [_part(space, w) for space, w in zip(spaces, factors, strict=True)]
    return PullbackManifold(decoder, Product(tuple(measured), shapes))


class Stacked(nn.Module):
    """``z -> (c_1 f_1(z), c_2 f_2(z), ...)``, outputs flattened.

    Args:
        maps: the ``f_i``, latents ``(b, d)`` to outputs ``(b, *out)``.
        factors: the numbers ``c_i``.
    """

    def __init__(self, maps: Sequence[Decoder], factors: Sequence[float]) -> None:
        super().__init__()
        self.factors = tuple(factors)
        for number, each in enumerate(maps):
            setattr(self, f"map{number}", each)

    def parts(self, z: Float[Tensor, "b d"]) -> list[Tensor]:
        """The ``c_i f_i(z)``, in their own shapes."""
        values = [getattr(self, f"map{number}")(z) for number in range(len(self.factors))]
        return [y if c == 1 else c * y for y, c in zip(values, self.factors, strict=True)]

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """All of them, side by side."""
        return torch.cat([y.flatten(1) for y in self.parts(z)], 1)


def _identity(z: Tensor) -> Tensor:
    return z.clone()


def _space(manifold: Manifold, z: Tensor) -> Ambient:
    """What measures, with the map into it as its ``embedding``."""
    if isinstance(manifold, PullbackManifold):
        manifold = manifold.with_decoder(as_module(manifold.decoder))
        manifold.check_ends(z)
    return ambient_of(manifold)


def _euclidean(space: Ambient) -> bool:
    return isinstance(space, Flat) and space.matrix is None


def _part(space: Ambient, weight: float) -> Ambient:
    """A factor of the product, for outputs that are multiplied by ``√w`` already where that is the same."""
    if _euclidean(space):
        return Flat()
    part = replace(space, embedding=None)
    return part if weight == 1 else Times(part, weight)


def _checked(manifolds: Sequence[Manifold], weights: Sequence[float] | None) -> list[float]:
    if not isinstance(manifolds, Sequence) or not len(manifolds):
        raise OptionError(f"weighted_sum: expected a sequence of at least one manifold, got {manifolds!r}.")
    for manifold in manifolds:
        try:
            usable = isinstance(manifold, Manifold) and ambient_of(manifold) is not None
        except OptionError:
            usable = False
        if not usable:
            raise OptionError(
                "weighted_sum: each must be a PullbackManifold or a MetricManifold, got "
                f"{type(manifold).__name__}. For a decoder write PullbackManifold(decoder)."
            )
    factors = [1.0] * len(manifolds) if weights is None else [float(w) for w in weights]
    if len(factors) != len(manifolds) or not all(0 < w < math.inf for w in factors):
        raise OptionError(
            f"weighted_sum: weights must be {len(manifolds)} positive numbers, one for each manifold, got {weights}."
        )
    return factors
