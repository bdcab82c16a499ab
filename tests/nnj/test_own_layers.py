"""Modules beyond torch.nn's own: values, names, and derivatives to the second order."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pullgeo import linearize, nnj
from pullgeo.errors import ShapeError
from pullgeo.testing import oracles
from tests.nnj.cases import points, random

X = points("tanh", 3)
UNIT = X.sigmoid() * 0.8 + 0.1


@pytest.mark.parametrize(
    ("net", "x", "y"),
    [
        (nnj.Sinusoidal(), X, X.sin()),
        (nnj.TruncExp(), 20 * X, (20 * X).exp()),
        (nnj.ArcTanh(), UNIT, ((1 + UNIT) / (1 - UNIT)).log() / 2),
        (nnj.Reciprocal(0.5), UNIT, 1 / (UNIT + 0.5)),
        (nnj.Reciprocal(), UNIT, 1 / UNIT),
        (nnj.OneMinusX(), X, 1 - X),
        (nnj.Sqrt(), UNIT, UNIT**0.5),
        (nnj.L2Norm(0.3), X, torch.stack([x / (x.norm() + 0.3) for x in X])),
        (nnj.Reshape(3, -1), X, X.reshape(3, 3, 2)),
        (nnj.Flatten(), X, X.reshape(3, 6)),
        (nnj.ResidualBlock(nn.Tanh(), nn.Sigmoid()), X, X + X.tanh().sigmoid()),
        (nnj.SkipConnection(nn.Tanh()), X, torch.cat([X, X.tanh()], 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_values(net: nnj.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    torch.testing.assert_close(net(x), y)
    torch.testing.assert_close(linearize(net, x)[0], y)


@pytest.mark.parametrize("cls", [nnj.Sinusoidal, nnj.TruncExp, nnj.ArcTanh, nnj.Reciprocal, nnj.OneMinusX, nnj.Sqrt])
def test_second_derivatives_of_elementwise_maps(cls: type[nnj.Module]) -> None:
    w = random(*UNIT.shape)
    J = linearize(cls(), UNIT)[1]
    second = J.second(J.signature.in_basis(), w)
    torch.testing.assert_close(second, oracles.second_derivative(cls(), UNIT, w))


def test_the_derivative_of_truncated_exp_is_clamped_on_both_sides() -> None:
    x = torch.tensor([[-40.0, -15.0, -1.0, 0.0, 15.0, 30.0]], dtype=torch.float64).requires_grad_()
    expected = x.detach().clamp(-15, 15).exp()
    net = nnj.TruncExp()
    y = net(x)
    torch.testing.assert_close(y, x.exp(), rtol=1e-15, atol=0.0)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], expected)
    torch.testing.assert_close(net.jTmjp(x, to_diag=True), expected.square())
    torch.testing.assert_close(torch.func.jvp(net, (x,), (torch.ones_like(x),))[1], expected)
    w = torch.ones_like(x)
    curvature = linearize(net, x)[1].second(torch.eye(6, dtype=torch.float64)[:, None], w).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(curvature, torch.where(x.abs() > 15, 0.0, expected))


def test_positive_linear_has_the_parameters_of_linear() -> None:
    net = nnj.PosLinear(3, 2).double()
    assert isinstance(net, nn.Linear)
    assert list(net.state_dict()) == ["weight", "bias"]
    x = random(3, 3)
    softplus = nn.functional.softplus
    torch.testing.assert_close(net(x), x @ softplus(net.weight).T + softplus(net.bias))
    torch.testing.assert_close(net.jacobian(x), softplus(net.weight).expand(3, 2, 3))
    w = random(3, 2)
    J = linearize(net, x, "weight")[1]
    torch.testing.assert_close(
        J.second(J.signature.in_basis(), w), oracles.second_derivative(net, x, w, "weight"), atol=1e-12, rtol=1e-9
    )


def test_layers_of_composites_are_kept_under_one_name() -> None:
    for cls in (nnj.SkipConnection, nnj.ResidualBlock):
        net = cls(nn.Linear(3, 3), nn.Tanh(), add_hooks=True)
        assert list(net.state_dict()) == ["_F.0.weight", "_F.0.bias"]
        blocks = net.jTmjp(torch.randn(3, 3), wrt="weight")
        assert blocks[0].shape == (3, 12, 12)


def test_the_norm_of_zero_is_finite() -> None:
    J = nnj.L2Norm(eps=0.5).jacobian(torch.zeros(3, 2, dtype=torch.float64))
    torch.testing.assert_close(J, 2 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2))


def test_printing_shows_the_settings() -> None:
    assert repr(nnj.Reshape(2, 3)) == "Reshape(2, 3)"
    assert repr(nnj.Reciprocal(b=0.5)) == "Reciprocal(b=0.5)"
    assert repr(nnj.L2Norm(eps=0.5)) == "L2Norm(eps=0.5)"


@pytest.mark.parametrize("cls", [nnj.SkipConnection, nnj.ResidualBlock])
def test_blocks_of_composites_are_those_of_the_chain_in_them(cls: type[nnj.Module]) -> None:
    def build() -> list[nn.Module]:
        inner = cls(nn.Linear(3, 3), nn.Tanh(), nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 3)))
        return [nn.Linear(2, 3), inner, nn.Tanh(), nn.Linear(6 if cls is nnj.SkipConnection else 3, 2)]

    x, sizes = random(3, 2), [9, [12, [6, 9]], 14 if cls is nnj.SkipConnection else 8]
    for net in (nnj.Sequential(*build()).double(), nnj.convert_to_nnj(nn.Sequential(*build()).double())):
        J = oracles.dense_jacobian(net, x, "weight")
        whole = torch.einsum("boi,boj->bij", J, J)
        expected = oracles.blocks_of(whole, oracles.weight_layout(net))
        for blocks, reduced in (
            (net.jTmjp(x, wrt="weight"), lambda t: t),
            (net.jTmjp(x, wrt="weight", reduction="sum"), lambda t: t.sum(0)),
        ):
            assert _mapped(lambda block: block.shape[-1], blocks) == sizes
            for got, true in zip(_leaves(blocks), _leaves(expected), strict=True):
                torch.testing.assert_close(got, reduced(true))
        given = _mapped(lambda size: random(3, size, size), sizes)
        placed = torch.zeros(3, J.shape[2], J.shape[2], dtype=torch.float64)
        start = 0
        for block in _leaves(given):
            stop = start + block.shape[1]
            placed[:, start:stop, start:stop] = block
            start = stop
        torch.testing.assert_close(net.jmjTp(x, None, given, wrt="weight"), J @ placed @ J.mT)
        with pytest.raises(ShapeError, match="nested as the containers are"):
            net.jmjTp(x, None, [given[0], [given[1]], given[2]], wrt="weight")
        alone = net[1].jTmjp(random(3, 3), wrt="weight")
        assert _mapped(lambda block: block.shape[-1], alone) == sizes[1]


def _mapped(function: Callable[[Any], Any], nested: Any) -> Any:
    return [_mapped(function, entry) for entry in nested] if isinstance(nested, list) else function(nested)


def _leaves(nested: Any) -> list[Any]:
    return [leaf for entry in nested for leaf in _leaves(entry)] if isinstance(nested, list) else [nested]
