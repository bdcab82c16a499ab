"""Derivatives of geodesics whose end points depend on each other, or on the decoder's weights."""

import torch
from torch import Tensor

from pullgeo import Newton, PullbackManifold
from pullgeo.testing.charts import StereographicSphere

SOLVER = Newton(segments=4)


def test_one_end_point_is_computed_from_the_other():
    z = torch.tensor([[0.3, 0.1], [-0.2, 0.7], [0.9, -0.4]], dtype=torch.float64, requires_grad=True)
    manifold = PullbackManifold(StereographicSphere(2))

    def energies(z: Tensor) -> Tensor:
        return manifold.geodesic(z[:1].expand(3, 2) / 2, z, SOLVER).energy

    assert torch.autograd.gradcheck(energies, z)


def test_end_points_are_computed_from_the_weights():
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 3, dtype=torch.float64)
    manifold = PullbackManifold(torch.nn.Sequential(layer, torch.nn.Tanh()))
    x = torch.tensor([[0.3, 0.1], [-0.2, 0.7], [0.9, -0.4]], dtype=torch.float64)

    def total() -> Tensor:
        z = layer(x)[:, :2]
        return manifold.geodesic(z[:1], z[1:], SOLVER).energy.sum()

    (gradient,) = torch.autograd.grad(total(), layer.weight)
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            layer.weight[1, 0] += sign * step
            values.append(total())
            layer.weight[1, 0] -= sign * step
    torch.testing.assert_close(gradient[1, 0], (values[0] - values[1]) / (2 * step), rtol=1e-7, atol=1e-9)
