"""GEORCE: geodesics as a control problem with exact updates of the controls."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.geodesic.descent.assess import assess
from pullgeo.geodesic.descent.newton import reached
from pullgeo.geodesic.energy.base import DiscreteEnergy, relative_rounding, scale_free
from pullgeo.geodesic.energy.left_endpoint import LeftEndpoint, left_endpoint
from pullgeo.geodesic.solver import SearchResult, check_search
from pullgeo.geodesic.solvers.proposals import propose_shortest
from pullgeo.geodesic.starts.base import Start, StraightLine
from pullgeo.numerics.progress import stepped

HALVINGS = 30
"""How often the line search halves a step before a curve is given up."""

DECREASE = 0.1
"""Share of the slope's prediction by which a step has to lower the energy."""


@dataclass(frozen=True, eq=False)
class Georce:
    """The published algorithm GEORCE, for comparison, and for any metric ``G(z)``.

    With ``u_t = z_{t+1} - z_t``, ``G_t = G(z_t)`` and ``ν_t = ∇_z (u_tᵀ G(z) u_t)`` at ``z_t``, one step solves the
    necessary conditions of the control problem with G and ν held fixed,

        ``u_t = -½ G_t⁻¹ (μ + Σ_{s > t} ν_s)``,   ``(Σ_t G_t⁻¹) μ = 2 (z_0 - z_T) - Σ_t G_t⁻¹ Σ_{s > t} ν_s``,

    and goes from the present controls towards these by a backtracking line search. It needs first derivatives of G
    only and converges quickly to a stationary point of *its* energy: that of the left end points, which is biased to
    the order 1/T (see `LeftEndpoint`); the solution's length is ``√E``, without extrapolation. Prefer `Newton`.

    Args:
        tol: bound on the scale-free residual.
        segments: T, even.
        max_steps: bound on the steps.
        starts: who proposes curves; that with the least energy is taken.

    Raises:
        OptionError: a field is out of its range.

    Source: Rygaard, Hauberg, *GEORCE: A Fast New Control Algorithm for Computing Geodesics*, 2025, algorithm 1.

    Example:
        >>> import torch
        >>> from pullgeo import MetricManifold
        >>> plane = MetricManifold(lambda z: torch.eye(2, dtype=z.dtype).expand(len(z), 2, 2))
        >>> plane.geodesic(torch.zeros(3, 2), torch.ones(3, 2), Georce()).length
        tensor([1.4142, 1.4142, 1.4142])
    """

    tol: float = 1e-6
    segments: int = 100
    max_steps: int = 1000
    starts: tuple[Start, ...] = (StraightLine(),)

    def __post_init__(self) -> None:
        check_search("Georce", self.tol, self.segments, self.max_steps, self.starts)

    def discretised(self, space: DiscreteEnergy) -> LeftEndpoint:
        """The left-endpoint energy.

        Raises:
            OptionError: the space has no metric tensors.
        """
        return left_endpoint(space)

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """Stationary curves of the left-endpoint energy with T segments.

        Raises:
            ShapeError: given starts do not fit the pairs.
        """
        left = space if isinstance(space, LeftEndpoint) else self.discretised(space)
        nodes = propose_shortest(self.starts, single, z0, z1, self.segments)
        steps = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
        active = torch.arange(len(nodes), device=nodes.device)
        for _ in range(self.max_steps):
            if not len(active):
                break
            stepped(len(active))
            moved, done, stuck = self._step(left, nodes[active])
            nodes = nodes.index_put((active,), moved)
            steps = steps.index_put((active,), steps[active] + (~done).long())
            active = active[~(done | stuck)]
        return assess(left, nodes, self.tol, steps)

    def _step(self, left: LeftEndpoint, x: Float[Tensor, "p n d"]) -> tuple[Tensor, Tensor, Tensor]:
        """The curves after one step; which were solutions already, and which could not be improved."""
        p, n, d = x.shape
        u = x.diff(dim=1)
        G = left.metric(x[:, :-1].reshape(-1, d)).dense().reshape(p, n - 1, d, d)
        nu = _slopes(left, x[:, :-1].reshape(-1, d), u.reshape(-1, d)).reshape(p, n - 1, d)
        lowered = (G @ u.unsqueeze(-1)).squeeze(-1)
        pieces = (u * lowered).sum(2)
        gradient = nu[:, 1:] - 2 * lowered[:, 1:] + 2 * lowered[:, :-1]
        # the unit of all solvers, but for what the metric's second derivatives add there: hence half the tolerance
        trace = G.diagonal(dim1=-2, dim2=-1).sum(-1).amax(1)
        magnitude = (G.diagonal(dim1=-2, dim2=-1) * x[:, :-1].square()).sum(-1).amax(1)
        rounding = relative_rounding((n - 1) * magnitude, pieces.sum(1))
        done = reached(scale_free(gradient / 2, trace, pieces.sum(1)), rounding, self.tol / 2)
        inverse, info = torch.linalg.inv_ex(G)
        later = nu.flip(1).cumsum(1).flip(1) - nu
        known = (inverse @ later.unsqueeze(-1)).squeeze(-1)
        right = -2 * u.sum(1) - known.sum(1)
        mu, last = torch.linalg.solve_ex(inverse.sum(1), right.unsqueeze(-1))
        target = -(known + (inverse @ mu.unsqueeze(1)).squeeze(-1)) / 2
        toward = torch.nn.functional.pad((target - u).cumsum(1)[:, :-1], (0, 0, 1, 1))
        slope = (gradient * toward[:, 1:-1]).flatten(1).sum(1)
        energy = pieces.sum(1)
        open_ = ~done & (info == 0).all(1) & (last == 0) & torch.isfinite(toward).flatten(1).all(1)
        stuck = ~done & ~open_
        share = torch.ones_like(energy)
        for _ in range(HALVINGS):
            rest = open_.nonzero().squeeze(1)
            if not len(rest):
                break
            trial = x[rest] + share[rest, None, None] * toward[rest]
            new = left.energy(trial) / (n - 1)
            good = new <= energy[rest] + DECREASE * share[rest] * slope[rest].clamp(max=0)
            x = x.index_put((rest[good],), trial[good])
            open_ = open_.index_put((rest[good],), torch.zeros_like(good[good]))
            share = share.index_put((rest[~good],), share[rest[~good]] / 2)
        return x, done, stuck | open_


def _slopes(left: LeftEndpoint, z: Float[Tensor, "n d"], u: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """``∇_z (uᵀ G(z) u)``."""
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        value = left.squares(point, u)
        if not value.requires_grad:
            return torch.zeros_like(z)
        found = torch.autograd.grad(value.sum(), point, allow_unused=True)[0]
    return torch.zeros_like(z) if found is None else found
