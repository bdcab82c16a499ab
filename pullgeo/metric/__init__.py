"""Inner products on tangent spaces, pulled back and pushed forward through Jacobians."""

from pullgeo.metric import rules
from pullgeo.metric.base import Metric, pullback, pullback_rule
from pullgeo.metric.block_diagonal import BlockDiagonal
from pullgeo.metric.estimates import (
    Estimate,
    GaussianProbe,
    Probe,
    Rademacher,
    averaged,
    hutchinson_diag,
    monte_carlo_diag,
)
from pullgeo.metric.implicit import Implicit
from pullgeo.metric.low_rank import LowRank
from pullgeo.metric.over_batch import Reduction, batch_sum, checked_reduction, sum_dense, sum_diag
from pullgeo.metric.rooted import Factored, FactoredMetric
from pullgeo.metric.structured import Dense, Diagonal, Identity

__all__ = [
    "BlockDiagonal",
    "Dense",
    "Diagonal",
    "Estimate",
    "Factored",
    "FactoredMetric",
    "GaussianProbe",
    "Identity",
    "Implicit",
    "LowRank",
    "Metric",
    "Probe",
    "Rademacher",
    "Reduction",
    "averaged",
    "batch_sum",
    "checked_reduction",
    "hutchinson_diag",
    "monte_carlo_diag",
    "pullback",
    "pullback_rule",
    "rules",
    "sum_dense",
    "sum_diag",
]
