"""Checks that anyone can run on a thing of their own; each raises `AssertionError` with a text that says what is wrong.

* `check_rule`: a layer rule, through `pullgeo.jacobian.linearize`; `check_jacobian`: one Jacobian at one batch.
* `check_metric`: a `pullgeo.metric.Metric`.
* `check_manifold`: a `pullgeo.manifold.Manifold`.
* `check_invariant`: that distances do not depend on latent coordinates.
* `check_solver`: a solver of geodesic boundary-value problems.
"""

from pullgeo.testing.contracts.invariance import check_invariant
from pullgeo.testing.contracts.jacobian import JacobianLike, check_jacobian
from pullgeo.testing.contracts.manifold import check_manifold
from pullgeo.testing.contracts.metric import check_metric
from pullgeo.testing.contracts.rule import check_rule
from pullgeo.testing.contracts.solver import KnownPairs, check_solver, known_pairs

__all__ = [
    "JacobianLike",
    "KnownPairs",
    "check_invariant",
    "check_jacobian",
    "check_manifold",
    "check_metric",
    "check_rule",
    "check_solver",
    "known_pairs",
]
