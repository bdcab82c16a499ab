"""The dense derivatives agree with closed forms, and autograd agrees with finite differences."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import DtypeError, ModuleError, OptionError
from pullgeo.testing import oracles


class Polynomial(nn.Module):
    """y = (a x₀²x₁, b x₁³ + c x₀) with weights (a, b, c) of which c is unused."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, 3.0]))
        self.unused = nn.Parameter(torch.tensor([[5.0]]))

    def forward(self, x: Tensor) -> Tensor:
        x0, x1 = x.unbind(-1)
        return torch.stack([self.weight[0] * x0**2 * x1, self.weight[1] * x1**3], dim=-1)


POINTS = torch.tensor([[1.0, 2.0], [-3.0, 0.5], [0.0, -1.0]])


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3), nn.Sigmoid()).double()


def test_jacobian_wrt_input_is_the_hand_made_one():
    expected = [[[4 * a * b, 2 * a * a], [0.0, 9 * b * b]] for a, b in POINTS.tolist()]
    torch.testing.assert_close(
        oracles.dense_jacobian(Polynomial(), POINTS), torch.tensor(expected, dtype=torch.float64)
    )


def test_jacobian_wrt_weight_has_a_zero_column_for_the_unused_parameter():
    expected = [[[a * a * b, 0.0, 0.0], [0.0, b**3, 0.0]] for a, b in POINTS.tolist()]
    J = oracles.dense_jacobian(Polynomial(), POINTS, "weight")
    torch.testing.assert_close(J, torch.tensor(expected, dtype=torch.float64))


def test_second_derivative_is_the_hand_made_one():
    w = torch.tensor([[0.3, -2.0], [1.5, 4.0], [7.0, 0.1]])
    hessians = []
    for (a, b), (w0, w1) in zip(POINTS.tolist(), w.tolist(), strict=True):
        hessians.append([[4 * b * w0, 4 * a * w0], [4 * a * w0, 18 * b * w1]])
    expected = torch.tensor(hessians, dtype=torch.float64)
    torch.testing.assert_close(oracles.second_derivative(Polynomial(), POINTS, w), expected, rtol=1e-6, atol=1e-6)
    basis = torch.eye(2)[:, None].expand(2, 3, 2)
    torch.testing.assert_close(
        oracles.second_form_fd(Polynomial(), POINTS, w, basis),
        oracles.second_derivative(Polynomial(), POINTS, w),
        rtol=1e-8,
        atol=1e-8,
    )


@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_autograd_agrees_with_finite_differences(wrt):
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    exact = oracles.dense_jacobian(network(), x, wrt)
    assert exact.shape == (3, 3, 2 if wrt == "input" else 33)
    torch.testing.assert_close(oracles.dense_jacobian_fd(network(), x, wrt), exact, rtol=1e-10, atol=1e-10)


def test_second_derivative_wrt_weight_agrees_with_finite_differences():
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double()
    x, w = torch.randn(3, 2).double(), torch.randn(3, 2).double()
    T = torch.randn(2, 3, 6).double()
    exact = oracles.second_form(module, x, w, T, "weight")
    by_differences = oracles.second_form_fd(module, x, w, T, "weight")
    torch.testing.assert_close(by_differences, exact, rtol=1e-8, atol=1e-8)
    whole = oracles.second_derivative(module, x, w, "weight")
    torch.testing.assert_close(torch.einsum("kbi,bij,lbj->bkl", T, whole, T), exact)
    assert exact.abs().max() > 0.1


def test_a_shared_parameter_is_counted_once_with_its_total_derivative():
    shared = nn.Linear(1, 1, bias=False)
    nn.init.constant_(shared.weight, 3.0)
    J = oracles.dense_jacobian(nn.Sequential(shared, shared), torch.tensor([[1.0], [2.0]]), "weight")
    torch.testing.assert_close(J, torch.tensor([[[6.0]], [[12.0]]], dtype=torch.float64))  # d(w²x)/dw = 2wx


def test_image_shapes_are_flattened_and_float32_modules_are_taken_in_float64():
    torch.manual_seed(0)
    module = nn.Conv2d(2, 3, 2)
    x = torch.randn(3, 2, 3, 2)
    J = oracles.dense_jacobian(module, x)
    assert J.shape == (3, 3 * 2 * 1, 12)
    assert J.dtype == torch.float64
    flat = torch.einsum("boi,bi->bo", J, x.double().flatten(1)) + module.bias.double().repeat_interleave(2)
    torch.testing.assert_close(flat, module.double()(x.double()).flatten(1))


def test_modules_are_left_as_they_were():
    module = nn.BatchNorm1d(2, momentum=0.5).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    oracles.dense_jacobian(module, POINTS, "weight")
    oracles.dense_jacobian_fd(module, POINTS, "weight")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.weight.dtype == torch.float32
    assert not module.weight.requires_grad


def test_constant_maps_and_empty_batches_have_jacobians():
    constant = oracles.dense_jacobian(lambda x: torch.ones(len(x), 3, dtype=x.dtype), POINTS)
    assert constant.shape == (3, 3, 2)
    assert not constant.any()
    assert oracles.dense_jacobian(network(), POINTS[:0]).shape == (0, 3, 2)
    assert oracles.dense_jacobian_fd(network(), POINTS[:0], "weight").shape == (0, 3, 33)
    assert oracles.second_derivative(network(), POINTS[:0], torch.zeros(0, 3)).shape == (0, 2, 2)
    assert oracles.second_form_fd(network(), POINTS[:0], torch.zeros(0, 3), torch.zeros(5, 0, 2)).shape == (0, 5, 5)


def test_indices_have_a_jacobian_with_respect_to_the_weights_alone():
    table = nn.Embedding(3, 2)
    J = oracles.dense_jacobian(table, torch.tensor([2, 0, 1]), "weight")
    expected = torch.zeros(3, 2, 6, dtype=torch.float64)
    for sample, row in enumerate([2, 0, 1]):
        expected[sample, 0, 2 * row] = expected[sample, 1, 2 * row + 1] = 1
    torch.testing.assert_close(J, expected)
    with pytest.raises(DtypeError, match="weight"):
        oracles.dense_jacobian(table, torch.tensor([2, 0, 1]))


@pytest.mark.usefixtures("without_type_checks")
def test_mistakes_are_named():
    with pytest.raises(OptionError, match="wrt"):
        oracles.dense_jacobian(network(), POINTS, "inputs")
    with pytest.raises(ModuleError, match="parameters"):
        oracles.dense_jacobian(nn.Tanh(), POINTS, "weight")
    with pytest.raises(ModuleError, match="tensor"):
        oracles.dense_jacobian(lambda x: (x, x), POINTS)
    with pytest.raises(OptionError, match="step"):
        oracles.dense_jacobian_fd(nn.Tanh(), POINTS, step=0.0)


@pytest.mark.parametrize("step", [1e-2, 2e-2])
def test_central_differences_are_of_sixth_order(step):
    # sin at 1: the error term is h⁶/2580480 · |sin⁽⁷⁾| in size; far below second and fourth order.
    point = torch.tensor([1.0, 0.3], dtype=torch.float64)
    error = (oracles.central_difference(torch.sin, point, step) - torch.diag(point.cos())).abs().max()
    assert error < 1e-12
    coarse = (oracles.central_difference(torch.sin, point, 1.0) - torch.diag(point.cos())).abs().max()
    halved = (oracles.central_difference(torch.sin, point, 0.5) - torch.diag(point.cos())).abs().max()
    assert 50 < coarse / halved < 80  # 2⁶ = 64
