"""Discrete energies of chords, for metrics that are pulled back from a flat space."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.geodesic.energy.base import (
    EnergyGradient,
    Expansion,
    QuadraticModel,
    relative_rounding,
    scale_free,
    speed_ratio,
)
from pullgeo.metric.base import Metric
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.numerics.chunking import CHORDS, POINTS

Apply = Callable[[Tensor], Tensor]


@dataclass
class _Known:
    """Constants of the energy, and the end points that were decoded last with their values."""

    stencils: dict[tuple[int, torch.dtype, torch.device], "_Stencil"] = field(default_factory=dict)
    points: Tensor = field(default_factory=lambda: torch.empty(0))
    values: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True, eq=False)
class ChordEnergy:
    """``E = T (Σ Δ_iᵀ M Δ_i + ¹⁄₁₂ Σ w_i r_iᵀ M r_i)``: chords, corrected for what they cut off where the curve bends.

    Here ``Δ_i = f(z_{i+1}) - f(z_i)`` are the T chords of the image and ``r_i = Δ_{i-1} - Δ_i`` its second differences
    at the T - 1 inner nodes; ``w_i`` is 1, but ³⁄₂ at the first and the last of them. The energy of chords alone is too
    small by ``T⁻²/12 ∫ f̈ᵀ M f̈ dt`` to leading order, and the second sum is that integral. So E is the energy of the
    curve up to O(T⁻⁴), where chords reach O(T⁻²), it needs no further points, and being a sum of squares it never
    rewards a curve for cutting a bend. Its minimisers run at uniform speed by themselves.

    Args:
        decode: points ``(n, d)`` to outputs ``(n, D)``.
        expand: points ``(n, d)`` to the map's second-order expansion there.
        matrix: the constant metric M; Euclidean if ``None``.
    """

    decode: Apply
    expand: Callable[[Tensor], Expansion]
    matrix: Metric | None = None
    _known: "_Known | None" = None

    def held(self) -> "ChordEnergy":
        """The same energy while the map stays what it is: the values at end points are computed once for each search.

        Only on a CPU, and where no derivatives are recorded.
        """
        return ChordEnergy(self.decode, self.expand, self.matrix, _Known())

    def energy(self, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, " p"]:
        """``E``."""
        p, n, d = nodes.shape
        values = self.decode(nodes.reshape(-1, d)).unflatten(0, (p, n))
        return _Polygon.through(values, self._stencil(n - 1, values)).energy(self._metric)

    def slope(self, nodes: Float[Tensor, "p n d"]) -> EnergyGradient:
        """``E`` to first order, with the gradient ``2T J_iᵀ M q_i`` that `expand_energy` states.

        Args:
            nodes: the curves, of an even number of segments.

        Cost: a forward pass for each node, and a backward pass for each inner one.
        """
        p, n, d = nodes.shape
        with torch.enable_grad():
            x = nodes[:, 1:-1].reshape(-1, d).detach().requires_grad_()
            inner = self.decode(x)
        with torch.no_grad():
            ends = self._ends(nodes)
            values = torch.cat([ends[:, :1], inner.detach().unflatten(0, (p, n - 2)), ends[:, 1:]], 1)
            polygon = _Polygon.through(values, self._stencil(n - 1, values))
            pull = polygon.pull(self._metric)
        moved = torch.zeros_like(x)
        # a decoder that is constant, or detaches its output, has no graph
        if inner.requires_grad:
            with torch.enable_grad():
                # of a number: for cotangents torch imports sympy at the first call, which takes longer than many
                # geodesics
                (moved,) = torch.autograd.grad(torch.dot(inner.reshape(-1), pull.reshape(-1)), x)
        coarse = _Polygon.through(values[:, ::2], self._stencil((n - 1) // 2, values)).energy(self._metric)
        return EnergyGradient(polygon.energy(self._metric), 2.0 * (n - 1) * moved.reshape(p, n - 2, d), coarse)

    def expand_energy(self, nodes: Float[Tensor, "p n d"]) -> QuadraticModel:
        """``E`` to second order.

        As a quadratic form ``E = T Σ A_ij f(z_i)ᵀ M f(z_j)`` the energy has a matrix A of five diagonals. With
        ``q_i = Σ_j A_ij f(z_j)`` the gradient is ``2T J_iᵀ M q_i``, and the Hessian has the blocks
        ``2T A_ij J_iᵀ M J_j``, to which ``2T ∇²⟨M q_i, f⟩`` is added on the diagonal.

        Cost: for each inner node one forward pass, d tangent passes and the second derivative against one cotangent.
        """
        p = len(nodes)
        fixed = self._ends(nodes)
        size = nodes[0].numel() * fixed.shape[2] * nodes.element_size() if p else 1
        metric, stencil = self._metric, self._stencil(nodes.shape[1] - 1, fixed)
        parts = [_expand(self.expand, metric, stencil, *part) for part in CHORDS.split(nodes, fixed, each=size)]
        return QuadraticModel.cat(parts)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths of the chords in the output between all points of successive layers.

        Where all points of the first layer are the same, and all of the last, these are decoded once.
        """
        p, n, k, d = layers.shape

        def images(points: Tensor) -> Tensor:
            return self.flat_images(points.reshape(-1, d)).unflatten(0, points.shape[:-1])

        ends = layers[:, [0, -1]]
        if n == 2 or k == 1 or not bool((ends == ends[:, :, :1]).all()):
            values = images(layers)
            if k == 1:
                return values.diff(dim=1).norm(dim=-1, keepdim=True)
            return torch.cdist(values[:, :-1], values[:, 1:])
        # all paths begin and end at the same points, which need not be decoded k times
        values, tips = images(layers[:, 1:-1]), images(ends[:, :, 0])
        first, last = ((values[:, i] - tips[:, i : i + 1 or None]).norm(dim=-1) for i in (0, -1))
        between = torch.cdist(values[:, :-1], values[:, 1:])
        return torch.cat(
            [first[:, None, None].expand(p, 1, k, k), between, last[:, None, :, None].expand(p, 1, k, k)], 1
        )

    def flat_images(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n D"]:
        """Values in coordinates in which M is the identity."""
        values = torch.cat([self.decode(part) for (part,) in POINTS.split(z)])
        return values if self.matrix is None else values @ self.matrix.root()

    def _stencil(self, segments: int, like: Tensor) -> "_Stencil":
        """The constants of the energy."""
        if self._known is None:
            return _Stencil.of(segments, like)
        key = segments, like.dtype, like.device
        if key not in self._known.stencils:
            self._known.stencils[key] = _Stencil.of(segments, like)
        return self._known.stencils[key]

    def _ends(self, nodes: Float[Tensor, "p n d"]) -> Float[Tensor, "p 2 D"]:
        """The values at the ends of curves."""
        p, n, d = nodes.shape
        ends = nodes[:, :: n - 1]
        known = None if torch.is_grad_enabled() or ends.device.type != "cpu" else self._known
        if known is not None and known.points.dtype == ends.dtype and torch.equal(known.points, ends):
            return known.values
        values = self.decode(ends.reshape(-1, d)).unflatten(0, (p, 2))
        if known is not None:
            known.points, known.values = ends.clone(), values
        return values

    @property
    def _metric(self) -> Apply | None:
        return None if self.matrix is None else self.matrix.apply


def _expand(
    expand: Callable[[Tensor], Expansion], metric: Apply | None, stencil: "_Stencil", nodes: Tensor, fixed: Tensor
) -> QuadraticModel:
    p, n, d = nodes.shape
    at = expand(nodes[:, 1:-1].reshape(-1, d))
    values = torch.cat([fixed[:, :1], at.value.unflatten(0, (p, n - 2)), fixed[:, 1:]], 1)
    polygon = _Polygon.through(values, stencil)
    pull = polygon.pull(metric).flatten(0, 1)
    tangents, curvature = at.derivatives(pull)
    columns = torch.nn.functional.pad(tangents.transpose(0, 1), (0, 0, 0, 0, 0, 2))
    gram, beside, beyond = _gram_bands(columns, _applied(metric, columns), p, n - 2)
    own, next_, second_next = stencil.bands
    gradient = torch.bmm(columns[:-2], pull.unsqueeze(-1)).reshape(p, n - 2, d)
    pieces = polygon.pieces(metric)
    energy = pieces.sum(1) + polygon.cut_off(metric)
    squares = gram.diagonal(dim1=-2, dim2=-1)
    stretch = squares.sum(-1).amax(1)
    magnitude = (values * _applied(metric, values)).sum(2).amax(1)
    factor = 2.0 * (n - 1)
    return QuadraticModel(
        energy=(n - 1) * energy,
        gradient=factor * gradient,
        hessian=BlockBanded(
            (
                factor * (own * gram + curvature.reshape(gram.shape)),
                next_ * beside,
                second_next * beyond,
            )
        ),
        damping=factor * 2 * squares,
        residual=scale_free(gradient, stretch, energy),
        rounding=relative_rounding((n - 1) * magnitude, energy),
        speed_ratio=speed_ratio(pieces),
        order=4,
    )


@dataclass(frozen=True, eq=False)
class _Stencil:
    """The constants of the energy of T segments.

    Attributes:
        segments: T.
        weights: ``w_i``.
        twelfths: ``w_i / 12``.
    """

    segments: int
    weights: Float[Tensor, " m"]
    twelfths: Float[Tensor, " m"]

    @staticmethod
    def of(segments: int, like: Tensor) -> "_Stencil":
        weights = _end_weights(segments, like)
        return _Stencil(segments, weights, weights / 12)

    @cached_property
    def bands(self) -> tuple[Tensor, Tensor, Tensor]:
        """``A_ii`` among the inner nodes, and ``2T A_{i,i+1}`` and ``2T A_{i,i+2}``, each ``(_, 1, 1)``."""
        weights, factor = self.weights, 2.0 * self.segments
        around = torch.nn.functional.pad(weights, (1, 1))
        own = 2 + (4 * weights + around[:-2] + around[2:]) / 12
        beside = -1 - (weights[:-1] + weights[1:]) / 6
        own, beside, beyond = (band[:, None, None] for band in (own, beside, weights[1:-1] / 12))
        return own, factor * beside, factor * beyond


@dataclass(frozen=True, eq=False)
class _Polygon:
    """Chords ``Δ_i`` and second differences ``r_i`` of curves in the output."""

    chords: Float[Tensor, "p s D"]
    second_differences: Float[Tensor, "p m D"]
    stencil: _Stencil

    @staticmethod
    def through(values: Float[Tensor, "p n D"], stencil: _Stencil) -> "_Polygon":
        chords = values.diff(dim=1)
        return _Polygon(chords, chords[:, :-1] - chords[:, 1:], stencil)

    def pieces(self, metric: Apply | None) -> Float[Tensor, "p s"]:
        """``Δ_iᵀ M Δ_i``."""
        return (self.chords * _applied(metric, self.chords)).sum(2)

    def cut_off(self, metric: Apply | None) -> Float[Tensor, " p"]:
        """``¹⁄₁₂ Σ w_i r_iᵀ M r_i``."""
        squares = (self.second_differences * _applied(metric, self.second_differences)).sum(2)
        return squares @ self.stencil.weights / 12

    def energy(self, metric: Apply | None) -> Float[Tensor, " p"]:
        """``E``."""
        return self.chords.shape[1] * (self.pieces(metric).sum(1) + self.cut_off(metric))

    def pull(self, metric: Apply | None) -> Float[Tensor, "p m D"]:
        """``M q_i`` for the inner nodes: second differences, less a twelfth of those of the weighted ones."""
        weighted = self.second_differences * self.stencil.twelfths[:, None]
        pull = self.second_differences.add(weighted, alpha=2)
        pull[:, 1:].sub_(weighted[:, :-1])
        pull[:, :-1].sub_(weighted[:, 1:])
        return _applied(metric, pull)


def _gram_bands(columns: Float[Tensor, "_ d D"], lowered: Float[Tensor, "_ d D"], p: int, m: int) -> list[Tensor]:
    """``J_iᵀ M J_{i+k}`` ``(p, m - k, d, d)`` for k = 0, 1, 2.

    All columns go through one batched product, those of different curves and two blank ones at the end too, and the few
    blocks that join two curves are dropped: slices of every curve would have to be copied first.
    """
    n, d, D = len(columns) - 2, columns.shape[1], columns.shape[2]
    # the columns of three successive nodes stand in a row
    three = lowered.contiguous().as_strided((n, 3 * d, D), (d * D, D, 1))
    blocks = (columns[:n] @ three.mT).unflatten(0, (p, m))
    return [blocks[:, : max(m - k, 0), :, k * d : (k + 1) * d] for k in range(3)]


def _end_weights(segments: int, like: Tensor) -> Float[Tensor, " m"]:
    """Weights of the inner nodes in a quadrature that does without the end points, of second order."""
    weights = torch.ones(segments - 1, dtype=like.dtype, device=like.device)
    if segments == 2:
        return 2 * weights
    weights[:1] = weights[-1:] = 1.5
    return weights


def _applied(metric: Apply | None, v: Tensor) -> Tensor:
    return v if metric is None else metric(v)
