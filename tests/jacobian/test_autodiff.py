"""The fallback: exact for what torch's own transforms get wrong or lack, and without traces on the module."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo.jacobian import Jacobian, linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import check_rule, oracles
from tests.jacobian.architectures import close, random


@pytest.mark.parametrize("norm", [nn.LayerNorm(5), nn.GroupNorm(1, 5), nn.Tanh()])
def test_second_derivatives_of_norms_in_plain_functions(norm: nn.Module) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), norm, nn.Linear(5, 2)).double()

    def function(x: Tensor) -> Tensor:
        return module(x)

    x = torch.randn(3, 3, dtype=torch.float64)
    _, J = linearize(function, x)
    T, S = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    bent = J.second_push(T, S)
    for o in range(2):
        w = torch.zeros(3, 2, dtype=torch.float64)
        w[:, o] = 1
        H = oracles.second_derivative(module, x, w)
        torch.testing.assert_close(bent[..., o].detach(), torch.einsum("kbi,bij,kbj->kb", T, H, S))


@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("operation", [torch.linalg.solve, lambda A, b: torch.linalg.slogdet(A).logabsdet[:, None] * b])
def test_second_derivatives_of_linear_systems_with_and_without_gradients(
    operation: Callable[[Tensor, Tensor], Tensor], track: bool
) -> None:
    def function(x: Tensor) -> Tensor:
        A = x[:, :4].unflatten(1, (2, 2)) + 3 * torch.eye(2, dtype=x.dtype)
        return operation(A, x[:, 4:])

    x, w, T = random(3, 6), random(3, 2, seed=1), random(5, 3, 6, seed=2)
    H = oracles.second_derivative(function, x, w)
    with torch.set_grad_enabled(track):
        J = linearize(function, x)[1]
        close(J.second(T, w), torch.einsum("kbi,bij,lbj->bkl", T, H, T))
        bent = (J.second_push(T, T.flip(0)) * w).sum(-1)
        close(bent, torch.einsum("kbi,bij,kbj->kb", T, H, T.flip(0)))


class Unknown(nn.Module):
    """A network that no graph knows, with something in it."""

    def __init__(self, inner: Callable[["Unknown", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.linear = inner, nn.Linear(3, 3)
        self.last: Tensor | None = None
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(self.linear(x)).real * self.inner(self, x)


@torch.no_grad()
def without_gradient(m: Unknown, x: Tensor) -> Tensor:
    return m.linear(x)[:, :2].sin()


def detached(m: Unknown, x: Tensor) -> Tensor:
    return m.linear(x)[:, :2].sin().detach()


def partly(m: Unknown, x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = m.linear(x).norm(dim=1, keepdim=True)
        with torch.enable_grad():
            y = m.linear(x)[:, :2]
    return y / scale


class Outside(nn.Module):
    """A known network around an unknown part."""

    def __init__(self) -> None:
        super().__init__()
        self.part = Unknown(without_gradient)

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x.sin()) * x[:, :2]


def both_ways(J: Jacobian) -> tuple[Tensor, Tensor]:
    pushed, pulled = J.push(J.signature.in_basis()), J.pull(J.signature.out_basis())
    return flat(pushed).permute(1, 2, 0), flat(pulled).permute(1, 0, 2)


@pytest.mark.parametrize("wrt", ["input", "weight"])
@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("inner", [without_gradient, detached, partly, None])
def test_what_is_computed_without_gradient_is_constant_in_both_modes(
    inner: Callable[[Unknown, Tensor], Tensor] | None, outside: bool, wrt: str
) -> None:
    # torch's forward mode differentiates it, and its reverse mode does not
    module, x = (Outside() if inner is None else Unknown(inner)).double(), random(3, 3)
    truth = oracles.dense_jacobian(module, x, wrt)
    with torch.set_grad_enabled(not outside):
        J = linearize(module, x, wrt)[1]
        for matrix in both_ways(J):
            close(matrix.detach(), truth)
            assert not (outside and matrix.requires_grad)
    T, w = random(2, 3, J.signature.n_in, seed=1), random(3, 2, seed=2)
    form = oracles.second_form(module, x, w, T, wrt)
    if inner is not None:  # there the oracle, which differentiates twice, sees the same constants
        close(J.second(T, w), form)
        close((J.second_push(T[:1], T[1:])[0] * w).sum(-1), form[:, 0, 1])


def test_of_plain_functions_too() -> None:
    module, x = Unknown(without_gradient).double(), random(3, 3)
    J = linearize(lambda x: module(x), x)[1]
    for matrix in both_ways(J):
        close(matrix.detach(), oracles.dense_jacobian(module, x))


def kept(m: Unknown, x: Tensor) -> Tensor:
    m.last = m.linear(x)
    m.mean = m.last.mean(0)
    return m.last[:, :2]


@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_nothing_is_left_on_the_module(wrt: str) -> None:
    module, x = Unknown(kept).double(), random(3, 3)
    J = linearize(module, x, wrt)[1]
    for matrix in both_ways(J):
        close(matrix.detach(), oracles.dense_jacobian(module, x, wrt))
    J.second(random(2, 3, J.signature.n_in), random(3, 2))
    assert module.last is None
    assert not module.mean.any()
    copy.deepcopy(module)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_old_weight_norm_leaves_no_tensor_of_a_transform_behind() -> None:
    module, x = nn.utils.weight_norm(nn.Linear(3, 2)).double(), random(3, 3)
    module(x)
    before = module.weight
    for matrix in both_ways(linearize(module, x, "weight")[1]):
        assert bool(torch.isfinite(matrix).all())
    assert module.weight is before
    pickle.dumps(module.state_dict())


class Number(nn.Module):
    """A number for each sample."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self.linear, self.known = nn.Linear(3, 4), known

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        return (h.tanh() if self.known else torch.fft.rfft(h).abs()).sum(-1)


@pytest.mark.parametrize("wrt", ["input", "weight"])
@pytest.mark.parametrize("known", [True, False])
def test_outputs_that_are_numbers(known: bool, wrt: str) -> None:
    check_rule(Number(known).double(), random(3, 3), wrt=wrt, gradients=False)


@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_inputs_that_are_numbers(wrt: str) -> None:
    check_rule(nn.PReLU().double(), random(3), wrt=wrt, gradients=False)


class Stretched(nn.Module):
    """A parameter that is a number, in front of what has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(torch.sin(self.factor * x)).abs()


def test_parameters_that_are_numbers() -> None:
    check_rule(Stretched().double(), random(3, 3), wrt="weight", gradients=False)
