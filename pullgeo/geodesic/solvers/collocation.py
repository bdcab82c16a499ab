"""Collocation of the geodesic equation by scipy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.integrate import solve_bvp
from torch import Tensor

from pullgeo.errors import NonFiniteError, OptionError, SingularMetricError
from pullgeo.geodesic.descent.assess import assess
from pullgeo.geodesic.energy.base import ConnectionEnergy, DiscreteEnergy
from pullgeo.geodesic.solution import Status
from pullgeo.geodesic.solver import SearchResult, check_search
from pullgeo.geodesic.solvers.proposals import propose_shortest
from pullgeo.geodesic.starts.base import Start
from pullgeo.geodesic.starts.lattice import LatticeSearch

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CollocationBVP:
    """scipy's `solve_bvp` on ``z̈ = -Γ(ż, ż)``, pair by pair, with exact derivatives.

    A cubic collocation method of order 4 with a mesh that refines itself where the residual is large. The derivative of
    Γ is taken by automatic differentiation, ``∂Γ(v, v)/∂v = 2 Γ(v, ·)`` needs none. It is independent of the
    energies that other solvers minimise, so it is a cross-check; it is slow, and what it finds may not be shortest.

    Args:
        tol: bound on the relative residual of the equation, root mean square over each interval of the mesh.
        segments: T, even: the number of segments of the curves that are returned.
        max_nodes: bound on the nodes of the mesh.
        starts: who proposes curves to begin with.

    Raises:
        OptionError: a field is out of its range.

    Source: Kierzenka, Shampine, *A BVP Solver Based on Residual Control and the MATLAB PSE*, 2001.

    Example:
        >>> import torch
        >>> from pullgeo import PullbackManifold
        >>> decoder = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Tanh(), torch.nn.Linear(5, 7))
        >>> PullbackManifold(decoder).geodesic(torch.zeros(3, 2), torch.ones(3, 2), CollocationBVP())
        Solution(3 pairs: 3 CONVERGED)
    """

    tol: float = 1e-6
    segments: int = 32
    max_nodes: int = 1000
    starts: tuple[Start, ...] = (LatticeSearch(),)

    def __post_init__(self) -> None:
        check_search("CollocationBVP", self.tol, self.segments, 1, self.starts)
        if self.max_nodes <= self.segments:
            raise OptionError(f"CollocationBVP: max_nodes must be more than segments, got {self.max_nodes}.")

    def minimise(
        self, space: DiscreteEnergy, single: DiscreteEnergy, z0: Float[Tensor, "p d"], z1: Float[Tensor, "p d"]
    ) -> SearchResult:
        """Solutions of the geodesic equation, at T + 1 times.

        Raises:
            OptionError: the space has no connection.
            ShapeError: given starts do not fit the pairs.
        """
        if not isinstance(space, ConnectionEnergy):
            raise OptionError(
                f"CollocationBVP: {type(space).__name__} has no connection. Use Newton(), which needs none."
            )
        begun = propose_shortest(self.starts, single, z0, z1, self.segments)
        nodes, residual = begun.clone(), torch.full_like(z0[:, 0], torch.inf)
        steps = torch.zeros(len(z0), dtype=torch.long, device=z0.device)
        good, singular = torch.zeros_like(steps, dtype=torch.bool), torch.zeros_like(steps, dtype=torch.bool)
        for i, curve in enumerate(begun):
            if bool((z0[i] == z1[i]).all()):
                residual[i], good[i] = 0, True
                continue
            try:
                found = self._collocate(space, curve)
            except (NonFiniteError, SingularMetricError):
                singular[i] = True
                continue
            times = np.linspace(0, 1, self.segments + 1)[1:-1]
            inner = found.sol(times)[: curve.shape[1]].T
            nodes[i, 1:-1] = torch.as_tensor(inner, dtype=z0.dtype, device=z0.device)
            residual[i], steps[i], good[i] = float(found.rms_residuals.max()), found.niter, found.status == 0
        return assess(space, nodes, self.tol, steps).solved(residual, good, singular, Status.MAX_STEPS)

    def _collocate(self, space: ConnectionEnergy, curve: Float[Tensor, "n d"]) -> Any:
        d = curve.shape[1]
        first, last = (end.detach().cpu().numpy() for end in (curve[0], curve[-1]))

        def tensors(y: Array) -> tuple[Tensor, Tensor]:
            state = torch.as_tensor(y.T, dtype=curve.dtype, device=curve.device)
            if not bool(torch.isfinite(state).all()):
                raise NonFiniteError("CollocationBVP: the curve has left the chart.")
            return state[:, :d], state[:, d:]

        def field(_: Array, y: Array) -> Array:
            z, v = tensors(y)
            return np.concatenate([y[d:], -_finite(space.connection(z, v, v)).T])

        def derivative(_: Array, y: Array) -> Array:
            z, v = tensors(y)
            by_point, by_speed = _derivatives(space, z, v)
            matrix = np.zeros((2 * d, 2 * d, len(z)))
            matrix[:d, d:] = np.eye(d)[:, :, None]
            matrix[d:, :d], matrix[d:, d:] = -_finite(by_point), -_finite(by_speed)
            return matrix

        def miss(a: Array, b: Array) -> Array:
            return np.concatenate([a[:d] - first, b[:d] - last])

        def miss_derivative(a: Array, b: Array) -> tuple[Array, Array]:
            zero, one = np.zeros((d, d)), np.eye(d)
            return np.block([[one, zero], [zero, zero]]), np.block([[zero, zero], [one, zero]])

        mesh = np.linspace(0, 1, len(curve))
        place = curve.detach().cpu().numpy().T
        guess = np.concatenate([place, np.gradient(place, mesh, axis=1)])
        with np.errstate(all="ignore"):
            return solve_bvp(
                field,
                miss,
                mesh,
                guess,
                fun_jac=derivative,
                bc_jac=miss_derivative,
                tol=self.tol,
                max_nodes=self.max_nodes,
            )


def _derivatives(space: ConnectionEnergy, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``∂Γ(v, v)/∂z`` and ``∂Γ(v, v)/∂v`` as ``[k, j, n]``."""
    n, d = z.shape
    with torch.enable_grad():
        point = z.clone().requires_grad_()
        force = space.connection(point, v, v)
        rows = [
            torch.autograd.grad(one.sum(), point, retain_graph=True, materialize_grads=True)[0]
            if force.requires_grad
            else torch.zeros_like(z)
            for one in force.unbind(1)
        ]
    basis = torch.eye(d, dtype=z.dtype, device=z.device).repeat_interleave(n, 0)
    along = 2 * space.connection(z.repeat(d, 1), v.repeat(d, 1), basis)
    return torch.stack(rows).permute(0, 2, 1), along.reshape(d, n, d).permute(2, 0, 1)


def _finite(force: Tensor) -> Array:
    if not bool(torch.isfinite(force).all()):
        raise NonFiniteError("CollocationBVP: the connection is not finite on the way.")
    return force.detach().cpu().numpy()
