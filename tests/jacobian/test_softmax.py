"""The softmax family and the gated linear unit against the truth, also where they saturate."""

import pytest
import torch
from torch import nn

from pullgeo.errors import CoupledSamplesError, ShapeError
from pullgeo.jacobian import linearize
from pullgeo.testing import check_rule
from tests.jacobian.architectures import close, random

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "Softmax": (nn.Softmax(-1), (5,)),
    "Softmax along channels": (nn.Softmax(1), (3, 2)),
    "Softmax2d": (nn.Softmax2d(), (3, 2, 1)),
    "Softmin": (nn.Softmin(1), (5, 2)),
    "LogSoftmax": (nn.LogSoftmax(2), (2, 5)),
    "GLU": (nn.GLU(), (6,)),
    "GLU along channels": (nn.GLU(1), (4, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_input(name: str) -> None:
    module, shape = CASES[name]
    check_rule(module, random(3, *shape), second_gradients=name in ("Softmax", "GLU"))


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("cls", [nn.Softmax, nn.LogSoftmax, nn.Softmin])
def test_the_implicit_dimension_is_that_of_torch(cls: type[nn.Module]) -> None:
    module, x = cls(None), random(3, 5)
    y, J = linearize(module, x)
    close(y, module(x))
    close(J.dense(), linearize(cls(1), x)[1].dense())
    with pytest.raises(CoupledSamplesError, match="dimension 0"):
        linearize(module, random(3, 2, 5))


@pytest.mark.parametrize("name", ["Softmax", "Softmin", "LogSoftmax", "GLU"])
def test_logits_of_size_1e4_stay_finite(name: str) -> None:
    module = CASES[name][0] if name != "LogSoftmax" else nn.LogSoftmax(-1)
    x = torch.tensor([[1e4, -1e4, 0.0, 9999.0], [-1e4, -1e4, -1e4, 1e4], [0.0, 0.0, 1e4, 1e4]], dtype=torch.float64)
    x.requires_grad_()
    y, J = linearize(module, x)
    T, W = random(2, 3, 4, seed=1), random(2, *y.shape, seed=2)
    everything = [J.push(T), J.pull(W), J.push_squared(T), J.pull_squared(W), J.second(T, W[0]), J.second_push(T, T)]
    total = y.clamp(-1, 1).sum() + sum(product.sum() for product in everything)
    assert all(bool(torch.isfinite(product).all()) for product in everything)
    assert bool(torch.isfinite(torch.autograd.grad(total, x)[0]).all())
    assert bool((J.push_squared(T.square()) >= 0).all())
    assert bool((J.pull_squared(W.square()) >= 0).all())


@pytest.mark.parametrize("cls", [nn.Softmax, nn.LogSoftmax])
def test_squares_of_saturated_rows_do_not_cancel(cls: type[nn.Module]) -> None:
    # the winner's probability differs from one by 1e-9; sums of squares minus one's own would lose all digits
    x = torch.tensor([[20.0, -0.7, 0.1], [0.3, 21.0, 0.2]], dtype=torch.float64)
    J = linearize(cls(1), x)[1]
    v = random(2, 2, 3, seed=1).square()
    squares = J.dense().square()
    expected = torch.einsum("bon,kbn->kbo", squares, v), torch.einsum("bon,kbo->kbn", squares, v)
    torch.testing.assert_close(J.push_squared(v), expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(J.pull_squared(v), expected[1], rtol=1e-6, atol=0)


def test_the_batch_is_refused_as_the_dimension_of_softmax() -> None:
    for module in (nn.Softmax(0), nn.LogSoftmax(-2), nn.Softmin(0)):
        with pytest.raises(CoupledSamplesError, match="dim=-1"):
            linearize(module, random(3, 5))
    with pytest.raises(ShapeError, match="does not have"):
        linearize(nn.Softmax(2), random(3, 5))
    with pytest.raises(ShapeError, match="odd"):
        linearize(nn.GLU(), random(3, 5))
    with pytest.raises(ShapeError, match="batch first"):
        linearize(nn.Softmax2d(), random(3, 5, 2))
