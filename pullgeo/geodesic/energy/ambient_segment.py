"""Discrete energies of segments in the output of a map, for outputs that lie in a curved space."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import ShapeError
from pullgeo.geodesic.energy.base import Expansion, QuadraticModel, relative_rounding, scale_free, speed_ratio
from pullgeo.geodesic.energy.segment import SquaredLength, lengths, squares
from pullgeo.jacobian.linearize import linearize
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.numerics.chunking import PASSES

Decode = Callable[[Tensor], Tensor]
"""Points ``(n, d)`` to outputs ``(n, *out)``."""

Squares = Callable[[Tensor, Tensor], Tensor]
"""``y, T -> TᵀM(y)T``: squared lengths of tangents ``(k, n, D)`` at outputs ``(n, *out)``."""


@dataclass(frozen=True, eq=False)
class AmbientSegmentEnergy:
    """``E = T Σ e(f(z_i), f(z_{i+1}))`` for the energy ``e`` of one segment in the output, symmetric in its ends.

    Args:
        segment_energy: squared lengths of segments between two outputs ``(n, *out)``.
        tangent_squares: squared lengths of tangents; only the unit in which steps and gradients are measured depends
            on it.
        expand: points ``(n, d)`` to the map's second-order expansion there.
        decode: values of the map alone; the end points need no more.
    """

    segment_energy: SquaredLength
    tangent_squares: Squares
    expand: Callable[[Tensor], Expansion]
    decode: Decode

    def energy(self, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
        """``E``."""
        p, n, d = nodes.shape
        values = self.decode(nodes.reshape(-1, d))
        return (n - 1) * _pieces(self.segment_energy, values.unflatten(0, (p, n))).sum(1)

    def expand_energy(self, nodes: Float[Tensor, "p n d"]) -> QuadraticModel:
        """``E`` to second order.

        With ``c_i`` the derivative of the energy by the output at node i, the gradient is ``J_iᵀ c_i``. The Hessian's
        blocks are ``J_iᵀ ∂²e J_j``, to which ``∇²⟨c_i, f⟩`` is added on the diagonal. Derivatives of ``e``, a function
        of two outputs alone, are taken by automatic differentiation; those of the map come from its layers.

        Cost: for each inner node one forward pass, d tangent passes and the second derivative against one cotangent;
        for each segment 2d second derivatives of ``e``.
        """
        p, n, d = nodes.shape
        fixed = self.decode(nodes[:, [0, -1]].reshape(-1, d)).unflatten(0, (p, 2))
        size = 4 * d * n * fixed[0, 0].numel() * nodes.element_size() if p else 1
        parts = [
            _expand(self.segment_energy, self.tangent_squares, self.expand, *part)
            for part in PASSES.split(nodes, fixed, each=size)
        ]
        return QuadraticModel.cat(parts)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths ``√e`` of the segments between the outputs of all points of successive layers.

        Cost: one forward pass for each point, and k² segments for each step.
        """
        p, n, k, d = layers.shape
        values = self.decode(layers.reshape(-1, d)).unflatten(0, (p, n, k))
        out = values.shape[3:]
        size = n * k * k * out.numel() * layers.element_size()
        parts = []
        for (part,) in PASSES.split(values, each=size):
            shape = (len(part), n - 1, k, k, *out)
            begin = part[:, :-1].unsqueeze(3).expand(shape).reshape(-1, *out)
            end = part[:, 1:].unsqueeze(2).expand(shape).reshape(-1, *out)
            parts.append(lengths(_measured(self.segment_energy, begin, end).reshape(shape[:4])))
        return torch.cat(parts) if parts else layers.new_zeros(0, n - 1, k, k)


def _measured(segment_energy: SquaredLength, begin: Tensor, end: Tensor) -> Float[Tensor, " n"]:
    """The energies of segments, one number for each.

    Raises:
        ShapeError: they are not.
    """
    found = segment_energy(begin, end)
    if found.shape != begin.shape[:1]:
        raise ShapeError(
            f"segment_energy must map outputs {tuple(begin.shape)} and {tuple(end.shape)} to squared lengths "
            f"{tuple(begin.shape[:1])}, got {tuple(found.shape)}. Sum over all dimensions but the first."
        )
    return found


def _pieces(segment_energy: SquaredLength, values: Float[Tensor, "p n *out"]) -> Float[Tensor, "p s"]:
    p, n, *out = values.shape
    begin, end = values[:, :-1].reshape(-1, *out), values[:, 1:].reshape(-1, *out)
    return squares(_measured(segment_energy, begin, end).reshape(p, n - 1))


def _expand(
    segment_energy: SquaredLength,
    tangent_squares: Squares,
    expand: Callable[[Tensor], Expansion],
    nodes: Tensor,
    fixed: Tensor,
) -> QuadraticModel:
    p, n, d = nodes.shape
    out = fixed.shape[2:]
    D = out.numel()
    at = expand(nodes[:, 1:-1].reshape(-1, d))
    inner = at.value.unflatten(0, (p, n - 2))
    values = torch.cat([fixed[:, :1].flatten(2), inner, fixed[:, 1:].flatten(2)], 1)

    def energy(both: Tensor) -> Tensor:
        return _measured(segment_energy, both[:, :D].reshape(-1, *out), both[:, D:].reshape(-1, *out))

    pieces, J = linearize(energy, torch.cat([values[:, :-1], values[:, 1:]], 2).flatten(0, 1))
    ones = torch.ones_like(pieces)
    pulled = J.pull(ones.unsqueeze(0)).reshape(p, n - 1, 2, D)
    slope = pulled[:, :-1, 1] + pulled[:, 1:, 0]
    columns, curvature = at.derivatives(slope.flatten(0, 1))
    tangents, curvature = columns.unflatten(1, (p, n - 2)), curvature.unflatten(0, (p, n - 2))
    # a segment's begin moves along the tangents of the node there, its end along those of the next; end points stay
    rest = tangents.new_zeros(d, p, 1, D)
    begin, end = torch.cat([rest, tangents], 2), torch.cat([tangents, rest], 2)
    nothing = torch.zeros_like(begin)
    moves = torch.cat([torch.cat([begin, nothing], 3), torch.cat([nothing, end], 3)])
    blocks = J.second(moves.flatten(1, 2), ones).reshape(p, n - 1, 2, d, 2, d)
    factor = float(n - 1)
    gradient = factor * torch.einsum("kpmo,pmo->pmk", tangents, slope)
    stretch = tangent_squares(at.value.reshape(-1, *out), columns).abs().permute(1, 0).reshape(p, n - 2, d)
    reach = tangent_squares(values.reshape(-1, *out), values.reshape(1, -1, D)).abs().reshape(p, n).amax(1)
    total = factor * squares(pieces.reshape(p, n - 1)).sum(1)
    # the same units as for chords
    damping = 4 * factor * stretch
    return QuadraticModel(
        energy=total,
        gradient=gradient,
        hessian=BlockBanded(
            (
                factor * (blocks[:, :-1, 1, :, 1] + blocks[:, 1:, 0, :, 0] + curvature),
                factor * blocks[:, 1:-1, 0, :, 1],
            )
        ),
        damping=damping,
        residual=scale_free(gradient, damping.sum(2).amax(1), total),
        rounding=relative_rounding(factor * reach, total),
        speed_ratio=speed_ratio(pieces.reshape(p, n - 1)),
        order=2,
    )
