"""A metric on the output that depends on the point."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pullgeo._torch.half_precision import decomposable
from pullgeo._torch.plain_memory import inference_named, outside_inference
from pullgeo.errors import DtypeError, GeometryError, NonFiniteError, ShapeError
from pullgeo.jacobian.reverse import guarded
from pullgeo.manifold.ambient.base import Ambient
from pullgeo.metric.base import Metric
from pullgeo.metric.structured import Dense, Diagonal

MetricFn = Callable[[Tensor], Tensor | Metric]
"""Points ``(b, *out)`` to matrices ``(b, D, D)`` or to a `Metric` of dimension D."""


@dataclass(frozen=True, eq=False)
class MetricField(Ambient):
    """R^D with any metric ``M(y)``, measured along segments by the midpoint rule.

    Args:
        metric_fn: outputs ``(b, *out)`` to symmetric positive definite matrices ``(b, D, D)`` on the flattened
            output, or to a `Metric`, which costs less where it is diagonal or of low rank; sample by sample, of torch
            operations that can be differentiated twice.
    """

    metric_fn: MetricFn

    def metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """``M(y)``.

        Raises:
            ShapeError: ``metric_fn`` returns no matrix per point.
            DtypeError: it returns numbers of another precision than the points.
        """
        with inference_named():
            y = outside_inference(y)
            M = guarded(self.metric_fn, y, _entries) if torch.is_grad_enabled() else self.metric_fn(y)
        D = torch.Size(y.shape[1:]).numel()
        if isinstance(M, Metric):
            batch = M.diag().shape
            if M.dim != D or batch[:-1] not in ((), (len(y),)):
                raise ShapeError(
                    f"metric_fn must return a metric of dimension {D} for points {tuple(y.shape)}, got dimension "
                    f"{M.dim} and diagonals {tuple(batch)}. Return one metric per point."
                )
            if isinstance(M, Dense | Diagonal):
                _check_dtype(M.dtype, y)
            return M
        if not isinstance(M, Tensor) or M.shape != (len(y), D, D):
            got = tuple(M.shape) if isinstance(M, Tensor) else type(M).__name__
            raise ShapeError(
                f"metric_fn must map {tuple(y.shape)} to {(len(y), D, D)}, got {got}. Return one matrix per point, or "
                "a pullgeo.metric.Metric."
            )
        _check_dtype(M.dtype, y)
        return Dense(M)

    def finite_metric(self, y: Float[Tensor, "b *out"]) -> Metric:
        """``M(y)``, once it is finite.

        Raises:
            NonFiniteError: an entry of its diagonal is not.
            ShapeError: as `metric`.
        """
        M = self.metric(y)
        entries = torch.isfinite(M.matrix if isinstance(M, Dense) else M.diag())
        if not bool(entries.all()):
            # one metric may serve all points
            bad = ~entries.flatten(1).all(1) if entries.ndim > 1 else None
            raise NonFiniteError("metric_fn returned NaN or infinity. Keep points where it is defined.", bad)
        return M

    def check(self, y: Float[Tensor, "b *out"]) -> None:
        """Raise unless ``M(y)`` measures lengths.

        Raises:
            GeometryError: a matrix is not symmetric, or has a negative eigenvalue.
            OffManifoldError, ShapeError: as `Ambient.check` and `metric`.
        """
        super().check(y)
        check_riemannian(self.metric(y))


def _entries(M: Tensor | Metric) -> Tensor:
    """The tensor in a metric, if it is made of one; a metric that is another's is differentiated as it is."""
    if isinstance(M, Dense):
        return M.matrix
    if isinstance(M, Diagonal):
        return M.values
    return M if isinstance(M, Tensor) else torch.zeros(())


def _check_dtype(dtype: torch.dtype, y: Tensor) -> None:
    if dtype != y.dtype:
        raise DtypeError(
            f"metric_fn returned {dtype} for points in {y.dtype}. Give its tensors the points' dtype, as in "
            "torch.eye(d, dtype=z.dtype), or convert the points."
        )


def check_riemannian(M: Metric) -> None:
    """Raise unless the matrices are symmetric and not negative, up to rounding; NaN passes."""
    diagonal = M.diag().detach()
    rounding = torch.finfo(M.dtype).eps ** 0.5
    if isinstance(M, Dense) and diagonal.numel():
        matrix = M.matrix.detach()
        allowed = rounding * matrix.abs().amax((-2, -1))
        skew = (matrix - matrix.mT).abs().amax((-2, -1)) > allowed
        # NaN is no failure of this; and what is smaller than rounding counts as zero
        lifted = torch.where(torch.isfinite(allowed)[..., None, None], matrix, 1.0) + 2 * torch.diag_embed(
            torch.where(torch.isfinite(allowed) & (allowed > 0), allowed, 1.0).unsqueeze(-1).expand_as(diagonal)
        )
        negative = torch.linalg.cholesky_ex(decomposable(lifted)).info > 0
    else:
        negative = (diagonal < 0).any(-1)
        skew = torch.zeros_like(negative)
    for bad, what in ((skew, "not symmetric"), (negative, "not positive: it has a negative eigenvalue")):
        if bool(bad.any()):
            raise GeometryError(
                f"metric_fn returned a matrix that is {what}, at {int(bad.sum())} of {bad.numel()} "
                f"points, the first at index {int(bad.reshape(-1).nonzero()[0])}. Lengths need symmetric positive "
                "matrices; (M + M.mT) / 2 is symmetric, and R @ R.mT is both."
            )
