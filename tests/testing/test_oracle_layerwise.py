"""Layer-wise diagonals: exact where they should be, and different where they should be."""

import pytest
import torch
from torch import nn

from pullgeo.errors import ModuleError
from pullgeo.testing import oracles


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 3)), nn.Sigmoid()).double()


def test_layers_are_listed_in_running_order():
    assert [type(layer).__name__ for layer in oracles.layers_of(network())] == ["Linear", "Tanh", "Linear", "Sigmoid"]


def test_it_multiplies_squared_layer_jacobians():
    module, x, w, v = network(), random(3, 2), random(3, 3, seed=1), random(3, 2, seed=2)
    first, second = module[0].weight.detach(), module[1][1].weight.detach()
    hidden = torch.tanh(module[0](x)).detach()
    slope_1 = 1 - hidden**2
    y = module(x).detach()
    slope_2 = y * (1 - y)
    carried = (w * slope_2**2) @ second**2
    expected = (carried * slope_1**2) @ first**2
    torch.testing.assert_close(oracles.diag_backprop_pull(module, x, w), expected)
    pushed = ((v @ (first**2).T) * slope_1**2) @ (second**2).T * slope_2**2
    torch.testing.assert_close(oracles.diag_backprop_push(module, x, v), pushed)
    # With respect to weights: (w σ'²) ⊗ x² for the weight, w σ'² for the bias, first layer first.
    at_first, at_second = carried * slope_1**2, w * slope_2**2
    weights = [
        at_first[:, :, None] * x[:, None] ** 2,
        at_first,
        at_second[:, :, None] * hidden[:, None] ** 2,
        at_second,
    ]
    expected = torch.cat([part.flatten(1) for part in weights], dim=1)
    torch.testing.assert_close(oracles.diag_backprop_pull(module, x, w, "weight"), expected)


def test_it_is_exact_for_one_layer_and_an_approximation_for_more():
    module, x, w = network(), random(3, 2), random(3, 3, seed=1).abs()
    for layer, point, wrt in [
        (module[0], x, "input"),
        (module[0], x, "weight"),
        (nn.Softmax(1), random(3, 5), "input"),
    ]:
        J = oracles.dense_jacobian(layer, point, wrt)
        torch.testing.assert_close(
            oracles.diag_backprop_pull(layer, point, None, wrt), oracles.jTmjp(J, None, to_diag=True)
        )
        torch.testing.assert_close(
            oracles.diag_backprop_push(layer, point, None, wrt), oracles.jmjTp(J, None, to_diag=True)
        )
    exact = oracles.jTmjp(oracles.dense_jacobian(module, x), w, from_diag=True, to_diag=True)
    assert (oracles.diag_backprop_pull(module, x, w) - exact).abs().max() > 1e-3


def test_push_with_respect_to_weights_is_the_adjoint_of_the_pull():
    module, x, w, v = network(), random(3, 2), random(3, 3, seed=1), random(3, 33, seed=2)
    pushed = oracles.diag_backprop_push(module, x, v, "weight")
    pulled = oracles.diag_backprop_pull(module, x, w, "weight")
    torch.testing.assert_close((pushed * w).sum(1), (pulled * v).sum(1))


def test_a_layer_used_twice_adds_up():
    shared = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(shared.weight, 3.0)
    x = torch.tensor([[1.0], [2.0]]).double()
    # (w·x then w·): ∂/∂w of the second is wx, of the first w·x: 9x² + 9x².
    torch.testing.assert_close(oracles.diag_backprop_pull(nn.Sequential(shared, shared), x, None, "weight"), 18 * x**2)


def test_no_parameters_no_weights():
    with pytest.raises(ModuleError, match="parameters"):
        oracles.diag_backprop_pull(nn.Tanh(), random(3, 2), None, "weight")
