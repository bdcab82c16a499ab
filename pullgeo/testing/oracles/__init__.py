"""Independent, slow, float64 truths. They share no code with the rooms that they judge.

* `jacobians`, `second`: first and second derivatives of a module, by loops of autograd and by finite differences.
* `products`: the six Jacobian products written out from a dense Jacobian, block lists over weights.
* `layerwise`: propagation of diagonals from layer to layer.
* `curves`: energy and length by loops.
* `connection`: Christoffel symbols and curvature of a metric by finite differences.
* `initial_value`: geodesics and parallel transport by `scipy.integrate.solve_ivp`.
"""

from pullgeo.testing.oracles.connection import (
    christoffel,
    ricci_tensor,
    riemann_tensor,
    scalar_curvature,
    sectional_curvature,
)
from pullgeo.testing.oracles.curves import Curve, MetricFunction, discrete_energy, fine_length, metric_length
from pullgeo.testing.oracles.differences import central_difference
from pullgeo.testing.oracles.initial_value import geodesic_ivp, parallel_transport, transport_along_geodesic
from pullgeo.testing.oracles.jacobians import dense_jacobian, dense_jacobian_fd
from pullgeo.testing.oracles.layerwise import diag_backprop_pull, diag_backprop_push, layers_of
from pullgeo.testing.oracles.products import (
    blocks_of,
    full_from_blocks,
    jmjTp,
    jmp,
    jTmjp,
    jvp,
    mjp,
    vjp,
    weight_layout,
)
from pullgeo.testing.oracles.second import second_derivative, second_form, second_form_fd

__all__ = [
    "Curve",
    "MetricFunction",
    "blocks_of",
    "central_difference",
    "christoffel",
    "dense_jacobian",
    "dense_jacobian_fd",
    "diag_backprop_pull",
    "diag_backprop_push",
    "discrete_energy",
    "fine_length",
    "full_from_blocks",
    "geodesic_ivp",
    "jTmjp",
    "jmjTp",
    "jmp",
    "jvp",
    "layers_of",
    "metric_length",
    "mjp",
    "parallel_transport",
    "ricci_tensor",
    "riemann_tensor",
    "scalar_curvature",
    "second_derivative",
    "second_form",
    "second_form_fd",
    "sectional_curvature",
    "transport_along_geodesic",
    "vjp",
    "weight_layout",
]
