"""Pairs of a Jacobian and a metric whose pullback keeps its structure."""

from pullgeo.jacobian import Elementwise, Reshape
from pullgeo.metric.base import Metric, pullback_rule
from pullgeo.metric.structured import Dense, Diagonal, Identity


@pullback_rule(Elementwise, Identity)
def elementwise_identity(J: Elementwise, M: Identity) -> Diagonal:
    """``diag(σ'²)``."""
    return Diagonal(J.derivative.flatten(1).square())


@pullback_rule(Elementwise, Diagonal)
def elementwise_diagonal(J: Elementwise, M: Diagonal) -> Diagonal:
    """``diag(σ'² m)``."""
    return Diagonal(J.derivative.flatten(1).square() * M.values)


@pullback_rule(Elementwise, Dense)
def elementwise_dense(J: Elementwise, M: Dense) -> Dense:
    """``diag(σ') M diag(σ')``."""
    slope = J.derivative.flatten(1)
    return Dense(slope.unsqueeze(-1) * M.matrix * slope.unsqueeze(-2))


@pullback_rule(Reshape, Metric)  # type: ignore[type-abstract]
def reshape_any(J: Reshape, M: Metric) -> Metric:
    """``M``: tangents are flat, so another shape changes nothing."""
    return M
