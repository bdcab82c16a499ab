"""Newton's method without the second derivatives of the decoder."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import OptionError
from pullgeo.geodesic.descent.newton import Descent, descend
from pullgeo.geodesic.energy.base import DiscreteEnergy, LinearisedEnergy, QuadraticModel
from pullgeo.geodesic.solver import SearchResult, check_search
from pullgeo.geodesic.solvers.proposals import propose_shortest
from pullgeo.geodesic.starts.base import Start, StraightLine


@dataclass(frozen=True, eq=False)
class GaussNewton:
    """Levenberg and Marquardt's method: damped steps with ``2T A_ij J_iᵀ M J_j`` in place of the Hessian.

    The matrix is always positive semidefinite and costs no second derivatives, but the residual shrinks by a constant
    factor with every step only: the more the manifold bends along the curve, the more steps. `Newton` is faster on
    every decoder tried; this one is for decoders whose second derivatives are not to be had.

    Args:
        tol: bound on the scale-free residual.
        segments: T, even.
        max_steps: bound on the steps.
        starts: who proposes curves; that with the least energy is taken.

    Raises:
        OptionError: a field is out of its range.

    Source: Marquardt, *An Algorithm for Least-Squares Estimation of Nonlinear Parameters*, 1963.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> PullbackManifold(decoder).geodesic(torch.zeros(3, 2), torch.ones(3, 2), GaussNewton())
        Solution(3 pairs: 3 CONVERGED)
    """

    tol: float = 1e-8
    segments: int = 32
    max_steps: int = 500
    starts: tuple[Start, ...] = (StraightLine(),)

    def __post_init__(self) -> None:
        check_search("GaussNewton", self.tol, self.segments, self.max_steps, self.starts)

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """Discrete geodesics with T segments.

        Raises:
            OptionError: the space does not offer a linearised energy.
            ShapeError: given starts do not fit the pairs.
        """
        if not isinstance(space, LinearisedEnergy):
            raise OptionError(
                f"GaussNewton: {type(space).__name__} has no gauss_newton_energy. Use Newton(), or EnergyMinimizer()."
            )
        nodes = propose_shortest(self.starts, single, z0, z1, self.segments)
        linear = _Linearised(space)
        found = descend(linear, Descent.begin(linear, nodes), self.tol, self.max_steps)
        return found.result(self.tol)


@dataclass(frozen=True, eq=False)
class _Linearised:
    """A space that expands its energy without second derivatives."""

    space: LinearisedEnergy

    def energy(self, nodes: Tensor) -> Tensor:
        return self.space.energy(nodes)

    def expand_energy(self, nodes: Tensor) -> QuadraticModel:
        return self.space.gauss_newton_energy(nodes)

    def chord_lengths(self, layers: Tensor) -> Tensor:
        return self.space.chord_lengths(layers)
