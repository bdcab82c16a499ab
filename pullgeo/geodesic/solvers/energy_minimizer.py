"""Any optimiser of torch on the discrete energy."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.gradient_of import gradient_of
from pullgeo.curve.discrete import DiscreteCurve
from pullgeo.errors import OptionError
from pullgeo.geodesic.descent.assess import assess
from pullgeo.geodesic.energy.base import DiscreteEnergy
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult, check_search
from pullgeo.geodesic.solvers.proposals import propose_shortest
from pullgeo.geodesic.starts.base import Start, StraightLine
from pullgeo.numerics.progress import stepped

OptimizerFactory = Callable[[list[Tensor]], torch.optim.Optimizer]


def lbfgs(parameters: list[Tensor]) -> torch.optim.Optimizer:
    """L-BFGS with a line search, twenty iterations for each of a solver's steps, which alone decides when to stop."""
    return torch.optim.LBFGS(
        parameters,
        max_iter=20,
        history_size=20,
        tolerance_grad=0.0,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )


@dataclass(frozen=True, eq=False)
class EnergyMinimizer:
    """Minimises the discrete energy by first-order steps, over the nodes of a curve or over a spline's.

    Simple, needs first derivatives alone, and slow: the energy's condition number grows with T², and no optimiser of
    first order reaches the tolerances of `Newton`. All pairs are parameters of one optimiser, each energy in units of
    the one that it begins with; an optimiser with a common line search, such as L-BFGS, couples their steps.

    Args:
        tol: bound on the scale-free residual.
        segments: T, even.
        max_steps: bound on the optimiser's steps.
        starts: who proposes curves; that with the least energy is taken.
        optimizer: makes an optimiser of a list of parameters, as ``lambda p: torch.optim.Adam(p, lr=1e-2)`` does.
        knots: number of pieces of the cubic splines that are searched; the nodes are free if ``None``. The residual is
            then that of the energy among such splines, and the error estimate tells what more freedom might gain.

    Raises:
        OptionError: a field is out of its range.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> solver = EnergyMinimizer(tol=1e-3, optimizer=lambda p: torch.optim.Adam(p, lr=1e-3), knots=8)
        >>> len(PullbackManifold(decoder).geodesic(torch.zeros(3, 2), torch.ones(3, 2), solver))
        3
    """

    tol: float = 1e-5
    segments: int = 32
    max_steps: int = 200
    starts: tuple[Start, ...] = (StraightLine(),)
    optimizer: OptimizerFactory = lbfgs
    knots: int | None = None

    def __post_init__(self) -> None:
        check_search("EnergyMinimizer", self.tol, self.segments, self.max_steps, self.starts)
        if not callable(self.optimizer):
            raise OptionError(
                "EnergyMinimizer: optimizer must make an optimiser of a list of parameters, as "
                f"lambda p: torch.optim.Adam(p) does; got {self.optimizer!r}."
            )
        if self.knots is not None and not 2 <= self.knots <= self.segments:
            raise OptionError(f"EnergyMinimizer: knots must lie between 2 and segments, got {self.knots}.")

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """Discrete geodesics with T segments, or the splines that come nearest.

        Raises:
            ShapeError: given starts do not fit the pairs.
        """
        nodes = propose_shortest(self.starts, single, z0, z1, self.segments)
        steps = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
        found = assess(space, nodes, self.tol, steps)
        # the residual's unit changes little from the first curve to the last, on which the last word is spoken
        size = slope(space, nodes).gradient.flatten(1).norm(dim=1)
        unit = torch.where(size > 0, found.residual / size, 0.0)
        whole = nodes if self.knots is None else DiscreteCurve(nodes).resample(self.knots).nodes
        inner = whole[:, 1:-1].clone().requires_grad_()
        scale = torch.where(torch.isfinite(found.energy) & (found.energy > 0), found.energy, 1.0)
        optimizer = self.optimizer([inner])

        def curve(inner: Tensor) -> Tensor:
            ends = torch.cat([z0.unsqueeze(1), inner, z1.unsqueeze(1)], 1)
            return ends if self.knots is None else DiscreteCurve(ends).resample(self.segments).nodes

        @torch.enable_grad()
        def closure() -> float:
            energy = space.energy(curve(inner)) / scale
            change = gradient_of(energy, inner)
            # a curve that has left the decoder's domain stays there and leaves the others alone
            finite = torch.isfinite(energy.detach())
            inner.grad = torch.where(finite[:, None, None] & torch.isfinite(change), change, 0.0)
            return float(energy.detach()[finite].sum())

        def residual() -> Tensor:
            closure()
            return unit * scale * inner.grad.flatten(1).norm(dim=1)  # type: ignore[union-attr]

        left = residual() > self.tol
        for _ in range(self.max_steps):
            if not bool(left.any()):
                break
            stepped(int(left.sum()))
            optimizer.step(closure)
            steps = steps + left
            left = residual() > self.tol
        reached = residual()
        found = assess(space, curve(inner).detach(), self.tol, steps)
        if self.knots is not None:
            settled = found.ended(Status.MAX_STEPS) & (reached <= self.tol)
            return replace(found, residual=reached).ending(settled, Status.CONVERGED)
        return found
