"""What the page's solver does, in torch: how far off a page is can be measured when it is written."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.geodesic.descent.newton import Descent, descend, reached
from pullgeo.geodesic.energy.base import QuadraticModel, relative_rounding, scale_free, speed_ratio
from pullgeo.numerics.banded.matrix import BlockBanded
from pullgeo.numerics.chunking import POINTS
from pullgeo.numerics.neighbour_graph import PathGraph
from pullgeo.viz.explore.splines import Spline
from pullgeo.viz.explore.surface import Surface

_STENCIL = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2))
_SIDE = 41

SEGMENTS = 64
"""Segments of the page's curves."""


@dataclass(frozen=True, eq=False)
class PageCurves:
    """Shortest curves on a surface as the page finds them.

    Attributes:
        nodes: ``(p, T + 1, 2)``.
        length: extrapolated from the chords of all nodes and of every second one.
        error: what the page says that the length may be off, on its surface.
        converged: whether the residual fell below the tolerance; false where there is no way.
    """

    nodes: Float[Tensor, "p n 2"]
    length: Float[Tensor, " p"]
    error: Float[Tensor, " p"]
    converged: Bool[Tensor, " p"]


@dataclass(frozen=True, eq=False)
class ChordSpace:
    """The surface as a solver sees it: ``E = T Σ |Δc|² + ΔᵀR(m)Δ`` with exact gradient and Hessian, as in energy.js."""

    surface: Surface
    coordinates: Spline
    rest: Spline | None

    @classmethod
    def of(cls, surface: Surface) -> "ChordSpace":
        """The space of a surface."""
        rest = surface.rest_map
        return cls(surface, surface.coordinates, None if rest is None else rest.spline)

    def squares(self, nodes: Float[Tensor, "p n 2"], every: int = 1) -> Float[Tensor, "p s"]:
        """Squared lengths of the segments between every so many nodes."""
        picked = nodes[:, ::every]
        c = self.coordinates(picked.reshape(-1, 2)).unflatten(0, picked.shape[:2])
        total = c.diff(dim=1).square().sum(-1)
        if self.rest is not None:
            R = self._rest_jets((picked[:, 1:] + picked[:, :-1]) / 2)[0]
            step = picked.diff(dim=1)
            total = total + torch.einsum("psa,psab,psb->ps", step, R, step)
        return total.clamp_min(0)

    def expand_energy(self, nodes: Float[Tensor, "p n 2"]) -> QuadraticModel:
        """The energy to second order; infinite where a node has left the surface."""
        p, n, _ = nodes.shape
        T = n - 1
        jets = self.coordinates.jet(nodes.reshape(-1, 2)).unflatten(1, (p, n))
        c, J, second = jets[0], jets[1:3], jets[3:]
        squares = c.diff(dim=1).square().sum(-1)
        second_difference = 2 * c[:, 1:-1] - c[:, :-2] - c[:, 2:]
        inner = J[:, :, 1:-1]
        G = torch.einsum("apnk,bpnk->pnab", J, J)
        curved = torch.einsum("qpnk,pnk->qpn", second[:, :, 1:-1], second_difference)
        curved = torch.stack([curved[[0, 1]], curved[[1, 2]]]).permute(2, 3, 0, 1)
        gradient = torch.einsum("apnk,pnk->pna", inner, second_difference)
        diagonal = 2 * G[:, 1:-1] + curved
        off = -torch.einsum("apnk,bpnk->pnab", inner[:, :, :-1], inner[:, :, 1:])
        scale = 2 * G.diagonal(dim1=2, dim2=3)
        if self.rest is not None:
            squares, gradient, diagonal, off, scale = self._with_rest(nodes, squares, gradient, diagonal, off, scale)
        energy = T * squares.sum(1)
        outside = ~self.surface.inside(nodes.reshape(-1, 2)).reshape(p, n).all(1)
        if not self.surface.usable.all():
            outside |= ~self.surface.inside(((nodes[:, 1:] + nodes[:, :-1]) / 2).reshape(-1, 2)).reshape(p, T).all(1)
        energy = torch.where(outside, torch.inf, energy)
        factor = 2.0 * T
        stretch = factor * scale[:, 1:-1]
        return QuadraticModel(
            energy=energy,
            gradient=factor * gradient,
            hessian=BlockBanded((factor * diagonal, factor * off)),
            damping=stretch,
            residual=scale_free(factor * gradient, factor * scale.sum(2).amax(1), energy),
            rounding=relative_rounding(T * c.square().sum(-1).amax(1), energy),
            speed_ratio=speed_ratio(squares),
            order=2,
        )

    def energy(self, nodes: Float[Tensor, "p n 2"]) -> Float[Tensor, " p"]:
        """The energies."""
        return self.expand_energy(nodes).energy

    def in_double(self) -> "ChordSpace":
        """Itself."""
        return self

    def chord_lengths(self, layers: Float[Tensor, "p n k 2"]) -> Float[Tensor, "p s k k"]:
        """Lengths of the segments between all points of successive layers."""
        p, _, k, _ = layers.shape
        pairs = [
            torch.stack([a[:, :, None].expand(p, k, k, 2), b[:, None].expand(p, k, k, 2)], 3).reshape(-1, 2, 2)
            for a, b in zip(layers[:, :-1].unbind(1), layers[:, 1:].unbind(1), strict=True)
        ]
        return torch.stack([self.squares(both).reshape(p, k, k).sqrt() for both in pairs], 1)

    def _rest_jets(self, places: Float[Tensor, "p s 2"]) -> tuple[Tensor, Tensor, Tensor]:
        """R ``(p, s, 2, 2)``, its first derivatives ``(2, p, s, 2, 2)`` and its second ones ``(2, 2, p, s, 2, 2)``."""
        if self.rest is None:
            raise ValueError("ChordSpace: a surface without a rest has no jets of one.")
        jets = self.rest.jet(places.reshape(-1, 2)).unflatten(1, places.shape[:2])
        if self.surface.rest_kind == "log":
            jets = _exponential(jets)
        R = jets[..., [0, 1, 1, 2]].unflatten(-1, (2, 2))
        return R[0], R[1:3], torch.stack([R[3:5], R[4:6]])

    def _with_rest(
        self, nodes: Tensor, squares: Tensor, gradient: Tensor, diagonal: Tensor, off: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        step = nodes.diff(dim=1)
        R, first, second = self._rest_jets((nodes[:, 1:] + nodes[:, :-1]) / 2)
        lowered = torch.einsum("psab,psb->psa", R, step)
        slope = torch.einsum("cpsab,psa,psb->psc", first, step, step) / 4
        turn = torch.einsum("cpsab,psb->psac", first, step)
        second_order = torch.einsum("cepsab,psa,psb->psce", second, step, step) / 8
        even, odd = (turn + turn.mT) / 2, (turn - turn.mT) / 2
        at_begin, at_end = R - even + second_order, R + even + second_order
        own = R.diagonal(dim1=2, dim2=3)
        scale = scale.clone()
        scale[:, :-1] += own
        scale[:, 1:] += own
        return (
            squares + (lowered * step).sum(-1),
            gradient + (lowered + slope)[:, :-1] + (slope - lowered)[:, 1:],
            diagonal + at_end[:, :-1] + at_begin[:, 1:],
            off + (-R - odd + second_order)[:, 1:-1],
            scale,
        )


def page_geodesics(
    surface: Surface, a: Float[Tensor, "p 2"], b: Float[Tensor, "p 2"], segments: int = SEGMENTS, tol: float = 1e-8
) -> PageCurves:
    """Shortest curves between places, from the line and from shortest paths on a lattice, the shorter of the two.

    Args:
        surface: what the page carries.
        a: where curves begin.
        b: where they end.
        segments: T, a multiple of four.
        tol: bound on the scale-free residual.
    """
    with torch.no_grad():
        space = ChordSpace.of(surface)
        t = torch.linspace(0, 1, segments + 1, dtype=torch.float64)[:, None]
        line = a[:, None] + t * (b - a)[:, None]
        starts = [line, _lattice_paths(space, a, b, segments)]
        results = [descend(space, Descent.begin(space, start), tol, 60) for start in starts]
        lengths = [_lengths(space, result.nodes) for result in results]
        good = [reached(result.at.residual, result.at.rounding, tol) for result in results]
        found = [
            torch.where(torch.isfinite(result.at.energy), fine, torch.inf)
            for result, (fine, _) in zip(results, lengths, strict=True)
        ]
        second = found[1] < found[0] * torch.where(good[0], 1 - 1e-6, 1.0)
        length = torch.where(second, found[1], found[0])
        return PageCurves(
            torch.where(second[:, None, None], results[1].nodes, results[0].nodes),
            torch.where(torch.isfinite(length), length, torch.nan),
            torch.where(second, lengths[1][1], lengths[0][1]),
            torch.where(second, good[1], good[0]) & torch.isfinite(length),
        )


def _lengths(space: ChordSpace, nodes: Tensor) -> tuple[Tensor, Tensor]:
    fine, coarse, rough = (space.squares(nodes, every).sqrt().sum(1) for every in (1, 2, 4))
    length = fine + (fine - coarse) / 3
    return length, (length - (coarse + (coarse - rough) / 3)).abs() / 3


def _lattice_paths(space: ChordSpace, a: Tensor, b: Tensor, segments: int) -> Tensor:
    """Shortest paths on a coarse lattice, resampled to equal lengths; lines where there is none."""
    surface = space.surface
    wide, high = surface.x[1] - surface.x[0], surface.y[1] - surface.y[0]
    nx, ny = (max(7, round(_SIDE * span / max(wide, high))) for span in (wide, high))
    if max(nx, ny) > 4 * min(nx, ny):
        nx = ny = _SIDE
    gx, gy = np.linspace(*surface.x, nx), np.linspace(*surface.y, ny)
    places = torch.from_numpy(np.stack(np.meshgrid(gx, gy, indexing="ij"), -1).reshape(-1, 2))
    count, pairs = len(places), len(a)
    number = np.arange(count).reshape(nx, ny)
    edges = []
    for di, dj in _STENCIL:
        low, high_j = max(0, -dj), ny - max(0, dj)
        edges.append((number[: nx - di, low:high_j].ravel(), number[di:, low + dj : high_j + dj].ravel()))
    begin, end = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    tips = torch.cat([places, a, b])
    near = [_around(surface, gx, gy, tip) for tip in tips[count:].numpy()]
    extra = np.repeat(np.arange(count, count + 2 * pairs), [len(n) for n in near])
    begin, end = np.concatenate([begin, extra]), np.concatenate([end, *near])
    segment = torch.stack([tips[torch.from_numpy(begin)], tips[torch.from_numpy(end)]], 1)
    lengths = torch.cat([space.squares(part).sqrt().sum(1) for (part,) in POINTS.split(segment)])
    usable = torch.stack(
        [surface.inside(segment[:, 0] + t * (segment[:, 1] - segment[:, 0])) for t in (0, 0.25, 0.5, 0.75, 1)]
    ).all(0)
    weights = torch.where(usable, lengths, torch.inf).numpy()
    graph = PathGraph(len(tips), np.stack([begin, end], 1), weights)
    sources = count + np.arange(pairs)
    ways = graph.paths(sources, sources + pairs)
    return torch.stack([_resampled(space, tips[way], segments) for way in ways])


def _around(surface: Surface, gx: np.ndarray, gy: np.ndarray, place: np.ndarray) -> np.ndarray:
    nx, ny = len(gx), len(gy)
    i0, j0 = (int((p - g[0]) / (g[-1] - g[0]) * (len(g) - 1)) for p, g in zip(place, (gx, gy), strict=True))
    i, j = np.meshgrid(np.arange(i0 - 1, i0 + 3), np.arange(j0 - 1, j0 + 3), indexing="ij")
    good = (i >= 0) & (i < nx) & (j >= 0) & (j < ny)
    return i[good] * ny + j[good]


def _resampled(space: ChordSpace, path: Float[Tensor, "m 2"], segments: int) -> Float[Tensor, "n 2"]:
    lengths = space.squares(path[None]).sqrt()[0].numpy()
    ends = np.concatenate([[0.0], lengths.cumsum()])
    at = np.linspace(0, ends[-1], segments + 1)
    nodes = np.stack([np.interp(at, ends, path[:, k].numpy()) for k in (0, 1)], -1)
    nodes[0], nodes[-1] = path[0], path[-1]
    return torch.from_numpy(nodes)


def _exponential(jets: Float[Tensor, "6 p s 3"]) -> Float[Tensor, "6 p s 3"]:
    """The jet of p, m, s as that of E = eᵖ, F = eᵖ m, G = eᵖ m² + eˢ."""
    m = jets[0, ..., 1]
    E, S = jets[0, ..., 0].exp(), jets[0, ..., 2].exp()
    rows = [torch.stack([E, E * m, E * m**2 + S], -1)]
    for k in (1, 2):
        p, dm, s = jets[k].unbind(-1)
        rows.append(torch.stack([E * p, E * (p * m + dm), E * (p * m**2 + 2 * m * dm) + S * s], -1))
    for k, i, j in ((3, 1, 1), (4, 1, 2), (5, 2, 2)):
        (pi, mi, si), (pj, mj, sj) = jets[i].unbind(-1), jets[j].unbind(-1)
        p, dm, s = jets[k].unbind(-1)
        e = p + pi * pj
        cross = pi * mj + pj * mi + dm
        rows.append(
            torch.stack(
                [E * e, E * (e * m + cross), E * (e * m**2 + 2 * m * cross + 2 * mi * mj) + S * (s + si * sj)], -1
            )
        )
    return torch.stack(rows)
