"""What every learned manifold can do along geodesics, by the names of geoopt's contract."""

import warnings
from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.grad_mode import check_transforms
from pullgeo._torch.plain_memory import outside_inference
from pullgeo.errors import GeometryError, NonFiniteError
from pullgeo.geodesic.energy.base import DiscreteEnergy, EnergyGradient, QuadraticModel
from pullgeo.geodesic.energy.gradient import slope
from pullgeo.geodesic.energy.of_methods import NAMES, EnergyOfMethods
from pullgeo.geodesic.problem import BoundaryValue
from pullgeo.geodesic.solution import Solution
from pullgeo.geodesic.solve import solve
from pullgeo.geodesic.solver import Solver
from pullgeo.manifold import curvature, jacobi, sampling, transport
from pullgeo.manifold.bvp.transport import transport_pieces
from pullgeo.manifold.chart import Chart, rows
from pullgeo.manifold.equation import Equation
from pullgeo.manifold.exponential import follow
from pullgeo.manifold.logarithm import SETTINGS as LOGARITHMS
from pullgeo.manifold.logarithm import Logarithm, LogarithmSearch, logarithm
from pullgeo.manifold.regular import regular_geodesic
from pullgeo.numerics.progress import with_progress


class Manifold(Chart):
    """A Riemannian manifold with one chart: points are latents ``(b, d)``, tangents at them are ``(b, d)``.

    Subclasses state the metric, its connection and its discrete energy (`discretise`), and `immersion` where there is
    one; everything else follows. It is a geoopt manifold, so `geoopt.ManifoldParameter` and Riemannian optimisers take
    it. Where nothing else is said, points and tangents may have any leading dimensions ``*b``, which broadcast.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let classes that state their energy by methods, without `discretise`, work for one release more."""
        super().__init_subclass__(**kwargs)
        stated = all(getattr(cls, name) is not getattr(Manifold, name) for name in NAMES)
        if stated and cls.discretise is Manifold.discretise:
            warnings.warn(
                f"{cls.__name__}: a manifold now states its discrete energy by discretise(self), which returns an "
                "object with the methods energy, expand_energy and chord_lengths, such as "
                "pullgeo.geodesic.energy.segment.SegmentEnergy(squared_length). Methods of the class itself are taken "
                "until the next release.",
                DeprecationWarning,
                stacklevel=3,
            )
            cls.discretise = _stated_by_methods  # type: ignore[method-assign]

    @abstractmethod
    def in_double(self) -> "Manifold":
        """This manifold in float64, connected to the same weights; solvers work there."""

    @abstractmethod
    def discretise(self) -> DiscreteEnergy:
        """The discrete energy of curves that are given by their nodes; see `pullgeo.geodesic`."""

    def energy(self, nodes: Float[Tensor, "b nodes d"]) -> Float[Tensor, " b"]:
        """The discrete energy of curves given by their nodes."""
        return self.discretise().energy(nodes)

    def slope(self, nodes: Float[Tensor, "b nodes d"]) -> EnergyGradient:
        """The discrete energy with its exact gradient, without second derivatives where they can be spared."""
        return slope(self.discretise(), nodes)

    def expand_energy(self, nodes: Float[Tensor, "b nodes d"]) -> QuadraticModel:
        """The discrete energy with its exact gradient and banded Hessian."""
        return self.discretise().expand_energy(nodes)

    def chord_lengths(self, layers: Float[Tensor, "p n k d"]) -> Float[Tensor, "p s k k"]:
        """Lengths of the chords between all points of successive layers; the search for start curves uses them."""
        return self.discretise().chord_lengths(layers)

    def check_connected(self, where: str, z: Float[Tensor, "n d"]) -> None:
        """Raise where it can be told beforehand that there is no connection at any point.

        Args:
            where: the method that needs one, for the message.
            z: some points, one of which is enough.

        Raises:
            SingularMetricError: the metric is singular everywhere.
        """
        return

    @with_progress()
    def geodesic(self, z0: Tensor, z1: Tensor, solver: Solver | None = None, *, progress: bool = False) -> Solution:
        """Shortest curves between pairs of points.

        Args:
            z0: where they begin, ``(b, d)`` or ``(d,)``.
            z1: where they end, ``(b, d)`` or ``(d,)``; the two broadcast.
            solver: how to find them; `Newton()` if ``None``.
            progress: show a progress bar, counting steps.

        Returns:
            A `Solution` with the curves and, for each pair, length, energy, status, residual and error estimate.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the end points are no pairs of finite points.
            OptionError: ``solver`` is not a solver.
        """
        return solve(BoundaryValue(self, z0, z1), solver)

    def dist(self, x: Tensor, y: Tensor, *, keepdim: bool = False) -> Tensor:
        """Geodesic distances ``(*b)``, the lengths of `geodesic`, differentiable to points and to weights.

        A pair whose solver did not converge has a NaN distance: `geodesic` tells why.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the end points are no pairs of finite points.
        """
        x, y = self._together("dist", x, y)
        lead = x.shape[:-1]
        solution = self.geodesic(rows(x), rows(y))
        nan = solution.length.new_tensor(torch.nan)
        length = torch.where(solution.converged, solution.length, nan).reshape(lead)
        return length.unsqueeze(-1) if keepdim else length

    def expmap(self, x: Tensor, u: Tensor) -> Tensor:
        """``exp_x(u)``: where the geodesic from x with velocity u is after unit time.

        Solves ``∇ż/dt = 0`` in float64 by Gauss collocation: sketched piece by piece, then solved for as a whole at
        twelve and sixteen points of each piece, to a relative error of 1e-9. Where that does not settle, a Runge-Kutta
        method of order 8 (relative tolerance 1e-10) follows ``z̈ = -Γ(ż, ż)`` for at most 1000 steps. Where a decoder
        saturates its metric tends to zero: geodesics run to infinity before unit time: these are given up when they
        have come to a standstill. Where second derivatives of a decoder jump (ELU), steps end at the jumps. A backward
        pass across them raises GeometryError.

        Raises:
            ShapeError, NonFiniteError: bad points; or a geodesic leaves the region where the metric is finite.
            GeometryError: a geodesic runs over places where the metric jumps, as it does with ReLU decoders.
        """
        return self._follow("expmap", x, u)[0]

    @with_progress()
    def logarithm(self, x: Tensor, y: Tensor, *, progress: bool = False) -> Logarithm:
        """``log_x(y)`` with what is known of it: a status and an error for each pair.

        The initial velocity of the shortest geodesic from x that is at y after unit time, ``exp_x(log_x(y)) = y``. The
        discrete boundary value problem is solved first, then collocation of the geodesic equation ``z̈ = -Γ(ż, ż)``
        makes the discrete geodesic a smooth one, or multiple shooting where second derivatives jump, as with ELU.

        A pair whose `geodesic` did not converge has its status, and NaN for a vector; so has one on whose geodesic the
        metric is singular, as where the decoder ignores a latent: there is no geodesic equation. So has a pair whose
        geodesic runs over jumps of the metric, as with ReLU decoders (the speed of the solution changes on the way), or
        winds so much that a discrete curve of 256 segments does not lead to it.

        Differentiable once, to points and weights, by the implicit function theorem: the backward pass follows the
        geodesics again, and raises GeometryError where it meets jumps of second derivatives.

        Args:
            x: where geodesics begin, ``(*b, d)``.
            y: where they end; the two broadcast.
            progress: show a progress bar, counting steps.

        Returns:
            A `Logarithm`: ``vector (*b, d)``, ``error (*b)``, ``converged (*b)``, and ``status``, a tuple.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the end points are no pairs of finite points.
            SingularMetricError: the decoder has fewer outputs than latents: the metric is singular everywhere.

        Points that are nearly equal have logarithms as exact as others, down to one unit in the last place.

        Cost: one to two discrete geodesics for a smooth pair, in any number of dimensions: some hundred covariant
        derivatives, for which no metric is inverted; many times as much where second derivatives jump.

        Source: Ascher, Mattheij, Russell, *Numerical Solution of Boundary Value Problems*, chapters 4 and 5.

        Example:
            >>> import torch
            >>> from pullgeo import PullbackManifold, Status
            >>> manifold = PullbackManifold(lambda z: torch.cat([z, z**2], 1))
            >>> x, y = torch.zeros(1, 2).double(), torch.ones(1, 2).double()
            >>> log = manifold.logarithm(x, y)
            >>> log.status == (Status.CONVERGED,), bool(log.error < 1e-7)
            (True, True)
            >>> torch.allclose(manifold.expmap(x, log.vector), y)
            True
        """
        x, y = self._together("logarithm", x, y)
        found = self._logarithms("logarithm", rows(x), rows(y)).logarithm
        vector = found.vector.reshape(x.shape).to(x.dtype)
        # whatever else is known, the vector is rounded
        rounding = torch.where((vector != 0).any(-1), torch.finfo(x.dtype).eps, 0.0)
        return Logarithm(vector, found.status, torch.maximum(found.error.reshape(x.shape[:-1]), rounding))

    def _logarithms(self, where: str, x: Tensor, y: Tensor) -> LogarithmSearch:
        """Logarithms in float64, and the curves along which they were found."""
        check_transforms(where, x, y)
        double = self.in_double()
        double.check_connected(where, x[:1].double())
        geodesic = regular_geodesic(double, double.geodesic)
        return logarithm(Equation(double), double.norm, geodesic, x.double(), y.double())

    def logmap(self, x: Tensor, y: Tensor) -> Tensor:
        """``log_x(y)``: the vectors of `logarithm`, which says for each pair how well they are known.

        NaN for a pair that has none; its status in ``manifold.logarithm(x, y)`` tells why.

        Raises:
            ShapeError, DtypeError, NonFiniteError: the end points are no pairs of finite points.
            SingularMetricError: the decoder has fewer outputs than latents: the metric is singular everywhere.
        """
        return self.logarithm(x, y).vector

    def transp(self, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
        """Parallel transport of ``v`` from x to y along the geodesic between them, ``ẇ = -Γ(ż, w)``.

        NaN for a pair that `logarithm` has no velocity for. Along other curves: `parallel_transport`.
        """
        x, y, v = self._together("transp", x, y, v)
        found = self._logarithms("transp", rows(x), rows(y))
        velocity = found.logarithm.vector
        begin, end, w = (rows(a).double() for a in (x, y, v))
        equation = Equation(self.in_double())
        transported = torch.full_like(velocity, torch.nan)
        # where there is no logarithm there may be no connection either
        rest = torch.isfinite(velocity).all(1)
        for index, pieces in found.curves:
            with torch.no_grad():
                moved = transport_pieces(equation, pieces, w[index].unsqueeze(1)).squeeze(1)
            good = torch.isfinite(moved).all(1)
            index, moved, speed = index[good], moved[good], pieces.ends[good, -1, 1]
            known = (end[index].detach(), speed, moved)
            transported = transported.index_put(
                (index,), follow(equation, begin[index], velocity[index], w[index], ends=known)[2]
            )
            rest = rest.index_put((index,), torch.zeros_like(good[good]))
        index = rest.nonzero().squeeze(1)
        if len(index):
            moved = self._follow("transp", begin[index], velocity[index], w[index])[2]
            transported = transported.index_put((index,), moved)
        return transported.reshape(x.shape).to(x.dtype)

    def parallel_transport(self, curve: transport.CurveFunction, v: Tensor) -> Tensor:
        """``w(1)`` where ``ẇ = -Γ(ż, w)``, ``w(0) = v``, along any curves on [0, 1].

        Args:
            curve: times ``(m,)`` to points ``(b, m, d)``, such as a `DiscreteCurve` or the curve of a `Solution`; its
                ``velocity(t)`` is taken if it has one, else the derivative of its points.
            v: tangents at the beginning, ``(b, d)`` or ``(d,)``.

        Raises:
            ShapeError: the curves' points do not fit the tangents.
            DtypeError, NonFiniteError: the tangents are no finite floating point numbers.
            GeometryError: it is no curve; or the result does not settle, because one has corners or meets a singular
                metric.

        Cost: the connection at ``3 d n`` points for n segments, doubled until the result is settled to 1e-9.

        Example:
            >>> from pullgeo import PullbackManifold
            >>> manifold = PullbackManifold(torch.nn.Linear(2, 3).double())
            >>> def circle(t):
            ...     return torch.stack([torch.cos(6 * t), torch.sin(6 * t)], -1).unsqueeze(0)
            >>> manifold.parallel_transport(circle, torch.tensor([1.0, 2.0], dtype=torch.float64)).detach()
            tensor([[1., 2.]], dtype=torch.float64)
        """
        self._check_tensor("parallel_transport", v)
        if not callable(curve):
            raise GeometryError(
                f"{type(self).__name__}.parallel_transport: a curve maps times (m,) to points (b, m, d), got "
                f"{type(curve).__name__}. Nodes (b, n, d) are one as DiscreteCurve(nodes)."
            )
        if not bool(torch.isfinite(v).all()):
            raise NonFiniteError(f"{type(self).__name__}.parallel_transport: a tangent holds NaN or infinity.")
        b = len(curve(torch.zeros(1, dtype=v.dtype, device=v.device)))
        v = outside_inference(v)
        v = v.expand(b, -1) if v.ndim == 1 else v
        double = self.in_double().connection
        return transport.parallel_transport(double, curve, v.double()).to(v.dtype)

    def jacobi_field(
        self, x: Tensor, u: Tensor, value: Tensor, derivative: Tensor, times: Tensor | None = None
    ) -> jacobi.JacobiField:
        """Jacobi fields along ``γ(t) = exp_x(t u)``: ``∇²J/dt² + R(J, γ̇)γ̇ = 0``.

        They say how γ moves when its start moves by ``value = J(0)`` and its velocity by ``derivative = ∇J/dt(0)``, a
        covariant derivative. All four are ``(b, d)`` or ``(d,)`` and broadcast.

        Args:
            x: where geodesics begin.
            u: their velocities.
            value: ``J(0)``.
            derivative: ``∇J/dt(0)``.
            times: increasing, ``(n,)``, in [0, 1]; only 1 if ``None``.

        Raises:
            OptionError: the times are not increasing numbers in [0, 1].
            NonFiniteError: a geodesic leaves the region where the metric is finite.
        """
        double = self.in_double()
        start, *tangents = (t.double() for t in self._flat("jacobi_field", x, u, value, derivative)[1])
        self._check_points("jacobi_field", start)
        t = (x.new_ones(1) if times is None else times).double()

        def operator(z: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
            return curvature.operator(double, z, u, v, w)

        velocity, begin, slope = tangents
        field = jacobi.jacobi_field(double.connection, operator, start, velocity, begin, slope, t)
        self._check_arrived("jacobi_field", field.points)
        return field.to(x.dtype)

    def exp_differential(self, x: Tensor, u: Tensor, w: Tensor) -> Tensor:
        """``d(exp_x)_u w``: the derivative of `expmap` along ``w``: J(1) of the Jacobi field with ``∇J/dt(0) = w``.

        Raises:
            ShapeError, NonFiniteError: as for `expmap`.
        """
        lead, (x, u, w) = self._flat("exp_differential", x, u, w)
        return self.jacobi_field(x, u, torch.zeros_like(w), w).values.reshape(*lead, w.shape[-1])

    def riemann_tensor(self, z: Tensor) -> Tensor:
        """``R^l_ijk`` as ``[*b, l, i, j, k]``, component l of ``R(∂_i, ∂_j)∂_k``.

        ``R(X, Y)Z = ∇_X ∇_Y Z - ∇_Y ∇_X Z - ∇_[X,Y] Z``. With an `immersion` by the equation of Gauss,
        ``R_lijk = ⟨II_jk, II_il⟩ - ⟨II_ik, II_jl⟩``; else ``∂_i Γ^l_jk - ∂_j Γ^l_ik + Γ^l_im Γ^m_jk - Γ^l_jm Γ^m_ik``.

        Cost: d(d+1)/2 second-order passes with an immersion; else d times `christoffel` and two backward passes.
        """
        return curvature.riemann_tensor(self, rows(z)).reshape(*z.shape, *z.shape[-1:] * 3)

    def ricci(self, z: Tensor) -> Tensor:
        """``Ric_jk = R^i_ijk`` as ``[*b, j, k]``; ``(d - 1)/r² G`` on a sphere of radius r.

        Cost: as `riemann_tensor`.
        """
        return curvature.ricci(self, rows(z)).reshape(*z.shape, z.shape[-1])

    def scalar_curvature(self, z: Tensor) -> Tensor:
        """``S = G^jk Ric_jk``, ``(*b)``; ``d(d - 1)/r²`` on a sphere of radius r. Cost: as `riemann_tensor`."""
        return curvature.scalar_curvature(self, rows(z)).reshape(z.shape[:-1])

    def sectional_curvature(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``⟨R(u, v)v, u⟩ / (‖u‖² ‖v‖² - ⟨u, v⟩²)``, ``(*b)``; ``+1/r²`` on a sphere, NaN where u, v span no plane.

        Cost: three second-order passes with an `immersion`, two connections and their derivatives otherwise.

        Example:
            >>> import torch
            >>> from pullgeo import PullbackManifold
            >>> def saddle(z):  # (x, y, xy)
            ...     return torch.cat([z, z[:, :1] * z[:, 1:]], 1)
            >>> PullbackManifold(saddle).sectional_curvature(torch.zeros(1, 2), *torch.eye(2))
            tensor([-1.])
        """
        lead, (z, u, v) = self._flat("sectional_curvature", z, u, v)
        return curvature.sectional_curvature(self, z, u, v).reshape(lead)

    def second_fundamental_form(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``II(u, v) = f''(u, v) - J G⁻¹ JᵀM f''(u, v)``, ``(*b, D)``: the normal part of the second derivative.

        Raises:
            GeometryError: the manifold is not immersed in a flat space.
            SingularMetricError: the decoder squashes a direction at a point.
        """
        lead, (z, u, v) = self._flat("second_fundamental_form", z, u, v)
        immersion = self.immersion(z)
        if immersion is None:
            raise GeometryError(
                f"{type(self).__name__}.second_fundamental_form: expected a manifold immersed in a flat space by a "
                "decoder, got one that is given by its metric or whose ambient space is curved. riemann_tensor and "
                "sectional_curvature serve every manifold."
            )
        return immersion.second_form(u.unsqueeze(0), v.unsqueeze(0)).reshape(*lead, immersion.tangents.shape[2])

    @with_progress()
    def random_walk(
        self, z: Tensor, steps: int, step_size: float, generator: torch.Generator, *, progress: bool = False
    ) -> Tensor:
        """Brownian motion from each point, ``(*b, steps + 1, d)`` with the start: the process generated by ``½ Δ``.

        In the chart its noise has the covariance ``step_size G⁻¹`` and its drift is ``-½ step_size G^ij Γ^k_ij``. Both
        are exact to first order in ``step_size``, which is a time.

        Raises:
            OptionError: ``steps`` is negative or ``step_size`` is not positive.
            SingularMetricError, NonFiniteError: a walk came to where the metric is singular or not finite.

        Cost: one metric and one connection a step, for all walks together. The walks are differentiable in the points
        and the weights, so that all steps are kept for a backward pass: walk under ``torch.no_grad()`` if none follows.
        """
        self._check_tensor("random_walk", z)
        path = sampling.random_walk(self, rows(z), steps, step_size, generator)
        return path.reshape(*z.shape[:-1], steps + 1, z.shape[-1])

    @with_progress()
    def sample(
        self,
        log_density: sampling.LogDensity,
        z: Tensor,
        steps: int,
        step_size: float,
        generator: torch.Generator,
        *,
        burn_in: int = 0,
        thin: int = 1,
        progress: bool = False,
    ) -> sampling.Samples:
        """Samples of a density with respect to the Riemannian volume, by Langevin steps that are accepted or rejected.

        The chains' law tends to ``π dvol``, which is ``π √det G dz`` in the chart, whatever the step size.

        Args:
            log_density: points ``(b, d)`` to ``log π`` ``(b,)`` up to a constant; minus infinity outside its domain,
                where the metric is then not evaluated. ``lambda z: z.new_zeros(len(z))`` is uniform in volume.
            z: where chains begin, ``(b, d)``.
            steps: number of samples kept of each chain.
            step_size: the time that a step takes; see `Samples.acceptance_rate`.
            generator: source of randomness.
            burn_in: number of steps to forget first.
            thin: number of steps from one sample to the next.
            progress: show a progress bar, counting steps.

        Raises:
            OptionError, ShapeError, NonFiniteError: a bad option, density or start.
            SingularMetricError: a chain came to where the metric is not positive definite.

        Cost: one metric and d connections a step, for all chains together.

        Source: Girolami, Calderhead, *Riemann manifold Langevin and Hamiltonian Monte Carlo methods*, JRSS B 2011,
        section 5, with the drift of Xifara et al., *Langevin diffusions and the Metropolis-adjusted Langevin
        algorithm*, 2014.
        """
        self._check_points("sample", z)
        return sampling.sample(self, log_density, z, steps, step_size, generator, burn_in=burn_in, thin=thin)

    def expmap_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``exp_x(u)`` and the parallel transport of ``v`` there, in one integration."""
        end, _, transported = self._follow("expmap_transp", x, u, v)
        return end, transported

    def transp_follow_expmap(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """Parallel transport of ``v`` along ``t -> exp_x(t u)`` to ``t = 1``."""
        return self.expmap_transp(x, u, v)[1]

    def _follow(self, where: str, x: Tensor, u: Tensor, *transported: Tensor) -> tuple[Tensor, ...]:
        lead, flat = self._flat(where, x, u, *transported)
        flat = [t.double() for t in flat]
        self._check_points(where, flat[0])
        double = self.in_double()
        ends = follow(Equation(double), *flat)
        self._check_arrived(where, ends[0])
        with torch.no_grad():
            self._check_speed(where, double.norm(flat[0], flat[1]), double.norm(ends[0], ends[1]))
        return tuple(end.reshape(*lead, x.shape[-1]).to(x.dtype) for end in ends)

    def _check_arrived(self, where: str, ends: Tensor) -> None:
        lost = ~torch.isfinite(ends).flatten(1).all(1)
        if bool(lost.any()):
            raise NonFiniteError(
                f"{type(self).__name__}.{where}: {int(lost.sum())} of {len(ends)} geodesics, the first at index "
                f"{int(lost.nonzero()[0])}, left the region where the metric is finite and regular before unit time, "
                "or bend too sharply to be followed. Shoot with a shorter tangent vector, regularise the metric far "
                "away from the data, or use an activation with continuous second derivatives."
            )

    def _check_speed(self, where: str, before: Float[Tensor, " b"], after: Float[Tensor, " b"]) -> None:
        changed = (after - before).abs() > LOGARITHMS.same_speed * torch.maximum(before, after)
        if bool(changed.any()):
            raise GeometryError(
                f"{type(self).__name__}.{where}: {int(changed.sum())} of {len(before)} geodesics, the first at index "
                f"{int(changed.nonzero()[0])}, change their speed, so they run over places where the metric jumps. The "
                "geodesic equation does not see the kinks of ReLU and similar activations: use a smooth activation "
                "such as Softplus or SiLU. geodesic() and dist() need none."
            )


def _stated_by_methods(self: Manifold) -> DiscreteEnergy:
    return EnergyOfMethods(self.energy, self.expand_energy, self.chord_lengths)
