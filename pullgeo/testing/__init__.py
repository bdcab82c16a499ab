"""The test kit: independent truths, closed-form geometries and contract checks, for anyone who adds to the package.

* `oracles`: dense derivatives, Jacobian products, connection, curvature, geodesics, by loops and finite differences.
* `charts`: spheres, tori, hyperbolic planes, Fisher-Rao families with their distances, as torch modules.
* `contracts`: `check_rule`, `check_jacobian`, `check_metric`, `check_manifold`, `check_invariant`,
  `check_solver`.
* `tolerances`: what may differ, by dtype.
* `torch_layers`: a small instance of every layer of torch.nn, to run a check on all of them.

Example:
    >>> import torch
    >>> from pullgeo import testing
    >>> testing.check_rule(torch.nn.Tanh(), torch.randn(3, 2, dtype=torch.float64))
"""

from pullgeo.testing import charts, contracts, oracles, tolerances
from pullgeo.testing.contracts import (
    check_invariant,
    check_jacobian,
    check_manifold,
    check_metric,
    check_rule,
    check_solver,
)
from pullgeo.testing.tolerances import TOLERANCES, Tolerance, tolerance_for
from pullgeo.testing.torch_layers import TorchLayer, torch_layers, why_no_layer

__all__ = [
    "TOLERANCES",
    "Tolerance",
    "TorchLayer",
    "charts",
    "check_invariant",
    "check_jacobian",
    "check_manifold",
    "check_metric",
    "check_rule",
    "check_solver",
    "contracts",
    "oracles",
    "tolerance_for",
    "tolerances",
    "torch_layers",
    "why_no_layer",
]
