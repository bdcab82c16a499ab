"""How far lengths of curves of mixtures may be off, as expectations are sums over nodes."""

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.curve.base import Curve
from pullgeo.likelihood.mixture_nodes import Drawn, Nodes
from pullgeo.manifold.ambient.mixture import MixtureInformation
from pullgeo.manifold.pullback import PullbackManifold


def mixture_error(manifold: PullbackManifold, curve: Curve, segments: int = 32) -> Float[Tensor, " b"]:
    """The error of lengths in the Fisher-Rao metric of mixtures that comes from how expectations are taken.

    Of averages of draws it is the standard error: with ``q_i`` what draw i of a component adds to the energies e of
    segments, its part of the length is ``f_i = Σ q_i/(2√e)`` to first order, and ``n Var(f)`` is added up over
    components and locations. The draws of all segments are the same, which this takes into account; that they are a
    Latin hypercube is not, which makes the error smaller than is said here. Of quadratures it is the difference from
    a coarser one, which is far above the error. Finite supports and counts are summed over exactly, up to rounding.

    Args:
        manifold: of a decoder that returns mixtures.
        curve: the curves, such as ``manifold.geodesic(z0, z1).curve``: at a shortest curve the length changes as if
            the curve stayed where it is.
        segments: T, pieces of equal time in which the curves are looked at.

    Cost: T + 1 points decoded, and two log-densities at all nodes.

    Example:
        >>> import torch
        >>> from torch import distributions as td
        >>> from pullgeo import PullbackManifold
        >>> from pullgeo.likelihood import MonteCarlo
        >>> from pullgeo.manifold import mixture_error
        >>> def two_bells(z):
        ...     weights = td.Categorical(torch.tensor([0.3, 0.7], dtype=z.dtype).expand(len(z), 2))
        ...     return td.MixtureSameFamily(weights, td.Normal(torch.cat([z, -z], 1), 1.0))
        >>> z0, z1 = torch.tensor([[[0.5]], [[2.0]]], dtype=torch.float64)
        >>> drawn, integrated = PullbackManifold(two_bells, MonteCarlo(2000)), PullbackManifold(two_bells)
        >>> solution = drawn.geodesic(z0, z1)
        >>> error = mixture_error(drawn, solution.curve)
        >>> bool((solution.length - integrated.dist(z0, z1)).abs() < 3 * error)
        True
    """
    nodes = curve.to(torch.float64).resample(segments).nodes
    b, n, d = nodes.shape
    double = manifold.in_double()
    with torch.no_grad():
        double.check_ends(nodes[:, 0])
        if not isinstance(double.ambient, MixtureInformation):
            return nodes.new_zeros(b).to(curve.nodes.dtype)
        y = double._map(nodes.reshape(-1, d)).unflatten(0, (b, n))
        found = [_error(double.ambient.nodes, each) for each in y]
    return torch.stack(found).to(curve.nodes.dtype) if found else nodes.new_zeros(0).to(curve.nodes.dtype)


def _error(nodes: Nodes, y: Float[Tensor, "n s C"]) -> Float[Tensor, ""]:
    pieces = MixtureInformation(nodes).pieces(y[:-1], y[1:])
    roots = pieces.sum((0, 2)).sqrt()
    if not isinstance(nodes, Drawn):
        coarser = nodes.coarser()
        if coarser is None:
            return roots.new_zeros(())
        return (roots.sum() - MixtureInformation(coarser).pieces(y[:-1], y[1:]).sum((0, 2)).sqrt().sum()).abs()
    slopes = torch.where(roots > 0, 0.5 / torch.where(roots > 0, roots, 1.0), 0.0)
    each = torch.einsum("ins,n->is", pieces, slopes).unflatten(0, (-1, nodes.layout.components))
    return (len(each) * each.var(0)).sum().sqrt()
