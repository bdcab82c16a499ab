"""What a learned manifold states, and what follows at a point: inner products, volume, connection, simple steps."""

import math
from abc import abstractmethod

import geoopt
import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.plain_memory import outside_inference
from pullgeo._torch.transforms import is_mapped
from pullgeo.errors import DtypeError, GradModeError, NonFiniteError, ShapeError
from pullgeo.manifold import volume
from pullgeo.manifold.second_fundamental import Immersion
from pullgeo.metric.base import Metric


class Chart(geoopt.Manifold):
    """R^d, or a region of it, with a metric ``G(z)``: what subclasses of `Manifold` state, and its local geometry."""

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

    def lowered_derivative(
        self, z: Float[Tensor, "b d"], u: Float[Tensor, "b d"], w: Float[Tensor, "b d"], rate: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """``G (ẇ + Γ(ż, w))`` with ``ż = u``, ``ẇ = rate``: a covariant derivative along a curve, as a covector.

        It vanishes for velocities along geodesics, and for tangents that are transported in parallel. Solvers of these
        equations ask for it at all times of a curve at once; subclasses override it where it costs less than a
        connection, for no metric has to be inverted.
        """
        return self.metric(z).apply(rate + self.connection(z, u, w))

    def metric_matrix(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d d"]:
        """``G(z)`` written out, without checks: it may be singular."""
        return self.metric(z).dense().expand(len(z), -1, -1)

    def immersion(self, z: Float[Tensor, "b d"]) -> Immersion | None:
        """The map into flat space whose pullback the metric is, to second order at points; ``None`` if there is none.

        Curvature then takes two derivatives of the map instead of three, and none of the metric.
        """
        return None

    def inner(self, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False) -> Tensor:
        """``uᵀ G(x) v``; ``v`` is ``u`` if it is ``None``.

        Raises:
            ShapeError: a tangent has another dimension than the point.
        """
        v = u if v is None else v
        self._check_tangents("inner", x, u)
        self._check_tangents("inner", x, v)
        same = v is u
        x, u, v = self._together("inner", x, u, v)
        flat_u = rows(u)
        flat_v = flat_u if same else rows(v)
        value = self.metric(rows(x)).inner(flat_u, flat_v).reshape(x.shape[:-1])
        return value.unsqueeze(-1) if keepdim else value

    def norm(self, x: Tensor, u: Tensor, *, keepdim: bool = False) -> Tensor:
        """``√(uᵀ G(x) u)``, with the derivative zero where it vanishes."""
        square = self.inner(x, u, keepdim=keepdim)
        positive = square > 0
        return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0 * square.detach())

    def log_volume(self, z: Tensor) -> Tensor:
        """``½ log det G(z)``, the logarithm of the Riemannian volume density in the chart; ``-inf`` where singular.

        Cost: d tangent passes and a d x d factorisation per point.
        """
        return self.metric(rows(z)).logdet().expand(z.shape[:-1].numel()).reshape(z.shape[:-1]) / 2

    def condition_number(self, z: Tensor) -> Tensor:
        """``λ_max / λ_min`` of the eigenvalues of ``G(z)``, ``(*b)``; infinite where G is singular.

        Its square root is by how much the longest and the shortest vector differ that have the same length in the
        chart. Cost: d tangent passes and the eigenvalues of a d x d matrix per point.
        """
        return volume.condition_number(self.metric(rows(z))).expand(z.shape[:-1].numel()).reshape(z.shape[:-1])

    def laplace_beltrami(self, function: volume.ScalarField, z: Tensor) -> Tensor:
        """``Δf = G^ij (∂_i ∂_j f - Γ^k_ij ∂_k f)`` of a function, ``(*b)``; eigenvalues on a sphere are negative.

        Args:
            function: points ``(n, d)`` to numbers ``(n,)``, point by point, composed of torch operations.
            z: where, ``(*b, d)``.

        Raises:
            ShapeError: the function does not return one number per point.
            SingularMetricError: G is not positive definite at a point.

        Cost: d connections in one batch, and d backward passes through the gradient of the function.
        """
        value = volume.laplace_beltrami(self.metric, self.connection, function, rows(z))
        return value.reshape(z.shape[:-1])

    def christoffel(self, z: Tensor) -> Tensor:
        """``Γ^k_ij`` as ``[*b, k, i, j]``, symmetric in i and j. Cost: d(d+1)/2 connections in one batch."""
        points = rows(z)
        b, d = points.shape
        i, j = torch.triu_indices(d, d)
        basis = torch.eye(d, dtype=z.dtype, device=z.device)
        n = len(i)
        u, w = (basis[k].unsqueeze(1).expand(n, b, d).reshape(-1, d) for k in (i, j))
        gamma = self.connection(points.repeat(n, 1), u, w).reshape(n, b, d)
        full = z.new_zeros(d, d, b, d).index_put((i, j), gamma).index_put((j, i), gamma)
        return full.permute(2, 3, 0, 1).reshape(*z.shape, d, d)

    def egrad2rgrad(self, x: Tensor, u: Tensor) -> Tensor:
        """``G(x)⁻¹ u``: the Riemannian gradient.

        Raises:
            SingularMetricError: the metric is singular at a point.
        """
        x, u = self._together("egrad2rgrad", x, u)
        return self.metric(rows(x)).solve(rows(u)).reshape(u.shape)

    def random(
        self,
        *size: int | tuple[int, ...],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> geoopt.ManifoldTensor:
        """Standard normal points of the chart, as the latents of most decoders are; `sample` knows of the metric.

        Args:
            size: the shape of the points, the last dimension d.
            dtype: torch's default if ``None``.
            device: torch's default if ``None``.
            generator: source of randomness; torch's own if ``None``.

        Raises:
            ShapeError: the shape is empty.
        """
        shape = self._shape("random", *size)
        return self._points(torch.randn(shape, dtype=dtype, device=device, generator=generator))

    def origin(
        self,
        *size: int | tuple[int, ...],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        seed: int | None = 42,
    ) -> geoopt.ManifoldTensor:
        """Points at the origin of the chart; the seed is geoopt's, and not needed.

        Raises:
            ShapeError: the shape is empty.
        """
        return self._points(torch.zeros(self._shape("origin", *size), dtype=dtype, device=device))

    def retr(self, x: Tensor, u: Tensor) -> Tensor:
        """``x + u``: the chart's first-order step; use `expmap` for the exact one."""
        x, u = self._together("retr", x, u)
        return x + u

    def transp_follow_retr(self, x: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """``v`` itself: transport that goes with the chart's first-order step, to first order."""
        return self._together("transp_follow_retr", x, u, v)[2]

    def retr_transp(self, x: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`retr` and `transp_follow_retr` together."""
        return self.retr(x, u), self.transp_follow_retr(x, u, v)

    def proju(self, x: Tensor, u: Tensor) -> Tensor:
        """``u``: every vector of the chart is tangent."""
        return self._together("proju", x, u)[1]

    def projx(self, x: Tensor) -> Tensor:
        """``x``: every point of the chart is on the manifold."""
        return x

    def _shape(self, where: str, *size: int | tuple[int, ...]) -> tuple[int, ...]:
        shape = geoopt.utils.size2shape(*size)
        if not shape:
            raise ShapeError(f"{type(self).__name__}.{where}: expected a shape such as (b, d), got none.")
        return shape

    def _points(self, x: Tensor) -> geoopt.ManifoldTensor:
        return geoopt.ManifoldTensor(x, manifold=self)

    def _flat(self, where: str, x: Tensor, *tangents: Tensor) -> tuple[torch.Size, list[Tensor]]:
        """The leading dimensions of points and tangents, and these as rows."""
        for tangent in tangents:
            self._check_tangents(where, x, tangent)
        wide = self._together(where, x, *tangents)
        return wide[0].shape[:-1], [rows(t) for t in wide]

    def _together(self, where: str, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Points and tangents, broadcast."""
        for tensor in tensors:
            self._check_tensor(where, tensor)
        dtypes = [tensor.dtype for tensor in tensors]
        if len(set(dtypes)) > 1:
            raise DtypeError(
                f"{type(self).__name__}.{where}: points and tangents must have the same dtype, got "
                f"{', '.join(map(str, dtypes))}. Use u.to(x.dtype)."
            )
        try:
            return torch.broadcast_tensors(*map(outside_inference, tensors))
        except RuntimeError as error:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
            raise ShapeError(
                f"{type(self).__name__}.{where}: points and tangents must broadcast, got shapes {shapes}. All pairs of "
                "two batches: x[:, None] and y[None]."
            ) from error

    def _check_tensor(self, where: str, z: Tensor) -> None:
        if not isinstance(z, Tensor) or not z.is_floating_point():
            got = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise DtypeError(
                f"{type(self).__name__}.{where}: expected floating point tensors, got {got}. Use torch.as_tensor(z) in "
                "the decoder's precision."
            )
        if z.ndim == 0:
            raise ShapeError(f"{type(self).__name__}.{where}: expected vectors, got a number. Use z.reshape(1).")
        if not z.shape[-1]:
            raise ShapeError(
                f"{type(self).__name__}.{where}: expected points (*b, d) with d > 0, got {tuple(z.shape)}."
            )

    def _check_points(self, where: str, z: Tensor) -> None:
        self._check_tensor(where, z)
        if z.ndim != 2:
            raise ShapeError(
                f"{type(self).__name__}.{where}: points must have shape (b, d), got {tuple(z.shape)}. "
                + ("Add a batch dimension: z[None]." if z.ndim < 2 else "Flatten the leading dimensions.")
            )
        if is_mapped(z):
            raise GradModeError(
                f"{type(self).__name__}.{where}: torch.vmap hides the batch, which geometry looks at. Points are "
                "batched already: give all (b, d) at once."
            )
        # a sum is finite only if all of its terms are, or overflows
        if math.isfinite(z.detach().sum()):
            return
        bad = ~torch.isfinite(z).all(1)
        if bool(bad.any()):
            raise NonFiniteError(
                f"{type(self).__name__}.{where}: {int(bad.sum())} of {len(z)} points hold NaN or infinity, the first "
                f"at index {int(bad.nonzero()[0])}. Drop them, or fix what produced them.",
                bad,
            )

    def _check_tangents(self, where: str, x: Tensor, u: Tensor) -> None:
        self._check_tensor(where, x)
        self._check_tensor(where, u)
        if u.shape[-1] != x.shape[-1]:
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
        if u.shape[-1:] != x.shape[-1:]:
            return False, "the tangent has another dimension than the point"
        good = bool(torch.isfinite(u).all())
        return good, None if good else "the tangent holds NaN or infinity"


def rows(x: Tensor) -> Float[Tensor, "n d"]:
    """Points with any leading dimensions, as one batch."""
    if not isinstance(x, Tensor) or x.ndim == 0:
        got = "a number" if isinstance(x, Tensor) else type(x).__name__
        raise DtypeError(f"expected a tensor of points (*b, d), got {got}. Use torch.as_tensor(z).")
    return outside_inference(x).reshape(x.shape[:-1].numel(), x.shape[-1])
