"""Inner products on tangent spaces, pulled back and pushed forward through Jacobians."""

from pullgeo.metric import rules
from pullgeo.metric.base import Metric, pullback, pullback_rule
from pullgeo.metric.block_diagonal import BlockDiagonal
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.low_rank import LowRank
from pullgeo.metric.structured import Dense, Diagonal, Identity

__all__ = [
    "BlockDiagonal",
    "Dense",
    "Diagonal",
    "Identity",
    "Implicit",
    "LowRank",
    "Metric",
    "pullback",
    "pullback_rule",
    "rules",
]
