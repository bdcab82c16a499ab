"""What runs outside of torch's view: TorchScript in every guise, and operators that torch was given from outside."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pullgeo import linearize
from pullgeo._torch.scripts import ScriptCalls, is_traced
from pullgeo._torch.substitutes import SUBSTITUTES
from pullgeo.errors import ModuleError
from pullgeo.likelihood import Gaussian, ggn_diag

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*autograd kernel was not registered:UserWarning"),  # which is torch's own
]


def bent(x: Tensor) -> Tensor:
    """A function with second derivatives that mix entries."""
    return torch.sin(x * x) * torch.exp(x) + x.sum(1, keepdim=True).pow(3)


class Bent(nn.Module):
    """The same as a module, and under another name."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * x) * torch.exp(x) + x.sum(1, keepdim=True).pow(3)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return torch.sin(x * x) * torch.exp(x) + x.sum(1, keepdim=True).pow(3)


class Holding(nn.Module):
    """A function behind weights."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 5) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.linspace(0.5, 0.9, width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * self.scale)


def called(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: function(x)


X = torch.linspace(-1.0, 1.0, 15, dtype=torch.float64).reshape(3, 5).sin()

SCRIPTED: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "function": lambda: torch.jit.script(bent),
    "function in a lambda": lambda: called(torch.jit.script(bent)),
    "function in a module": lambda: Holding(torch.jit.script(bent)),
    "module": lambda: torch.jit.script(Bent()),
    "module's forward": lambda: torch.jit.script(Bent()).forward,
    "exported method": lambda: called(torch.jit.script(Bent()).encode),
    "frozen module": lambda: torch.jit.freeze(torch.jit.script(Bent().eval())),
}
TRACED: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "function": lambda: torch.jit.trace(bent, X),
    "of a scripted function": lambda: torch.jit.trace(called(torch.jit.script(bent)), X),
    "module": lambda: torch.jit.trace(Bent(), X),
}


def plain_of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    if not isinstance(function, Holding):
        return bent
    scale = function.scale.detach()
    return lambda x: bent(x * scale)


def jacobian_of(plain: Callable[[Tensor], Tensor], x: Tensor = X) -> Tensor:
    """Rows by finite use of plain backward passes, sample by sample."""
    rows = [torch.autograd.functional.jacobian(lambda z: plain(z[None])[0], sample) for sample in x]
    return torch.stack(rows)  # type: ignore[arg-type]


@pytest.fixture(params=[True, False], ids=["gradients on", "gradients off"])
def grad_mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.set_grad_enabled(request.param):
        yield


@pytest.mark.parametrize("name", SCRIPTED)
def test_scripts_have_first_derivatives_and_refuse_second_ones(name: str, grad_mode: None) -> None:
    function, T = SCRIPTED[name](), torch.randn(2, 3, 5, dtype=torch.float64)
    expected = jacobian_of(plain_of(function))
    for _ in range(3):  # it optimises itself from the second call on
        J = linearize(function, X)[1]
        torch.testing.assert_close(J.push(T).detach(), torch.einsum("byx,kbx->kby", expected, T))
        torch.testing.assert_close(J.pull(T).detach(), torch.einsum("byx,kby->kbx", expected, T))
        for second in (lambda J: J.second(T, T[0]), lambda J: J.second_push(T, T)):
            with pytest.raises(ModuleError, match="TorchScript has scripted has wrong second derivatives"):
                second(J)


@pytest.mark.parametrize("product", ["push", "pull"])
@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_gradients_of_products_with_scripts_are_refused(wrt: str, product: str) -> None:
    network, x = Holding(torch.jit.script(bent)), X.clone().requires_grad_()
    for _ in range(3):
        moved = getattr(linearize(network, x, wrt)[1], product)(torch.ones(1, 3, 5, dtype=torch.float64))
        assert moved.requires_grad
        with pytest.raises(ModuleError, match="gradients of products"):
            torch.autograd.grad(moved.square().sum(), x)
    with torch.no_grad():
        moved = getattr(linearize(network, x, wrt)[1], product)(torch.ones(1, 3, 5, dtype=torch.float64))
    assert not moved.requires_grad


@pytest.mark.parametrize("name", TRACED)
def test_traces_keep_every_derivative(name: str, grad_mode: None) -> None:
    function, T = TRACED[name](), torch.randn(2, 3, 5, dtype=torch.float64)
    expected = jacobian_of(bent)
    w = T[1]
    hessians = torch.stack(
        [
            torch.autograd.functional.hessian(lambda z, c=c: (bent(z[None])[0] * c).sum(), z)  # type: ignore[misc]
            for z, c in zip(X, w, strict=True)
        ]
    )
    for _ in range(3):
        J = linearize(function, X)[1]
        torch.testing.assert_close(J.push(T).detach(), torch.einsum("byx,kbx->kby", expected, T))
        torch.testing.assert_close(J.second(T, w).detach(), torch.einsum("kbx,bxz,lbz->bkl", T, hessians, T))


def test_calls_of_scripts_are_told_of_in_their_own_context_alone() -> None:
    script, trace, told = torch.jit.script(bent), torch.jit.trace(bent, X), []
    before = torch._C.ScriptFunction.__call__
    with ScriptCalls(told.append):
        script(X)
        with ScriptCalls(lambda traced: None):
            trace(X)
        torch.jit.script(Bent())(X)
    script(X)
    assert told == [False, True, False]
    assert torch._C.ScriptFunction.__call__ is before
    assert is_traced(trace)
    assert not is_traced(script)


@torch.library.custom_op("pullgeo_tests::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    """With a backward pass of its own."""
    return x.detach().clone() ** 3


@torch.library.custom_op("pullgeo_tests::bare", mutates_args=())
def bare(x: Tensor) -> Tensor:
    """Without derivative."""
    return x.detach().clone() ** 3


cube.register_fake(torch.empty_like)
bare.register_fake(torch.empty_like)
cube.register_autograd(
    lambda ctx, g: 3 * g * ctx.saved_tensors[0] ** 2,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
)
library: Any = torch.library.Library("pullgeo_tests", "FRAGMENT")
library.define("composed(Tensor x) -> Tensor")
library.impl("composed", lambda x: x**3, "CompositeExplicitAutograd")

OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "with its own backward pass": lambda x: cube(x) + x.sin(),
    "by its name": lambda x: torch.ops.pullgeo_tests.cube(x) + x.sin(),
    "by its overload": lambda x: torch.ops.pullgeo_tests.cube.default(x) + x.sin(),
    "composed of others": lambda x: torch.ops.pullgeo_tests.composed(x) + x.sin(),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_from_outside_have_every_derivative(name: str, grad_mode: None) -> None:
    T, w = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    slope, bend = 3 * X**2 + X.cos(), 6 * X - X.sin()
    for function in (OPERATORS[name], nn.Sequential(nn.Identity(), Called(OPERATORS[name]))):
        J = linearize(function, X)[1]
        for moved in (J.push(T), J.pull(T)):
            torch.testing.assert_close(moved.detach(), slope * T)
        torch.testing.assert_close(J.second_push(T, T.flip(0)).detach(), bend * T * T.flip(0))
        torch.testing.assert_close(J.second(T, w).detach(), torch.einsum("kbx,lbx,bx->bkl", T, T, bend * w))


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_from_outside_over_weights(name: str, grad_mode: None) -> None:
    network, T = Holding(OPERATORS[name]), torch.randn(2, 3, 5, dtype=torch.float64)
    z = X * network.scale.detach()
    slope = (3 * z**2 + z.cos()) * X
    J = linearize(network, X, "weight")[1]
    torch.testing.assert_close(J.push(T).detach(), slope * T)
    torch.testing.assert_close(J.pull(T).detach(), slope * T)
    torch.testing.assert_close(ggn_diag(network, X, Gaussian()).detach(), slope**2)


def test_operators_from_outside_on_parameters_alone() -> None:
    class Cubed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.linspace(0.2, 1.4, 10, dtype=torch.float64).reshape(2, 5))

        def forward(self, x: Tensor) -> Tensor:
            return x @ cube(self.weight).T

    network, T = Cubed(), torch.randn(3, 3, 10, dtype=torch.float64)
    J = linearize(network, X, "weight")[1]
    moved = torch.einsum("kboi,bi->kbo", 3 * network.weight.detach() ** 2 * T.reshape(3, 3, 2, 5), X)
    torch.testing.assert_close(J.push(T).detach(), moved)


def test_operators_without_derivative_are_refused() -> None:
    with pytest.raises(ModuleError, match="no autograd formula was registered"):
        linearize(lambda x: bare(x) + x, X)


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.skipif(not hasattr(nn.functional, "linear_cross_entropy"), reason="torch is older")
def test_chunked_cross_entropy() -> None:
    weight, target = torch.randn(7, 5, dtype=torch.float64), torch.tensor([1, 6, 0])
    options: Any = {"options": nn.LinearCrossEntropyOptions(), "reduction": "none"}  # type: ignore[attr-defined]

    def chunked(x: Tensor) -> Tensor:
        return nn.functional.linear_cross_entropy(x, weight, target[: len(x)], **options)[:, None]  # type: ignore[attr-defined]

    assert nn.functional.linear_cross_entropy in SUBSTITUTES  # type: ignore[attr-defined]
    p = (X @ weight.T).softmax(1)
    slope = p @ weight - weight[target]
    T = torch.randn(2, 3, 5, dtype=torch.float64)
    J = linearize(chunked, X)[1]
    torch.testing.assert_close(J.push(T).squeeze(-1), (slope * T).sum(-1))
    torch.testing.assert_close(J.pull(torch.ones(1, 3, 1, dtype=torch.float64))[0], slope)
    moved = T @ weight.T
    bend = torch.einsum("bc,kbc,lbc->bkl", p, moved, moved) - torch.einsum(
        "bk,bl->bkl", *[torch.einsum("bc,kbc->bk", p, moved)] * 2
    )
    torch.testing.assert_close(J.second(T, torch.ones(3, 1, dtype=torch.float64)), bend)
