"""Values with their Jacobians, and weights as one vector."""

import pytest
import torch
from torch import nn

from pullgeo import nnj
from pullgeo.errors import DtypeError, OptionError, ShapeError
from tests.nnj.cases import CASES, oracle, points, random, twin


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if not case.indices])
@pytest.mark.parametrize("ask", ["call", "forward"])
def test_the_value_with_its_jacobian_in_their_own_shapes(case: str, ask: str) -> None:
    net, x = twin(case), points(case, 3)
    y, J = (net if ask == "call" else net.forward)(x, jacobian=True)
    torch.testing.assert_close(y, net(x))
    assert J.shape == (3, *y.shape[1:], *x.shape[1:])
    torch.testing.assert_close(J.flatten(y.ndim).flatten(1, -2), oracle(case, 3, "input"))


@pytest.mark.parametrize("trailing", [(), (4,), (2, 3)])
@pytest.mark.parametrize("case", ["decoder", "tanh", "convolutional", "shapes"])
def test_a_jacobian_that_comes_in_is_continued(case: str, trailing: tuple[int, ...]) -> None:
    net, x = twin(case), points(case, 3)
    J0 = random(*x.shape, *trailing)
    y, J = net(x, jacobian=J0)
    assert J.shape == (*y.shape, *trailing)
    flat = J0.reshape(3, x[0].numel(), -1)
    torch.testing.assert_close(J.reshape(3, y[0].numel(), -1), oracle(case, 3, "input") @ flat)


def test_layers_chained_by_hand_give_the_jacobian_of_the_chain() -> None:
    net, x = twin("decoder"), points("decoder", 3)
    y, J = net[0](x, jacobian=True)
    for layer in net[1:]:
        y, J = layer(y, jacobian=J)
    torch.testing.assert_close(J, oracle("decoder", 3, "input"))


def test_without_a_jacobian_nothing_changes() -> None:
    net, x = twin("decoder"), points("decoder", 3)
    assert torch.equal(net(x, jacobian=False), nn.Sequential.forward(net, x))


def test_hooks_take_part_in_the_jacobian_that_a_call_returns() -> None:
    net, x = nnj.Tanh(), random(3, 2)
    net.register_forward_hook(lambda m, inputs, y: 3 * y)
    net.register_forward_pre_hook(lambda m, inputs: (2 * inputs[0],))
    y, J = net(x, jacobian=True)
    torch.testing.assert_close(y, 3 * (2 * x).tanh())
    torch.testing.assert_close(J, (6 - 6 * (2 * x).tanh().square()).diag_embed())
    with pytest.raises(OptionError, match=r"Call module\(x, jacobian=True\)"):
        net.forward(x, jacobian=True)


def test_jacobians_that_make_no_sense_are_refused(without_type_checks: None) -> None:
    net, x = nnj.Linear(3, 2), torch.randn(5, 3)
    with pytest.raises(ShapeError, match=r"must have shape \(5, 3\).*got \(5, 2, 3\)"):
        net(x, jacobian=torch.zeros(5, 2, 3))
    with pytest.raises(DtypeError, match=r"must be torch\.float32.*got torch\.float64"):
        net(x, jacobian=torch.zeros(5, 3, 1, dtype=torch.float64))
    with pytest.raises(OptionError, match="bool or a tensor"):
        net(x, jacobian="yes")
    with pytest.raises(OptionError, match="exactly one input"):
        nnj.Bilinear(3, 3, 2)(x, x, jacobian=True)


def test_weights_as_one_vector() -> None:
    net = nnj.Sequential(nnj.Linear(2, 3), nnj.Tanh(), nnj.Linear(3, 5, bias=False)).double()
    weight = net.get_weight()
    assert net._n_params == len(weight) == 6 + 3 + 15
    assert torch.equal(weight, nn.utils.parameters_to_vector(net.parameters()))
    before = list(net.parameters())
    new = torch.arange(24.0, dtype=torch.float64)
    net.set_weight(new)
    assert all(a is b for a, b in zip(before, net.parameters(), strict=True))
    assert torch.equal(net[0].bias, torch.tensor([6.0, 7.0, 8.0], dtype=torch.float64))
    assert torch.equal(net.get_weight(), new)
    new[0] = 100.0
    assert net.get_weight()[0] == 0.0
    net.set_weight(weight)
    assert torch.equal(net.get_weight(), weight)


def test_weights_are_connected_and_shared_ones_count_once() -> None:
    layer = nnj.Linear(2, 2)
    net = nnj.Sequential(layer, nnj.Tanh(), layer)
    assert net._n_params == 6
    net.get_weight().sum().backward()
    assert torch.equal(layer.weight.grad, torch.ones(2, 2))
    assert nnj.Tanh()._n_params == 0
    assert nnj.Tanh().get_weight().shape == (0,)


def test_weights_of_the_wrong_shape_are_refused(without_type_checks: None) -> None:
    net = nnj.Linear(2, 3)
    for wrong in (torch.zeros(8), torch.zeros(1, 9), torch.zeros(3, 3)):
        with pytest.raises(ShapeError, match=r"expected one vector of shape \(9,\)"):
            net.set_weight(wrong)
    with pytest.raises(DtypeError, match=r"expected a torch\.Tensor, got list"):
        net.set_weight([0.0] * 9)


def test_a_count_that_a_subclass_keeps_itself_is_left_alone() -> None:
    class Counted(nnj.Linear):
        def __init__(self) -> None:
            super().__init__(2, 3)
            self._n_params = 17

    assert Counted()._n_params == 17
