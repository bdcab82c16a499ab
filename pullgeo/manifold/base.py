"""What every learned manifold can do: geoopt's contract, geodesics and volume."""

from abc import abstractmethod

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo.errors import DtypeError, NonFiniteError, ShapeError
from pullgeo.geodesic import BoundaryValue, EnergyExpansion, Newton, Solution, Solver, solve
from pullgeo.manifold.initial_value import polish, shoot
from pullgeo.metric import Metric


class Manifold(geoopt.Manifold):
    """A Riemannian manifold with one chart: points are latents ``(b, d)``, tangents at them are ``(b, d)``.

    Subclasses state the metric, its connection and its discrete energy; everything else follows. It is a geoopt
    manifold, so `geoopt.ManifoldParameter` and Riemannian optimisers take it. Where nothing else is said, points and
    tangents may have any leading dimensions, which broadcast.
    """

    name = "learned"
    ndim = 1
    reversible = False

    @abstractmethod
    def metric(self, z: Tensor) -> Metric:
        """The metric tensors ``G(z)`` at a batch of points."""

    @abstractmethod
    def connection(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``Γ(u, w)``, with components ``Γ^k_ij u^i w^j``: the Levi-Civita connection in the chart."""

    @abstractmethod
    def in_double(self) -> "Manifold":
        """This manifold in float64, connected to the same weights; solvers work there."""

    @abstractmethod
    def energy(self, nodes: Float[Tensor, "b nodes d"]) -> Float[Tensor, " b"]:
        """The discrete energy of curves given by their nodes; see `pullgeo.geodesic`."""

    @abstractmethod
    def expand_energy(self, nodes: Float[Tensor, "b nodes d"]) -> EnergyExpansion:
        """The discrete energy with its exact gradient and block-tridiagonal Hessian."""

    @abstractmethod
    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths of the chords between all points of successive layers; the search for start curves uses them."""

    def geodesic(self, z0: Tensor, z1: Tensor, solver: Solver | None = None) -> Solution:
        """Shortest curves between pairs of points.

        Args:
            z0: where they begin, ``(b, d)`` or ``(d,)``.
            z1: where they end, ``(b, d)`` or ``(d,)``; the two broadcast.
            solver: how to find them; `Newton()` if ``None``.

        Returns:
            A `Solution` with the curves and, for each pair, length, energy, status, residual and error estimate.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the end points are no pairs of finite points.
        """
        return solve(BoundaryValue(self, z0, z1), solver if solver is not None else Newton())

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Geodesic distances ``(*b)``, the lengths of `geodesic`, differentiable to points and to weights.

        A pair whose solver did not converge has a NaN distance: `geodesic` tells why.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the end points are no pairs of finite points.
        """
        x, y = torch.broadcast_tensors(x, y)
        lead = x.shape[:-1]
        solution = self.geodesic(x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]))
        nan = solution.length.new_tensor(torch.nan)
        length = torch.where(solution.converged, solution.length, nan).reshape(lead)
        return length.unsqueeze(-1) if keepdim else length

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """``uᵀ G(x) v``; ``v`` is ``u`` if it is ``None``.

        Raises:
            ShapeError: a tangent has another dimension than the point.
        """
        v = u if v is None else v
        self._check_tangents("inner", x, u)
        self._check_tangents("inner", x, v)
        same = v is u
        x, u, v = torch.broadcast_tensors(x, u, v)
        flat_u = u.reshape(-1, u.shape[-1])
        flat_v = flat_u if same else v.reshape(-1, v.shape[-1])
        value = self.metric(x.reshape(-1, x.shape[-1])).inner(flat_u, flat_v).reshape(x.shape[:-1])
        return value.unsqueeze(-1) if keepdim else value

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """``√(uᵀ G(x) u)``."""
        return self.inner(x, u, keepdim=keepdim).clamp(min=0).sqrt()

    def log_volume(self, z: Tensor) -> Tensor:
        """``½ log det G(z)``, the logarithm of the Riemannian volume density in the chart; ``-inf`` where singular.

        Cost: d tangent passes and a d x d factorisation per point.
        """
        return self.metric(z.reshape(-1, z.shape[-1])).logdet().reshape(z.shape[:-1]) / 2

    def christoffel(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d d"]:
        """``Γ^k_ij`` as ``[b, k, i, j]``, symmetric in i and j. Cost: d(d+1)/2 connections in one batch."""
        b, d = z.shape
        i, j = torch.triu_indices(d, d)
        basis = torch.eye(d, dtype=z.dtype, device=z.device)
        n = len(i)
        u, w = (basis[k].unsqueeze(1).expand(n, b, d).reshape(-1, d) for k in (i, j))
        gamma = self.connection(z.repeat(n, 1), u, w).reshape(n, b, d)
        full = z.new_zeros(d, d, b, d).index_put((i, j), gamma).index_put((j, i), gamma)
        return full.permute(2, 3, 0, 1)

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """``exp_x(u)``: where the geodesic from x with velocity u is after unit time.

        Solves ``z̈ = -Γ(ż, ż)`` in float64 by an adaptive Runge-Kutta method of order 5 (relative tolerance 1e-9).

        Raises:
            ShapeError, NonFiniteError: bad points; or a geodesic leaves the region where the metric is finite.
        """
        return self._follow("expmap", x, u)[0]

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """``log_x(y)``: the initial velocity of the shortest geodesic from x that is at y after unit time.

        The boundary value problem is solved first, then Newton's method on the initial velocity makes
        ``expmap(x, logmap(x, y)) = y`` to integration accuracy. NaN for a pair that did not converge. Not
        differentiable: the result carries no graph.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the end points are no pairs of finite points.
        """
        x, y = torch.broadcast_tensors(x, y)
        with torch.no_grad():
            start, target = (p.reshape(-1, p.shape[-1]) for p in (x, y))
            solution = self.geodesic(start.double(), target.double())
            velocity = solution.curve.velocity(torch.zeros(1, dtype=torch.float64, device=x.device)).squeeze(1)
            keep = solution.converged & (start != target).any(-1)
            double = self.in_double()
            polished, miss = polish(double.connection, start[keep].double(), target[keep].double(), velocity[keep])
            polished = torch.where((miss < 1e-6).unsqueeze(-1), polished, torch.nan)
            result = torch.where(solution.converged.unsqueeze(-1), 0.0, torch.full_like(velocity, torch.nan))
            result[keep] = polished
        return result.reshape(x.shape).to(x.dtype)

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Parallel transport of ``v`` from x to y along the geodesic between them, ``ẇ = -Γ(ż, w)``.

        NaN for a pair whose geodesic did not converge. Differentiable with respect to ``v``.
        """
        x, y, v = torch.broadcast_tensors(x, y, v)
        velocity = self.logmap(x, y)
        found = torch.isfinite(velocity)
        carried = self._follow("transp", x, torch.where(found, velocity, 0.0), v)[2]
        return torch.where(found, carried, torch.nan)

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """``x + u``: the chart's first-order step; use `expmap` for the exact one."""
        return x + u

    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``exp_x(u)`` and the parallel transport of ``v`` there, in one integration."""
        end, _, carried = self._follow("expmap_transp", x, u, v)
        return end, carried

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Parallel transport of ``v`` along ``t -> exp_x(t u)`` to ``t = 1``."""
        return self.expmap_transp(x, u, v)[1]

    def transp_follow_retr(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``v`` itself: transport that goes with the chart's first-order step, to first order."""
        return v

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`retr` and `transp_follow_retr` together."""
        return self.retr(x, u), v

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """``u``: every vector of the chart is tangent."""
        return u

    def projx(self, x: Tensor) -> Tensor:
        """``x``: every point of the chart is on the manifold."""
        return x

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """``G(x)⁻¹ u``: the Riemannian gradient.

        Raises:
            SingularMetricError: the metric is singular at a point.
        """
        x, u = torch.broadcast_tensors(x, u)
        return self.metric(x.reshape(-1, x.shape[-1])).solve(u.reshape(-1, u.shape[-1])).reshape(u.shape)

    def _follow(self, where: str, x: Tensor, u: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
        for tangent in (u, *carried):
            self._check_tangents(where, x, tangent)
        x, u, *rest = torch.broadcast_tensors(x, u, *carried)
        flat = [t.reshape(-1, t.shape[-1]).double() for t in (x, u, *rest)]
        self._check_points(where, flat[0])
        return tuple(end.reshape(x.shape).to(x.dtype) for end in shoot(self.in_double().connection, *flat))

    def _check_points(self, where: str, z: Tensor) -> None:
        if z.ndim != 2:
            raise ShapeError(
                f"{type(self).__name__}.{where}: points must have shape (b, d), got {tuple(z.shape)}. "
                + ("Add a batch dimension: z[None]." if z.ndim < 2 else "Flatten the leading dimensions.")
            )
        if not z.is_floating_point():
            raise DtypeError(f"{type(self).__name__}.{where}: points must be floating point, got {z.dtype}.")
        bad = ~torch.isfinite(z).all(1)
        if bool(bad.any()):
            raise NonFiniteError(
                f"{type(self).__name__}.{where}: {int(bad.sum())} of {len(z)} points hold NaN or infinity, the first "
                f"at index {int(bad.nonzero()[0])}. Drop them or mend what made them."
            )

    def _check_tangents(self, where: str, x: Tensor, u: Tensor) -> None:
        if x.ndim == 0 or u.shape[-1:] != x.shape[-1:]:
            raise ShapeError(
                f"{type(self).__name__}.{where}: tangents must have the points' last dimension; points are "
                f"{tuple(x.shape)}, tangents {tuple(u.shape)}. Tangents of the latent space are latent vectors."
            )

    def _check_point_on_manifold(self, x: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5) -> tuple[bool, str | None]:
        good = bool(torch.isfinite(x).all())
        return good, None if good else "the point holds NaN or infinity"

    def _check_vector_on_tangent(
        self, x: Tensor, u: Tensor, *, atol: float = 1e-5, rtol: float = 1e-5
    ) -> tuple[bool, str | None]:
        good = u.shape[-1:] == x.shape[-1:]
        return good, None if good else "the tangent has another dimension than the point"
