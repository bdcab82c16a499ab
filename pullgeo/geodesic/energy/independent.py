"""The discrete energy of a curve whose nodes are decoded by members of an ensemble drawn independently of each other.

It is no energy of a metric: it grows without bound as segments become short, see `independent_energy`.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.geodesic.energy.base import Expansion, QuadraticModel, relative_rounding, scale_free, speed_ratio
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.numerics.chunking import CACHE

Apply = Callable[[Tensor], Tensor]


def independent_energy(
    decode: Apply, members: int, nodes: Float[Tensor, "p n d"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """``E = T Σ_i E_{s,t} |f_s(z_{i+1}) - f_t(z_i)|²`` for members s, t drawn uniformly, independently; in two parts.

    With the members' average ``m`` and variance ``V(z) = 1/S Σ |f_s(z) - m(z)|²`` each term is
    ``|m(z_{i+1}) - m(z_i)|² + V(z_{i+1}) + V(z_i)``. So E is the energy of the average's chords, which settles as T
    grows, and ``T Σ (V(z_i) + V(z_{i+1}))``, about ``2 T² V``, which does not.

    Args:
        decode: points ``(n, d)`` to the members' outputs ``(n, S D)``, one after the other, divided by ``√S``.
        members: ``S``.
        nodes: the curves.

    Returns:
        The energy of the average's chords and the part that the members' variance adds.
    """
    p, n, d = nodes.shape
    means, spread = [], []
    size = nodes.new_zeros(0).element_size() * n
    width = decode(nodes[:1, 0]).shape[1] if p else 1
    for (part,) in CACHE.split(nodes, each=size * width):
        values = decode(part.reshape(-1, d)).unflatten(0, (len(part), n))
        mean, rest = _split(values, members)
        means.append((n - 1) * members * mean.diff(dim=1).square().sum((1, 2, 3)))
        variance = rest.square().sum((2, 3))
        spread.append((n - 1) * (variance[:, :-1] + variance[:, 1:]).sum(1))
    return (torch.cat(means), torch.cat(spread)) if means else (nodes.new_zeros(0), nodes.new_zeros(0))


def expand_independent_energy(
    expand: Callable[[Tensor], Expansion], decode: Apply, members: int, nodes: Float[Tensor, "p n d"]
) -> QuadraticModel:
    """`independent_energy` to second order.

    With ``y`` the stacked outputs and P the projection on the members' average, a segment's energy is
    ``|y_i|² + |y_{i+1}|² - 2 ⟨P y_i, P y_{i+1}⟩``. The gradient is ``2T J_iᵀ q_i`` with
    ``q_i = 2 y_i - P (y_{i-1} + y_{i+1})``, the Hessian has the blocks ``4T J_iᵀ J_i + 2T ∇²⟨q_i, f⟩`` and
    ``-2T J_iᵀ P J_{i+1}``.
    """
    p, _, d = nodes.shape
    ends = decode(nodes[:, [0, -1]].reshape(-1, d)).unflatten(0, (p, 2))
    size = nodes[0].numel() * ends.shape[2] * nodes.element_size() if p else 1
    return QuadraticModel.cat([_expand(expand, members, *part) for part in CACHE.split(nodes, ends, each=size)])


def _expand(expand: Callable[[Tensor], Expansion], members: int, nodes: Tensor, ends: Tensor) -> QuadraticModel:
    p, n, d = nodes.shape
    at = expand(nodes[:, 1:-1].reshape(-1, d))
    values = torch.cat([ends[:, :1], at.value.unflatten(0, (p, n - 2)), ends[:, 1:]], 1)
    mean, rest = _split(values, members)
    # 2 y - P(before + after), without the difference of large numbers
    second_difference = 2 * mean[:, 1:-1] - mean[:, :-2] - mean[:, 2:]
    q = (2 * rest[:, 1:-1] + second_difference).flatten(2)
    tangents, curvature = at.derivatives(q.flatten(0, 1))
    columns = tangents.transpose(0, 1).unflatten(0, (p, n - 2))
    # a tangent's average over members, once: its product with another average is S times that of the entries
    average = columns.unflatten(-1, (members, -1)).sum(3) / members**0.5
    gram = columns @ columns.mT
    beside = average[:, :-1] @ average[:, 1:].mT
    variance = rest.square().sum((2, 3))
    pieces = members * mean.diff(dim=1).square().sum((2, 3)) + variance[:, :-1] + variance[:, 1:]
    gradient = (columns @ q.unsqueeze(-1)).squeeze(-1)
    factor, energy = 2.0 * (n - 1), pieces.sum(1)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    return QuadraticModel(
        energy=(n - 1) * energy,
        gradient=factor * gradient,
        hessian=BlockBanded((factor * (2 * gram + curvature.reshape(gram.shape)), -factor * beside)),
        damping=factor * 2 * diagonal,
        residual=scale_free(gradient, diagonal.sum(-1).amax(1), energy),
        rounding=relative_rounding((n - 1) * values.square().sum(2).amax(1), energy),
        speed_ratio=speed_ratio(pieces),
        order=2,
    )


def _split(values: Float[Tensor, "p n o"], members: int) -> tuple[Tensor, Tensor]:
    """The members' average ``(p, n, 1, D)`` and what is left of each, ``(p, n, S, D)``."""
    stacked = values.unflatten(2, (members, -1))
    mean = stacked.mean(2, keepdim=True)
    return mean, stacked - mean
