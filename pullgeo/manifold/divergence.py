"""Lengths of curves of distributions by Kullback-Leibler divergences, which know nothing of Fisher informations."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from pullgeo._torch.unvalidated import unvalidated
from pullgeo.curve.base import Curve
from pullgeo.errors import OptionError
from pullgeo.manifold.pullback import PullbackManifold

POINTS = 2**12
"""Points that are decoded together."""


def kl_length(
    manifold: PullbackManifold, curve: Curve, segments: int = 256, *, symmetric: bool = True
) -> Float[Tensor, " b"]:
    """``Σ_i √(KL(p_i ‖ p_{i+1}) + KL(p_{i+1} ‖ p_i))``: the length of curves of distributions, by divergences alone.

    It tends to the length in the Fisher-Rao metric, as ``KL(p ‖ q) ≈ ½ δᵀ I δ``, with an error O(T^-2). With one
    divergence for each segment, ``Σ_i √(2 KL(p_i ‖ p_{i+1}))``, third derivatives remain, and the error is O(1/T). It
    checks `PullbackManifold.geodesic` by other means: no Fisher information, no chart and no Jacobian enters.

    Args:
        manifold: of a decoder that returns distributions.
        curve: the curves, such as ``manifold.geodesic(z0, z1).curve``.
        segments: T, the number of segments, of equal time.
        symmetric: both divergences, or that from the first to the second alone.

    Raises:
        OptionError: the decoder returns no distribution, torch knows no divergence for its family, or ``segments``
            is below 1.

    Cost: T + 1 points decoded, in float64. A divergence is a small difference: of segments of length s about
        ``1e-16/s²`` is lost, relatively.

    Source: Arvanitidis, González-Duque, Pouplin, Kalatzis, Hauberg, *Pulling back information geometry*, AISTATS 2022,
    section 4.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.manifold import kl_length
        >>> rates = PullbackManifold(lambda z: torch.distributions.Poisson(z))
        >>> z = torch.tensor([[1.0], [4.0]], dtype=torch.float64)
        >>> kl_length(rates, rates.geodesic(z[:1], z[1:]).curve)
        tensor([2.0000], dtype=torch.float64)
    """
    pieces = _divergences("kl_length", manifold, curve, segments, symmetric)
    # a segment without length has no derivative, rather than an infinite one
    apart = pieces > 0
    return torch.where(apart, torch.where(apart, pieces, 1.0).sqrt(), 0.0).sum(1).to(curve.nodes.dtype)


def kl_energy(
    manifold: PullbackManifold, curve: Curve, segments: int = 256, *, symmetric: bool = True
) -> Float[Tensor, " b"]:
    """``T Σ_i (KL(p_i ‖ p_{i+1}) + KL(p_{i+1} ‖ p_i))``, which tends to the energy; arguments as for `kl_length`.

    Raises:
        OptionError: as `kl_length`.
    """
    pieces = _divergences("kl_energy", manifold, curve, segments, symmetric)
    return (segments * pieces.sum(1)).to(curve.nodes.dtype)


def _divergences(
    where: str, manifold: PullbackManifold, curve: Curve, segments: int, symmetric: bool
) -> Float[Tensor, "b s"]:
    """Twice the average of the two divergences of each segment, or twice the first."""
    nodes = curve.to(torch.float64).resample(segments).nodes
    double = manifold.in_double()
    parts = nodes.split(max(1, POINTS // (segments + 1)))
    return torch.cat([_of_nodes(where, double, part, symmetric) for part in parts])


def _of_nodes(
    where: str, manifold: PullbackManifold, nodes: Float[Tensor, "b n d"], symmetric: bool
) -> Float[Tensor, "b s"]:
    b, n, d = nodes.shape
    ends = [manifold.distribution(each.reshape(-1, d)) for each in (nodes[:, :-1], nodes[:, 1:])]
    p, q = ends
    if p is None or q is None:
        raise OptionError(
            f"{where}: the decoder returns no distribution, and divergences are between distributions. Let it return "
            "one, or make one of what it returns: output=lambda out: torch.distributions.Normal(*out)."
        )
    forth = _divergence(where, p, q)
    both = forth + _divergence(where, q, p) if symmetric else 2 * forth
    # negative by rounding where two distributions are the same
    return both.reshape(b, n - 1, -1).sum(2).clamp(min=0)


def _divergence(where: str, p: Distribution, q: Distribution) -> Tensor:
    try:
        with unvalidated():
            return kl_divergence(p, q)
    except NotImplementedError as error:
        raise OptionError(
            f"{where}: torch knows no Kullback-Leibler divergence between two distributions {type(p).__name__}. "
            "Register one with torch.distributions.register_kl, or measure by the metric: curve.length(manifold)."
        ) from error
