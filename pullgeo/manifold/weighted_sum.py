"""Several metrics on one latent space, added up."""

import math
from collections.abc import Sequence
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pullgeo._torch.unvalidated import unvalidated
from pullgeo.errors import OptionError
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.manifold.ambient.composite import Product, Times
from pullgeo.manifold.ambient.convert import ambient_of
from pullgeo.manifold.ambient.flat import Flat
from pullgeo.manifold.base import Manifold
from pullgeo.manifold.float64.as_module import as_module, given
from pullgeo.manifold.output import MeanAndScale, Pick, Through
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

    Cost: that of all decoders. Heads of one decoder run it once: manifolds of the same decoder, each with its
    ``output``, or of several ``Sequential`` that begin with the same modules.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import weighted_sum
        >>> body, image, rates = torch.nn.Linear(2, 7), torch.nn.Linear(7, 12), torch.nn.Linear(7, 5)
        >>> def decoder(z):
        ...     h = body(z).tanh()
        ...     return {"image": image(h), "counts": torch.distributions.Poisson(rates(h).exp())}
        >>> heads = [PullbackManifold(decoder, output=name) for name in ("image", "counts")]
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

    What the maps begin with alike is run once: the same decoder of which one picks an image and another counts, the
    same first modules of several ``Sequential``.

    Args:
        maps: the ``f_i``, latents ``(b, d)`` to outputs ``(b, *out)``.
        factors: the numbers ``c_i``.
    """

    def __init__(self, maps: Sequence[Decoder], factors: Sequence[float]) -> None:
        super().__init__()
        self.factors = tuple(factors)
        self.parents: list[int] = []
        self.ends: list[int] = []
        known: dict[tuple[int, Any], int] = {}
        for each in maps:
            at = -1
            for stage in _stages(each):
                key = (at, _identity_of(stage))
                if key not in known:
                    known[key] = len(self.parents)
                    setattr(self, f"stage{known[key]}", stage)
                    self.parents.append(at)
                at = known[key]
            self.ends.append(at)

    def parts(self, z: Float[Tensor, "b d"]) -> list[Tensor]:
        """The ``c_i f_i(z)``, in their own shapes."""
        values: list[Any] = []
        with unvalidated():
            for number, parent in enumerate(self.parents):
                value = z if parent < 0 else values[parent]
                # a stage may write into what it is given, which others are given too
                shared = isinstance(value, Tensor) and (self.parents.count(parent) > 1 or parent in self.ends)
                values.append(getattr(self, f"stage{number}")(value.clone() if shared else value))
        return [values[i] if c == 1 else c * values[i] for i, c in zip(self.ends, self.factors, strict=True)]

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b D"]:
        """All of them, side by side."""
        return torch.cat([y.flatten(1) for y in self.parts(z)], 1)


def _stages(function: Any) -> list[Any]:
    """What a map does, one after the other."""
    if type(function) is Through:
        return [stage for each in function.stages for stage in _stages(each)]
    # one with hooks does more than its modules
    plain = type(function) is nn.Sequential and not (function._forward_hooks or function._forward_pre_hooks)
    return [stage for each in function for stage in _stages(each)] if plain and len(function) else [function]


def _identity_of(stage: Any) -> Any:
    """Equal for stages that do the same because they are the same."""
    stage = given(stage)
    if isinstance(stage, MethodType):
        return id(stage.__self__), stage.__func__
    return stage if isinstance(stage, Pick | MeanAndScale) else id(stage)


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
