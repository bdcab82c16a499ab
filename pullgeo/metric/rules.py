"""Pairs of a Jacobian and a metric whose pullback keeps its structure."""

from torch import Tensor

from pullgeo.jacobian.contractions import flat
from pullgeo.jacobian.kinds.elementwise import Elementwise
from pullgeo.jacobian.kinds.linear_map import Reshape
from pullgeo.metric.base import Metric, pullback_rule
from pullgeo.metric.low_rank import LowRank
from pullgeo.metric.structured import Dense, Diagonal, Identity


@pullback_rule(Elementwise, Identity)
def elementwise_identity(J: Elementwise, M: Identity) -> Diagonal:
    """``diag(σ'²)``."""
    return Diagonal(_slope(J).square())


@pullback_rule(Elementwise, Diagonal)
def elementwise_diagonal(J: Elementwise, M: Diagonal) -> Diagonal:
    """``diag(σ'² m)``."""
    return Diagonal(_slope(J).square() * M.values)


@pullback_rule(Elementwise, Dense)
def elementwise_dense(J: Elementwise, M: Dense) -> Dense:
    """``diag(σ') M diag(σ')``."""
    slope = _slope(J)
    return Dense(slope.unsqueeze(-1) * M.matrix * slope.unsqueeze(-2))


@pullback_rule(Elementwise, LowRank)
def elementwise_low_rank(J: Elementwise, M: LowRank) -> LowRank:
    """``diag(σ') R``."""
    return LowRank(_slope(J).unsqueeze(-1) * M.matrix)


@pullback_rule(Reshape, Metric)  # type: ignore[type-abstract]
def reshape_any(J: Reshape, M: Metric) -> Metric:
    """``M``: tangents are flat, so another shape changes nothing."""
    return M


def _slope(J: Elementwise) -> Tensor:
    return flat(J.derivative.unsqueeze(0)).squeeze(0)
