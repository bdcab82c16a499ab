"""Newton's method on the initial velocity."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic.descent.assess import assess
from pullgeo.geodesic.energy.base import ConnectionEnergy, DiscreteEnergy
from pullgeo.geodesic.singular import singular_at
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult, check_search
from pullgeo.geodesic.solvers.proposals import propose_shortest
from pullgeo.geodesic.starts.base import Start
from pullgeo.geodesic.starts.lattice import LatticeSearch
from pullgeo.numerics.bisect_batch import where_defined
from pullgeo.numerics.damped_newton import STEP_LENGTH, TWICE, Iterate, damped_newton
from pullgeo.numerics.ode.rk4 import Connection, flow

PROBE = 1e-6
"""Change of the velocity, relative to it, by which end points are differentiated."""

DAMPING = replace(STEP_LENGTH, limit=2.0**12)
"""Of corrections of the velocity."""


@dataclass(frozen=True, eq=False)
class Shooting:
    """Shoots geodesics from the first point and corrects their initial velocity until they meet the second.

    The unknown is one vector, whatever the resolution, and what is found solves the geodesic equation itself: the
    residual is the miss ``‖exp_z0(v) - z1‖ / ‖z1 - z0‖``. But it needs the equation, and so an invertible metric all
    the way; and a shot reacts the more to its velocity the longer and the more bent the way, until no correction
    helps. It suits short geodesics and known initial velocities. What it finds may be a geodesic that is not shortest.

    Args:
        tol: bound on the miss.
        segments: T, even: the number of segments of the curves that are returned.
        max_steps: bound on the corrections of the velocity.
        starts: who proposes curves, whose first velocities are corrected.
        substeps: Runge-Kutta steps for each segment.

    Raises:
        OptionError: a field is out of its range.

    Cost: each step shoots d + 1 geodesics for each pair in one batch, ``4 T substeps`` connections each.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> PullbackManifold(decoder).geodesic(torch.zeros(3, 2), torch.ones(3, 2), Shooting())
        Solution(3 pairs: 3 CONVERGED)
    """

    tol: float = 1e-8
    segments: int = 32
    max_steps: int = 30
    starts: tuple[Start, ...] = (LatticeSearch(),)
    substeps: int = 1

    def __post_init__(self) -> None:
        check_search("Shooting", self.tol, self.segments, self.max_steps, self.starts)
        if self.substeps < 1:
            raise OptionError(f"Shooting: substeps must be at least 1, got {self.substeps}.")

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """Solutions of the geodesic equation, at T + 1 times.

        Raises:
            OptionError: the space has no connection.
            ShapeError: given starts do not fit the pairs.
        """
        if not isinstance(space, ConnectionEnergy):
            raise OptionError(f"Shooting: {type(space).__name__} has no connection. Use Newton(), which needs none.")

        def connection(z: Tensor, u: Tensor, w: Tensor) -> Tensor:
            return where_defined(space.connection, z.shape[1:], z, u, w)

        begun = propose_shortest(self.starts, single, z0, z1, self.segments)
        # without a metric that can be inverted there is no equation, and nothing to shoot along
        nowhere = singular_at(space, begun)
        hopeless = nowhere[:, 0] | nowhere[:, 1:].all(1)
        velocity = DiscreteCurve(begun).velocity(torch.zeros(1, dtype=z0.dtype, device=z0.device)).squeeze(1)
        reach = (z1 - z0).norm(dim=1)
        reach = torch.where(reach > 0, reach, 1.0)
        regular = (~hopeless).nonzero().squeeze(1)
        nodes, miss = begun, torch.full_like(reach, torch.inf)
        steps = torch.zeros(len(z0), dtype=torch.long, device=z0.device)
        if len(regular):
            problem = _Velocities(connection, self.tol, self.segments, self.substeps)
            shots = problem.begin(z0[regular], z1[regular], velocity[regular], reach[regular])
            shots = damped_newton(problem, shots, DAMPING, self.max_steps)
            nodes, miss = nodes.index_put((regular,), shots.nodes), miss.index_put((regular,), shots.miss)
            steps = steps.index_put((regular,), shots.steps)
        good = miss <= self.tol
        # what misses by less than the tolerance is made to fit exactly, for the end points are the problem's
        shot = torch.cat([z0.unsqueeze(1), nodes[:, 1:-1], z1.unsqueeze(1)], 1)
        found = assess(space, torch.where(good[:, None, None], shot, begun), self.tol, steps)
        singular = hopeless.clone()
        if bool((~good & ~hopeless).any()):
            rest = (~good & ~hopeless).nonzero().squeeze(1)
            force = connection(*(begun[rest].flatten(0, 1),) * 3).reshape(len(rest), -1)
            singular = singular.index_put((rest,), ~torch.isfinite(force).all(1))
        return found.solved(miss, good, singular, Status.MISSED)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Shots(Iterate):
    """Geodesics from ``z0`` that are to meet ``z1``.

    Attributes:
        z0: where they begin.
        z1: where they should end.
        reach: how far that is, the unit of misses.
        velocity: with which they begin.
        nodes: on their way.
        derivative: of their ends with respect to the velocity.
        miss: how far from ``z1`` they end.
    """

    z0: Float[Tensor, "p d"]
    z1: Float[Tensor, "p d"]
    reach: Float[Tensor, " p"]
    velocity: Float[Tensor, "p d"]
    nodes: Float[Tensor, "p n d"]
    derivative: Float[Tensor, "p d d"]
    miss: Float[Tensor, " p"]


@dataclass(frozen=True, eq=False)
class _Velocities:
    """Corrections of initial velocities."""

    connection: Connection
    tol: float
    segments: int
    substeps: int

    def begin(self, z0: Tensor, z1: Tensor, velocity: Tensor, reach: Tensor) -> _Shots:
        nodes, derivative = self._shoot(z0, velocity)
        return _Shots(
            z0=z0,
            z1=z1,
            reach=reach,
            velocity=velocity,
            nodes=nodes,
            derivative=derivative,
            miss=(nodes[:, -1] - z1).norm(dim=1) / reach,
            **DAMPING.begin(reach),
        )

    def done(self, now: _Shots) -> Bool[Tensor, " p"]:
        return ~(now.miss > self.tol)

    def step(self, now: _Shots) -> tuple[_Shots, Tensor, Tensor]:
        correction, info = torch.linalg.solve_ex(now.derivative, (now.z1 - now.nodes[:, -1]).unsqueeze(-1))
        share = 1 / now.damping
        velocity = now.velocity + share.unsqueeze(1) * correction.squeeze(-1)
        nodes, derivative = self._shoot(now.z0, velocity)
        miss = (nodes[:, -1] - now.z1).norm(dim=1) / now.reach
        good = (info == 0) & (miss < (1 - share / 4) * now.miss)
        new = replace(now, velocity=velocity, nodes=nodes, derivative=derivative, miss=miss)
        return new.where(good, now), good, torch.full_like(miss, TWICE)

    def _shoot(self, z: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
        """The curves, and the derivatives of their ends with respect to the velocity, by d shots nearby."""
        b, d = z.shape
        probe = PROBE * velocity.norm(dim=1).clamp(min=torch.finfo(z.dtype).tiny)
        beside = probe[:, None, None] * torch.eye(d, dtype=z.dtype, device=z.device)
        bundle = torch.cat([velocity.unsqueeze(1), velocity.unsqueeze(1) + beside], 1)
        start = z.repeat_interleave(d + 1, 0)
        nodes = flow(self.connection, start, bundle.reshape(-1, d), self.segments, self.substeps).unflatten(
            0, (b, d + 1)
        )
        ends = nodes[:, :, -1]
        return nodes[:, 0], ((ends[:, 1:] - ends[:, :1]) / probe[:, None, None]).mT
