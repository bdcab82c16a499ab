"""The logarithm: a boundary value problem, the geodesic equation that makes it exact, and its derivatives."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from pullgeo._repr import counted
from pullgeo._torch.grad_mode import check_same_weights, leaves
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.geodesic.solution import Solution, Status
from pullgeo.geodesic.solver import Solver
from pullgeo.geodesic.solvers.newton import Newton
from pullgeo.geodesic.starts.base import InitialCurve
from pullgeo.manifold.bvp.collocation import collocate
from pullgeo.manifold.bvp.multiple_shooting import multiple_shooting
from pullgeo.manifold.bvp.pieces import Pieces
from pullgeo.manifold.equation import Equation
from pullgeo.manifold.exponential import Connection, check_derivative, shoot
from pullgeo.numerics.batch import Batch
from pullgeo.numerics.bisect_batch import where_defined


@dataclass(frozen=True)
class LogarithmSettings:
    """When a logarithm is good, and what is tried until it is.

    Attributes:
        good: the largest error, relative to the velocity, with which a logarithm is given. What is promised.
        rough: an error with which a curve is near enough to the geodesic for shooting to end there. Set by hand.
        steady: by how much a speed may change along a geodesic, which keeps it, before the metric is taken to jump on
            the way. Far above the error of a solution, and far below jumps.
        same_speed: by how much a geodesic may differ in length from the discrete one, beyond the latter's error. Set by
            hand.
        max_segments: so many has a discrete geodesic at most, where one of fewer does not lead to the geodesic. As
            `Newton` has it.
        near: points that differ by less than this part of their coordinates have too few digits between them for a
            curve of many nodes; the straight line between them leads to the geodesic. Set by hand.
    """

    good: float = 1e-7
    rough: float = 1e-2
    steady: float = 1e-5
    same_speed: float = 1e-3
    max_segments: int = 256
    near: float = 1e-6


SETTINGS = LogarithmSettings()


Norm = Callable[[Tensor, Tensor], Tensor]
"""``(z, u) -> ‖u‖`` at points ``(b, d)``."""


Geodesic = Callable[[Tensor, Tensor, Solver | None], Solution]
"""Discrete geodesics between points ``(b, d)``, by a solver or by the default one."""


@dataclass(frozen=True, eq=False)
class Logarithm:
    """Initial velocities of shortest geodesics, and for each pair whether there is one and how well it is known.

    Args:
        vector: the velocities ``log_x(y)``; NaN for a pair that has none.
        status: how the search ended, one `Status` for each pair, in the order of ``vector.reshape(-1, d)``; its text
            says what to do.
        error: estimated errors of the velocities, relative to these; infinite where there is none. For pairs solved by
            shooting it is by how much the parts of the geodesic fail to meet.
    """

    vector: Float[Tensor, "*b d"]
    status: tuple[Status, ...]
    error: Float[Tensor, "*b"]

    @property
    def converged(self) -> Bool[Tensor, "*b"]:
        """Whether each pair has a velocity."""
        good = torch.tensor([s.converged for s in self.status], dtype=torch.bool, device=self.error.device)
        return good.reshape(self.error.shape)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.status)

    def __repr__(self) -> str:
        return f"Logarithm({len(self)} pairs: {counted(self.status)})"


@dataclass(frozen=True, eq=False)
class LogarithmSearch:
    """Logarithms, and the curves along which they were found.

    Attributes:
        logarithm: what is asked for.
        curves: which pairs belong to curves in pieces, and these; those that were solved by shooting have none.
    """

    logarithm: Logarithm
    curves: list[tuple[Tensor, Pieces]]


def logarithm(
    equation: Equation, norm: Norm, geodesic: Geodesic, x: Float[Tensor, "b d"], y: Float[Tensor, "b d"]
) -> LogarithmSearch:
    """The initial velocities of shortest geodesics, in float64.

    A discrete geodesic leads to the exact one by collocation, or by shooting where the connection jumps. What is found
    there must keep its speed, as a geodesic does unless the metric jumps, and be as long as the discrete one. If it
    fails for another reason, the discrete curve was too coarse: it is sought again with twice the segments.

    Points that are nearly equal have no discrete geodesic: nodes between them would be rounding errors. Collocation
    solves for displacements, and begins there with the straight line.

    Differentiable once, to points and to weights, by the implicit function theorem for ``exp_x(v) = y``.
    """
    with torch.no_grad():
        found = _search(equation, norm, geodesic, x, y)
    if not torch.is_grad_enabled() or not len(x):
        return found
    # the norm has the weights of the connection, also where that does not exist
    one = x[:1].detach()
    weights = leaves(where_defined(norm, (), one, one))
    if not (weights or x.requires_grad or y.requires_grad):
        return found
    connection: Connection = equation.manifold.connection
    vector = _Differentiable.apply(connection, found.logarithm.vector, x, y, *weights)
    return replace(found, logarithm=replace(found.logarithm, vector=vector))


def _search(equation: Equation, norm: Norm, geodesic: Geodesic, x: Tensor, y: Tensor) -> LogarithmSearch:
    apart = (x != y).any(1)
    status = [Status.COINCIDENT] * len(x)
    found = _Smooth.nothing(x, apart)
    size = torch.maximum(x.abs().amax(1), y.abs().amax(1))
    near = apart & ((y - x).abs().amax(1) < SETTINGS.near * size)
    index = (apart & ~near).nonzero().squeeze(1)
    if len(index):
        solution = geodesic(x[index], y[index], None)
        for pair, end in zip(index.tolist(), solution.status, strict=True):
            status[pair] = end
        # outputs that rounding hardly tells apart are near as well
        lost = torch.tensor([s in (Status.DEGENERATE, Status.ROUNDING) for s in solution.status], device=x.device)
        lost = lost | (solution.length == 0)
        near = near.index_put((index,), lost)
        kept = (solution.converged & ~lost).nonzero().squeeze(1)
        found = _between(equation, norm, geodesic, x, y, index[kept], solution[kept.tolist()], status, found)
    index = near.nonzero().squeeze(1)
    if len(index):
        found = _along_lines(equation, norm, x, y, index, status, found)
    return LogarithmSearch(Logarithm(found.velocity, tuple(status), found.error), found.curves)


def _between(
    equation: Equation,
    norm: Norm,
    geodesic: Geodesic,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    solution: Solution,
    status: list[Status],
    found: "_Smooth",
) -> "_Smooth":
    """What discrete geodesics lead to, of more segments if they must be."""
    while len(index):
        smooth = _smooth(equation, norm, solution.curve)
        same = (
            smooth.speed - solution.length
        ).abs() <= SETTINGS.same_speed * solution.length + 3 * solution.error_estimate
        good = smooth.solved & smooth.steady & same
        found = found.taken(index, smooth, good)
        kinked = smooth.solved & ~smooth.steady
        for pair, of_pair in zip(index[~good].tolist(), kinked[~good].tolist(), strict=True):
            status[pair] = Status.KINKED if of_pair else Status.NOT_REFINED
        again = (~good & ~kinked).nonzero().squeeze(1)
        if len(again):
            singular = equation.singular(solution.curve.nodes[again])
            for pair in index[again[singular]].tolist():
                status[pair] = Status.SINGULAR
            again = again[~singular]
        segments = 2 * solution.curve.segments
        if segments > SETTINGS.max_segments or not len(again):
            break
        finer = Newton(segments=segments, starts=(InitialCurve(solution.curve[again]),), rtol=None)
        index = index[again]
        solution = geodesic(x[index], y[index], finer)
        for pair, of_pair in zip(index.tolist(), solution.status, strict=True):
            status[pair] = of_pair
        index, solution = index[solution.converged], solution[solution.converged.nonzero().squeeze(1).tolist()]
    return found


def _along_lines(
    equation: Equation, norm: Norm, x: Tensor, y: Tensor, index: Tensor, status: list[Status], found: "_Smooth"
) -> "_Smooth":
    """What the straight lines between nearly equal points lead to."""
    begin, way = x[index], (y - x)[index]
    smooth = _smooth(equation, norm, DiscreteCurve(torch.stack([torch.zeros_like(way), way], 1)), begin)
    length = where_defined(norm, (), begin, way)
    # what is as long as the line is shortest
    geodesic = smooth.steady & ((smooth.speed - length).abs() <= SETTINGS.same_speed * length)
    good = smooth.solved & geodesic
    singular = equation.singular(begin.unsqueeze(1))
    for i, pair in enumerate(index.tolist()):
        if good[i] and not singular[i]:
            status[pair] = Status.CONVERGED
        elif singular[i]:
            status[pair] = Status.SINGULAR
        else:
            status[pair] = Status.KINKED if smooth.solved[i] else Status.NOT_REFINED
    good = good & ~singular
    return found.taken(index, smooth, good)


@dataclass(frozen=True, eq=False)
class _Smooth(Batch):
    """Solutions of the geodesic equation: what they begin with, whether they are geodesics, and their curves."""

    velocity: Float[Tensor, "b d"]
    speed: Float[Tensor, " b"]
    error: Float[Tensor, " b"]
    solved: Bool[Tensor, " b"]
    steady: Bool[Tensor, " b"]
    curves: list[tuple[Tensor, Pieces]]

    @staticmethod
    def nothing(x: Tensor, apart: Tensor) -> "_Smooth":
        """No solution for the pairs that are apart, and that of the others."""
        zero = torch.zeros_like(x[:, 0])
        velocity = torch.zeros_like(x).masked_fill(apart.unsqueeze(1), torch.nan)
        return _Smooth(velocity, zero, zero.masked_fill(apart, torch.inf), ~apart, ~apart, [])

    @staticmethod
    def of(norm: Norm, z: Float[Tensor, "b t d"], u: Float[Tensor, "b t d"], error: Float[Tensor, " b"]) -> "_Smooth":
        """Those that are given by their points and velocities at several times."""
        fine = (torch.isfinite(z) & torch.isfinite(u)).flatten(1).all(1) & (error < SETTINGS.good)
        speeds = torch.full_like(z[:, :, 0], torch.nan)
        if bool(fine.any()):
            speeds[fine] = norm(z[fine].flatten(0, 1), u[fine].flatten(0, 1)).reshape(-1, z.shape[1])
        steady = speeds.amax(1) <= (1 + SETTINGS.steady) * speeds.amin(1)
        return _Smooth(u[:, 0], speeds[:, 0], error, fine, steady, [])

    def taken(self, index: Tensor, other: "_Smooth", good: Bool[Tensor, " k"]) -> "_Smooth":
        """With the good ones of some other solutions for the pairs with these indices."""
        curves = list(self.curves)
        for own, pieces in other.curves:
            kept = good[own].nonzero().squeeze(1)
            curves.append((index[own[kept]], pieces[kept]))
        return replace(self.put(index[good], other[good]), curves=curves)


def _smooth(equation: Equation, norm: Norm, curve: DiscreteCurve, origin: Tensor | None = None) -> _Smooth:
    """Solutions near curves, which may be given relative to an origin."""
    begin = curve.begin if origin is None else origin
    way = curve if origin is not None else DiscreteCurve(curve.nodes - begin.unsqueeze(1))
    zero = torch.zeros_like(begin[:, 0])
    found = _Smooth(begin, zero, zero, zero.bool(), zero.bool(), [])
    rough: list[tuple[Tensor, DiscreteCurve]] = []
    for index, part in collocate(equation, begin, way):
        found = found.put(index, _Smooth.of(norm, part.points, part.velocities, part.error))
        solved = found.solved[index].nonzero().squeeze(1)
        found = replace(found, curves=[*found.curves, (index[solved], part.pieces[solved])])
        near = ((part.error >= SETTINGS.good) & (part.error < SETTINGS.rough)).nonzero().squeeze(1)
        if len(near):
            rough.append((index[near], part.pieces[near].curve))
    if rough:
        segments = max(near.segments for _, near in rough)
        nodes = [near.nodes if near.segments == segments else near.resample(segments).nodes for _, near in rough]
        states, mismatch = multiple_shooting(equation.manifold.connection, DiscreteCurve(torch.cat(nodes)))
        shot = _Smooth.of(norm, states[:, :, 0], states[:, :, 1], mismatch)
        found = found.put(torch.cat([index for index, _ in rough]), shot)
    return found


class _Differentiable(torch.autograd.Function):
    """Passes the velocities through; the backward pass shoots once more, with a graph."""

    @staticmethod
    def forward(ctx: Any, connection: Connection, velocity: Tensor, x: Tensor, y: Tensor, *weights: Tensor) -> Tensor:
        ctx.connection = connection
        ctx.save_for_backward(velocity, x, y, *weights)
        return velocity.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor | None, ...]:
        velocity, x, y, *weights = ctx.saved_tensors
        # a pair without a logarithm has no derivative, and there may be no connection where it begins
        index = torch.isfinite(velocity).all(1).nonzero().squeeze(1)
        with torch.enable_grad():
            v = velocity[index].requires_grad_()
            # x may be computed from the weights: what lies behind it is the caller's, and not counted here
            start = x[index].detach().requires_grad_(x.requires_grad)
            end, speed = shoot(ctx.connection, start, v)
            each = [torch.autograd.grad(end[:, k].sum(), v, retain_graph=True)[0] for k in range(x.shape[1])]
            differential = torch.stack(each, 1)
            along = (differential @ v.detach().unsqueeze(2)).squeeze(2) - speed.detach()
            check_derivative("logmap", along.norm(dim=1), speed.detach().norm(dim=1))
            # dv = (∂exp/∂v)⁻¹ (dy - ∂exp/∂x dx - ∂exp/∂θ dθ)
            pulled = torch.linalg.solve(differential.mT, weight[index])
            wanted = [a for a in (start, *weights) if a.requires_grad]
            gradients: tuple[Tensor | None, ...] = ()
            if wanted:
                # the graph behind x and the weights is the caller's, who may go through it again
                gradients = torch.autograd.grad(end, wanted, -pulled, allow_unused=True, retain_graph=True)
        of_weights = gradients[len(gradients) - len(weights) :]
        if len(index) and all(gradient is None for gradient in of_weights):
            check_same_weights("the derivative of logmap", of_weights)
        parts = iter(gradients)
        at_x, *to_weights = (next(parts) if a.requires_grad else None for a in (x, *weights))
        to_x, to_y = (
            torch.zeros_like(x).index_put((index,), part) if a.requires_grad and part is not None else None
            for a, part in ((x, at_x), (y, pulled))
        )
        return None, None, to_x, to_y, *to_weights
