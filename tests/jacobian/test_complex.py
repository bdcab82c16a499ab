"""Complex parameters: two real coordinates for each entry; complex inputs and outputs are refused by name."""

import copy

import pytest
import torch
from torch import Tensor, nn

from pullgeo import nnj
from pullgeo.errors import DtypeError, ModuleError
from pullgeo.jacobian import (
    linearize,
    named_sample_gradients,
    sample_gradient_norms,
    sample_gradients,
    tangent_kernel,
)
from pullgeo.likelihood import Gaussian, ggn, ggn_blocks, ggn_diag
from pullgeo.testing import oracles
from tests.jacobian.architectures import close, random


class Spectral(nn.Module):
    """A product with complex numbers between Fourier transforms, kept as pairs or as complex numbers."""

    def __init__(self, pairs: Tensor, as_pairs: bool) -> None:
        super().__init__()
        self.w = nn.Parameter(pairs.clone() if as_pairs else torch.view_as_complex(pairs).clone())
        self.as_pairs = as_pairs

    def forward(self, x: Tensor) -> Tensor:
        w = torch.complex(self.w[..., 0], self.w[..., 1]) if self.as_pairs else self.w
        return (torch.fft.fft(x) @ w).real


def lone(as_pairs: bool) -> nn.Module:
    return Spectral(random(3, 2, 2), as_pairs)


def mixed(as_pairs: bool) -> nn.Module:
    torch.manual_seed(3)
    real = [nn.Linear(3, 5).double(), nn.Linear(2, 2).double()]
    return nn.Sequential(real[0], nn.Tanh(), Spectral(random(5, 2, 2), as_pairs), nn.Tanh(), real[1])


def tied(as_pairs: bool) -> nn.Module:
    part = Spectral(random(3, 3, 2), as_pairs)
    return nn.Sequential(part, nn.Tanh(), part)


class Own(nn.Module):
    """Real and complex parameters of one module, the complex one used by its absolute values alone."""

    def __init__(self, as_pairs: bool) -> None:
        super().__init__()
        self.a = nn.Parameter(random(3))
        self.w = nn.Parameter(random(3, 2, seed=1) if as_pairs else torch.view_as_complex(random(3, 2, seed=1)))

    def forward(self, x: Tensor) -> Tensor:
        squares = self.w.square().sum(-1) if self.w.ndim == 2 else self.w.abs().square()
        return (self.a * x * squares.sqrt()).sin()


def frozen(as_pairs: bool) -> nn.Module:
    return Own(as_pairs).requires_grad_(False)


BUILD = [lone, mixed, tied, Own, frozen]
X = random(3, 3, seed=5)


@pytest.mark.parametrize("build", BUILD)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_products_are_those_of_the_pairs(build: type[nn.Module], mode: type[torch.no_grad]) -> None:
    module, pairs = build(False), build(True)
    truth = oracles.dense_jacobian(pairs, X, "weight")
    _, k, n = truth.shape
    T, W = random(4, 3, n, seed=6), random(4, 3, k, seed=7)
    form = oracles.second_form(pairs, X, W[0], T, "weight")
    with mode():
        J = linearize(module, X, "weight")[1]
        assert (J.signature.n_in, J.signature.n_out) == (n, k)
        close(J.dense().detach(), truth)
        close(J.push(T).detach(), torch.einsum("bop,kbp->kbo", truth, T))
        close(J.pull(W).detach(), torch.einsum("bop,kbo->kbp", truth, W))
        close(J.pull_squared(W.square()).detach(), torch.einsum("bop,kbo->kbp", truth.square(), W.square()))
        close(J.pull_diag(W, W).detach(), torch.einsum("bop,kbo->kbp", truth, W).square().sum(0))
        close(J.second(T, W[0]).detach(), form)
        close(ggn_diag(module, X, Gaussian()).detach(), truth.square().sum(1))
        close(ggn(module, X, Gaussian(), "weight").dense().detach(), truth.mT @ truth)
        kernel = torch.einsum("bop,cqp->bocq", truth, truth)
        close(tangent_kernel(module, X).detach(), kernel)
        close(tangent_kernel(module, X, outputs="trace").detach(), torch.einsum("boco->bc", kernel))
        gradients = torch.einsum("bop,bo->bp", truth, W[0])
        close(sample_gradients(module, X, W[0]).detach(), gradients)
        close(sample_gradient_norms(module, X, W[0]).detach(), gradients.norm(dim=1))


@pytest.mark.parametrize("build", [lone, mixed])
def test_with_respect_to_the_input(build: type[nn.Module]) -> None:
    truth = oracles.dense_jacobian(build(True), X)
    J = linearize(build(False), X)[1]
    close(J.push(J.signature.in_basis()).permute(1, 2, 0).detach(), truth)
    close(J.pull(J.signature.out_basis()).permute(1, 0, 2).detach(), truth)
    T, w = random(4, 3, 3, seed=6), random(3, 2, seed=7)
    close(J.second(T, w).detach(), oracles.second_form(build(True), X, w, T))


def test_products_of_nnj_blocks_and_weights(without_type_checks: None) -> None:
    module, pairs = nnj.convert_to_nnj(mixed(False)), nnj.convert_to_nnj(mixed(True))
    for call in ("jacobian", "jTmjp", "jmjTp"):
        got, expected = (getattr(m, call)(X, wrt="weight") for m in (module, pairs))
        for a, b in zip(got, expected, strict=True):
            close(a.detach(), b.detach())
    close(module.jTmjp(X, wrt="weight", to_diag=True).detach(), pairs.jTmjp(X, wrt="weight", to_diag=True).detach())
    close(ggn_blocks(module, X, Gaussian()).dense().detach(), ggn_blocks(pairs, X, Gaussian()).dense().detach())
    assert module._n_params == pairs._n_params == len(module.get_weight()) == 5 * 4 + 5 * 2 * 2 + 3 * 2
    torch.testing.assert_close(module.get_weight(), pairs.get_weight())
    other = copy.deepcopy(module)
    other.set_weight(2 * module.get_weight().detach())
    torch.testing.assert_close(other.get_weight(), 2 * module.get_weight())
    with pytest.raises(DtypeError, match="view_as_real"):
        other.set_weight(module.get_weight().detach().to(torch.complex128))


def test_gradients_by_name_are_those_that_torch_keeps() -> None:
    module, x, w = mixed(False), X[:1], random(1, 2)
    found = named_sample_gradients(module, x, w)
    (module(x) * w).sum().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(found[name][0].detach(), parameter.grad)


def test_single_precision() -> None:
    module = mixed(False)
    w = module[2].w.detach().to(torch.complex64)
    module[2].w = None
    module.float()[2].w = nn.Parameter(w)
    J = linearize(module, X.float(), "weight")[1]
    truth = oracles.dense_jacobian(mixed(True), X, "weight")
    assert J.dense().dtype == torch.float32
    torch.testing.assert_close(J.dense().detach().double(), truth, rtol=1e-4, atol=1e-4)
    assert bool((ggn_diag(module, X.float(), Gaussian()) >= 0).all())


class ToComplex(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x)


def test_complex_numbers_between_layers() -> None:
    module = nn.Sequential(ToComplex(), nn.Linear(3, 2, dtype=torch.complex128), nn.Flatten(), Absolute())
    for wrt in ("input", "weight"):
        J = linearize(module, X, wrt)[1]
        pushed, pulled = J.push(J.signature.in_basis()), J.pull(J.signature.out_basis())
        close(pushed.permute(1, 2, 0).detach(), pulled.permute(1, 0, 2).detach())
    truth = oracles.dense_jacobian_fd(module, X)
    torch.testing.assert_close(linearize(module, X)[1].dense().detach(), truth, rtol=1e-8, atol=1e-8)


class Absolute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


def test_complex_inputs_and_outputs_are_refused_by_name() -> None:
    for module in (nn.Linear(3, 2, dtype=torch.complex128), nn.Sequential(nn.Linear(3, 2, dtype=torch.complex128))):
        with pytest.raises(DtypeError, match=r"x must be real .*view_as_real"):
            linearize(module, X.to(torch.complex128))
        with pytest.raises(ModuleError, match=r"returned torch.complex128.*view_as_real"):
            linearize(module, X.to(torch.complex128), "weight")
    for function in (torch.fft.fft, ToComplex(), nn.Sequential(nn.Tanh(), ToComplex())):
        with pytest.raises(ModuleError, match=r"returned torch.complex128.*view_as_real"):
            linearize(function, X)
    with pytest.raises(DtypeError, match=r"parameters are torch\.float64"):
        linearize(lone(False), X.float())


def test_complex_inputs_serve_weights() -> None:
    z = torch.complex(X, random(3, 3, seed=9))
    module = nn.Sequential(nn.Linear(3, 2, dtype=torch.complex128), Absolute())
    J = linearize(module, z, "weight")[1]
    got = J.dense().detach()
    for o in range(2):
        for b in range(3):
            grads = torch.autograd.grad(module(z[b : b + 1])[0, o], list(module.parameters()))
            close(got[b, o], torch.cat([torch.view_as_real(g).flatten() for g in grads]))


CONSTANT = torch.view_as_complex(random(3, 3, 2, seed=11))


class Converted(nn.Module):
    """Real numbers that become complex by a conversion, beside some that stay real."""

    def __init__(self, convert: str) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3).double()
        self.convert = convert

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        z = y.type_as(CONSTANT) if self.convert == "type_as" else getattr(y, self.convert)(CONSTANT.dtype)
        return (z @ CONSTANT).real + torch.sin(y)


class OfParameters(nn.Module):
    """A complex number made of real parameters, beside real numbers."""

    def __init__(self, make: str) -> None:
        super().__init__()
        self.a = nn.Parameter(random(3, 2, seed=13))
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        a = self.a
        c = {"complex": lambda: torch.complex(a[:, 0], a[:, 1]), "times": lambda: a[:, 0] + 1j * a[:, 1]}.get(
            self.make, lambda: a[:, 0].to(CONSTANT.dtype) * CONSTANT[0]
        )()
        return torch.sin(x * c.abs()) + c.imag


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize(
    "module",
    [*(Converted(name) for name in ("to", "type", "type_as")), *map(OfParameters, ("complex", "times", "to"))],
    ids=lambda module: f"{type(module).__name__} {vars(module).get('convert', vars(module).get('make'))}",
)
def test_what_becomes_complex_on_the_way_is_no_constant(module: nn.Module, mode: type[torch.no_grad]) -> None:
    for wrt in ("input", "weight"):
        truth = oracles.dense_jacobian(module, X, wrt)
        with mode():
            J = linearize(module, X, wrt)[1]
        close(J.dense().detach(), truth)
        close(J.pull(J.signature.out_basis()).detach().transpose(0, 1), truth)
