"""Discrete energies with exact gradients and block-tridiagonal Hessians."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, hessian, vmap

from pullgeo.geodesic.space import EnergyExpansion, Expansion

Apply = Callable[[Tensor], Tensor]


def chord_energy(decode: Apply, metric: Apply | None, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
    """``E = T Σ Δ_iᵀ M Δ_i`` with the chords ``Δ_i = f(z_{i+1}) - f(z_i)``.

    Its minimiser approximates a geodesic with error O(T⁻²), has uniform speed by itself, and its square root is the
    length of the chord polygon. ``metric`` applies the constant M; Euclidean if ``None``.
    """
    p, n, d = nodes.shape
    values = decode(nodes.reshape(-1, d))
    chords = values.reshape(p, n, values.shape[-1]).diff(dim=1)
    return (n - 1) * (chords * _applied(metric, chords)).flatten(1).sum(1)


def expand_chord_energy(
    expand: Callable[[Tensor], Expansion], metric: Apply | None, nodes: Float[Tensor, "p n d"]
) -> EnergyExpansion:
    """The chord energy to second order.

    With ``r_i = M (2 f(z_i) - f(z_{i-1}) - f(z_{i+1}))``, the gradient is ``2T J_iᵀ r_i``, the diagonal blocks of the
    Hessian are ``2T (2 J_iᵀMJ_i + ∇²⟨r_i, f⟩)`` and those beside them ``-2T J_iᵀ M J_{i+1}``.

    Cost: for each node one forward pass, d tangent passes and the second derivative against one cotangent.
    """
    p, n, d = nodes.shape
    at = expand(nodes.reshape(-1, d))
    values = at.value.reshape(p, n, at.value.shape[-1])
    chords = values.diff(dim=1)
    force = torch.zeros_like(values)
    force[:, 1:-1] = _applied(metric, chords[:, :-1] - chords[:, 1:])
    curvature = at.second(force.reshape(at.value.shape)).reshape(p, n, d, d)[:, 1:-1]
    columns = at.tangents.reshape(d, *values.shape)[:, :, 1:-1].permute(1, 2, 0, 3)  # p, m, d, D
    lowered = _applied(metric, columns)
    factor = 2.0 * (n - 1)
    gram = columns @ lowered.mT
    gradient = (columns @ force[:, 1:-1].unsqueeze(-1)).squeeze(-1)
    pieces = (chords * _applied(metric, chords)).sum(-1)
    energy = (n - 1) * pieces.sum(1)
    stretch = gram.diagonal(dim1=-2, dim2=-1).sum(-1).amax(1) if n > 2 else energy.new_ones(p)
    size = (stretch * energy / (n - 1)).sqrt().clamp(min=torch.finfo(nodes.dtype).tiny)
    return EnergyExpansion(
        energy=energy,
        gradient=factor * gradient,
        diagonal=factor * (2 * gram + curvature),
        off_diagonal=-factor * (columns[:, :-1] @ lowered[:, 1:].mT),
        damping=factor * 2 * gram.diagonal(dim1=-2, dim2=-1),
        residual=gradient.flatten(1).norm(dim=1) / size,
        speed_ratio=_speed_ratio(pieces),
    )


def segment_sum(segment_energy: Callable[[Tensor, Tensor], Tensor], nodes: Float[Tensor, "p n d"]) -> Tensor:
    """``E = T Σ e(z_i, z_{i+1})`` for the energy ``e`` of one segment, symmetric in its ends."""
    p, n, d = nodes.shape
    each = segment_energy(nodes[:, :-1].reshape(-1, d), nodes[:, 1:].reshape(-1, d))
    return (n - 1) * each.reshape(p, n - 1).sum(1)


def expand_segment_energy(
    segment_energy: Callable[[Tensor, Tensor], Tensor], nodes: Float[Tensor, "p n d"]
) -> EnergyExpansion:
    """``T Σ e(z_i, z_{i+1})`` to second order, from the 2d x 2d Hessian of every segment by autodiff."""
    p, n, d = nodes.shape
    ends = torch.cat([nodes[:, :-1], nodes[:, 1:]], -1).reshape(-1, 2 * d)

    def one(both: Tensor) -> Tensor:
        return segment_energy(both[:d].unsqueeze(0), both[d:].unsqueeze(0)).squeeze(0)

    slopes = vmap(grad(one))(ends).reshape(p, n - 1, 2, d)
    blocks = vmap(hessian(one))(ends).reshape(p, n - 1, 2, d, 2, d)
    factor = float(n - 1)
    gradient = factor * (slopes[:, :-1, 1] + slopes[:, 1:, 0])
    diagonal = factor * (blocks[:, :-1, 1, :, 1] + blocks[:, 1:, 0, :, 0])
    pieces = segment_energy(nodes[:, :-1].reshape(-1, d), nodes[:, 1:].reshape(-1, d)).reshape(p, n - 1)
    energy = factor * pieces.sum(1)
    damping = diagonal.diagonal(dim1=-2, dim2=-1).abs()
    stretch = (damping.sum(-1) / (4 * factor)).amax(1) if n > 2 else energy.new_ones(p)
    size = (stretch * energy / factor).sqrt().clamp(min=torch.finfo(nodes.dtype).tiny)
    return EnergyExpansion(
        energy=energy,
        gradient=gradient,
        diagonal=diagonal,
        off_diagonal=factor * blocks[:, 1:-1, 0, :, 1],
        damping=damping,
        residual=gradient.flatten(1).norm(dim=1) / (2 * factor) / size,
        speed_ratio=_speed_ratio(pieces),
    )


def _applied(metric: Apply | None, v: Tensor) -> Tensor:
    return v if metric is None else metric(v)


def _speed_ratio(pieces: Tensor) -> Tensor:
    lengths = pieces.detach().clamp(min=0).sqrt()
    return lengths.amax(1) / lengths.median(1).values.clamp(min=torch.finfo(lengths.dtype).tiny)


def chord_lengths(decode: Apply, root: Tensor | None, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
    """Lengths of the chords in the output between all points of successive layers.

    Args:
        decode: points ``(n, d)`` to flat outputs ``(n, D)``.
        root: ``R`` of the constant metric ``M = R Rᵀ``; Euclidean if ``None``.
        layers: the points.
    """
    p, n, k, d = layers.shape
    values = decode(layers.reshape(-1, d))
    values = values if root is None else values @ root
    values = values.reshape(p, n, k, values.shape[-1])
    return torch.cdist(values[:, :-1], values[:, 1:])


def segment_lengths(
    segment_energy: Callable[[Tensor, Tensor], Tensor], layers: Float[Tensor, "p n k d"]
) -> Float[Tensor, "p s k k"]:
    """Lengths ``√e`` of the segments between all points of successive layers. Cost: k² segments for each step."""
    p, n, k, d = layers.shape
    shape = (p, n - 1, k, k, d)
    begin = layers[:, :-1].unsqueeze(3).expand(shape).reshape(-1, d)
    end = layers[:, 1:].unsqueeze(2).expand(shape).reshape(-1, d)
    return segment_energy(begin, end).clamp(min=0).sqrt().reshape(p, n - 1, k, k)
