"""Maps that torch's transforms cannot run: every product has the right value, or the same named error everywhere."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pullgeo import linearize
from pullgeo.errors import CoupledSamplesError, DtypeError, ModuleError
from pullgeo.jacobian import explain, sample_gradient_norms, sample_gradients, tangent_kernel
from pullgeo.likelihood import Gaussian
from pullgeo.likelihood.ggn import ggn, ggn_blocks, ggn_diag
from pullgeo.metric import Identity
from pullgeo.nnj import products
from tests.releases import KNOWN

F64 = torch.float64
B, D_IN, D_OUT = 3, 2, 5
X = torch.tensor([[0.7, -0.3], [0.2, 0.5], [-0.4, 0.1]], dtype=F64)
MODES: dict[str, Callable[[], Any]] = {
    "grad": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def mlp(out: int = D_OUT) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D_IN, 3), nn.Tanh(), nn.Linear(3, out)).double()


class Around(nn.Module):
    """A network, with something done to it."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Any], inner: nn.Module | None = None) -> None:
        super().__init__()
        self.inner = mlp() if inner is None else inner
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.inner, x)


class Old(torch.autograd.Function):
    """``x eˣ``, without setup_context, forward mode and vmap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.exp()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x + 1) * x.exp()


class Once(torch.autograd.Function):
    """The same, with a backward that cannot be differentiated."""

    forward = Old.forward

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x + 1) * x.exp()


class Hidden(torch.autograd.Function):
    """The same, with a backward that leaves torch, so that autograd would differentiate it to zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() * np.exp(x.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x = ctx.saved_tensors[0].detach().numpy()
        return torch.from_numpy(gradient.detach().numpy() * (x + 1) * np.exp(x))


class OldLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight, gradient.T @ x


def energy_of(inner: nn.Module, x: Tensor) -> Tensor:
    return inner(x).square().sum()


def forces(inner: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.clone().requires_grad_(True)
        return -torch.autograd.grad(energy_of(inner, x), x, create_graph=True)[0]


def forces_as_in_training(inner: nn.Module, x: Tensor) -> Tensor:
    x.requires_grad_(True)
    return -torch.autograd.grad(energy_of(inner, x), x, create_graph=True)[0]


def forces_where_needed(inner: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x if x.requires_grad else x.requires_grad_()
        return torch.autograd.grad(energy_of(inner, x), x, create_graph=True)[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(1, 3, batch_first=True).double()

    def forward(self, x: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x.unsqueeze(2), torch.full((len(x),), 2), batch_first=True)
        return self.gru(packed)[1][0]


class SparseTimes(nn.Module):
    """A sparse matrix times the output, held in a buffer."""

    def __init__(self, compress: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = mlp()
        torch.manual_seed(1)
        self.register_buffer("matrix", compress(torch.randn(4, D_OUT, dtype=F64)))

    def forward(self, x: Tensor) -> Tensor:
        return (self.matrix @ self.inner(x).T).T


class Counting(nn.Module):
    """Writes on itself, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)


def hooked(register: str, *hook: Callable[..., Any]) -> nn.Module:
    module = mlp()
    getattr(module[0], register)(*hook)
    return module


def old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = mlp()
        nn.utils.weight_norm(module[0])
    return module


SERVED: dict[str, Callable[[], nn.Module]] = {
    "packed sequence inside": Recurrent,
    "coo matrix": lambda: SparseTimes(Tensor.to_sparse),
    "csr matrix": lambda: SparseTimes(Tensor.to_sparse_csr),
    "csc matrix": lambda: SparseTimes(Tensor.to_sparse_csc),
    "nested tensor inside": lambda: Around(
        lambda f, x: torch.nested.to_padded_tensor(torch.nested.as_nested_tensor(list(f(x))), 0.0)
    ),
    "forces": lambda: Around(forces),
    "forces as in training": lambda: Around(forces_as_in_training),
    "forces where needed": lambda: Around(forces_where_needed),
    "forces by torch.func": lambda: Around(
        lambda f, x: torch.func.vmap(torch.func.grad(lambda z: f(z).square().sum()))(x)
    ),
    "old function": lambda: Around(lambda f, x: Old.apply(f(x))),
    "old function first": lambda: Around(lambda f, x: f(Old.apply(x))),
    "old function beside others": lambda: Around(lambda f, x: f(x).sin() + Old.apply(f(x))),
    "old function of weights": lambda: Around(
        lambda f, x: OldLinear.apply(x.tanh(), f.weight), nn.Linear(D_IN, D_OUT, bias=False).double()
    ),
    "reentrant checkpoint": lambda: Around(lambda f, x: checkpoint(f, x, use_reentrant=True)),
    "checkpoint": lambda: Around(lambda f, x: checkpoint(f, x, use_reentrant=False)),
    "input changed in place": lambda: Around(lambda f, x: f(x.mul_(2))),
    "values read by numpy": lambda: Around(lambda f, x: f(x) if np.isfinite(x.detach().numpy()).all() else x),
    "counter": Counting,
    "old weight norm": old_weight_norm,
    "spectral norm": lambda: (
        nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3)), nn.Tanh()).double().eval()
    ),
    "data parallel": lambda: nn.DataParallel(mlp()),
    "backward hook": lambda: hooked("register_full_backward_hook", lambda m, i, o: (2 * i[0],)),
    "backward pre-hook": lambda: hooked("register_full_backward_pre_hook", lambda m, o: None),
    "forward hook": lambda: hooked("register_forward_hook", lambda m, a, y: 2 * y),
    "compiled": lambda: torch.compile(mlp(), backend="eager"),
    "traced graph": lambda: torch.fx.symbolic_trace(mlp()),
}

ONCE: dict[str, Callable[[], nn.Module]] = {
    "once differentiable": lambda: Around(lambda f, x: Once.apply(f(x))),
    "hidden backward": lambda: Around(lambda f, x: Hidden.apply(f(x))),
    "hidden backward beside others": lambda: Around(lambda f, x: f(x).sin() + Hidden.apply(f(x))),
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:None of the inputs", "ignore:.*nested tensors", "ignore:Sparse", "ignore:Using `torch.compile"
)


def differences(f: Callable[[Tensor], Tensor], z: Tensor, h: float = 2e-3) -> Tensor:
    """The derivative of f at a vector, by differences of fourth order: no derivative of torch is asked."""
    steps = h * torch.eye(len(z), dtype=F64)
    columns = [(8 * (f(z + e) - f(z - e)) - f(z + 2 * e) + f(z - 2 * e)) / (12 * h) for e in steps]
    return torch.stack(columns, -1)


def value(module: nn.Module, x: Tensor) -> Tensor:
    return module(x.clone()).detach()


def by_input(module: nn.Module) -> Tensor:
    return torch.stack([differences(lambda z: value(module, z.unsqueeze(0)).squeeze(0), x) for x in X])


def by_weight(module: nn.Module) -> Tensor:
    parameters = list(module.parameters())

    def f(theta: Tensor) -> Tensor:
        for p, piece in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
            p.data = piece.view_as(p).clone()
        return value(module, X)

    theta = torch.cat([p.detach().reshape(-1) for p in parameters])
    found = differences(f, theta)
    f(theta)
    return found


def along(module: nn.Module, T: Tensor, h: float = 5e-3) -> Tensor:
    """The second derivative in one direction, by differences."""
    f = functools.partial(value, module)
    return (16 * (f(X + h * T) + f(X - h * T)) - f(X + 2 * h * T) - f(X - 2 * h * T) - 30 * f(X)) / (12 * h**2)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-7) -> None:
    torch.testing.assert_close(found.detach(), expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def truth() -> Callable[[str], tuple[nn.Module, Tensor, Tensor]]:
    @functools.cache
    def of(name: str) -> tuple[nn.Module, Tensor, Tensor]:
        module = (SERVED | ONCE)[name]()
        return module, by_input(module), by_weight(module)

    return of


Truth = Callable[[str], tuple[nn.Module, Tensor, Tensor]]


def check_first_order(module: nn.Module, wrt: str, J: Tensor) -> None:
    n_out, n = J.shape[1:]
    T, W = torch.randn(2, B, n, dtype=F64), torch.randn(2, B, n_out, dtype=F64)
    found = linearize(module, X, wrt)[1]
    close(found.push(T), torch.einsum("boi,kbi->kbo", J, T))
    close(found.pull(W), torch.einsum("boi,kbo->kbi", J, W))
    close(found.dense(), J)
    M = torch.randn(B, n_out, n_out, dtype=F64)
    close(products.jvp(module, X, None, T[0], wrt), torch.einsum("boi,bi->bo", J, T[0]))
    close(products.vjp(module, X, None, W[0], wrt), torch.einsum("boi,bo->bi", J, W[0]))
    close(products.jmjTp(module, X, None, None, wrt), J @ J.mT)
    close(products.jTmjp(module, X, None, M, wrt, to_diag=True), (J.mT @ M @ J).diagonal(dim1=1, dim2=2))
    close(Identity(n_out, F64).pullback(found).diag(), J.square().sum(1))
    close(ggn_diag(module, X, Gaussian(1.0), wrt), J.square().sum(1))


@pytest.mark.quick(27)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SERVED)
def test_every_product_has_the_right_value(name: str, mode: str, truth: Truth) -> None:
    if (name, mode) == ("spectral norm", "inference") and not KNOWN:
        pytest.skip("refused by a named error in older releases of torch, which cannot differentiate in inference mode")
    module, by_x, by_theta = truth(name)
    T, S, w = (
        torch.randn(B, D_IN, dtype=F64),
        torch.randn(B, D_IN, dtype=F64),
        torch.randn(value(module, X).shape).double(),
    )
    # polarisation: f''[t, s] from directions alone
    expected = (along(module, T + S) - along(module, T - S)) / 4
    with MODES[mode]():
        check_first_order(module, "input", by_x)
        check_first_order(module, "weight", by_theta)
        J = linearize(module, X)[1]
        close(J.second_push(T.unsqueeze(0), S.unsqueeze(0)).squeeze(0), expected, 1e-6)
        close(J.second(torch.stack([T, S]), w)[:, 0, 1], (expected * w).sum(1), 1e-6)


@pytest.mark.parametrize("name", [*SERVED, *ONCE])
def test_functions_and_bound_methods_have_the_same_values(name: str, truth: Truth) -> None:
    module, by_x, _ = truth(name)
    for decoder in (lambda z: module(z), module.forward, functools.partial(module)):
        close(linearize(decoder, X)[1].dense(), by_x)


@pytest.mark.parametrize("name", [name for name in SERVED if name not in ("input changed in place", "compiled")])
def test_gradients_flow_through_what_is_served(name: str, truth: Truth) -> None:
    module, by_x, _ = truth(name)
    x = X.clone().requires_grad_()
    w, t = torch.randn(by_x.shape[:2], dtype=F64), torch.randn(B, D_IN, dtype=F64)
    for product in (
        lambda J: (J.pull(w.unsqueeze(0)).squeeze(0) * t).sum(),
        lambda J: (J.push(t.unsqueeze(0)) * w).sum(),
    ):
        (found,) = torch.autograd.grad(product(linearize(module, x)[1]), x)
        along_t = torch.stack([along(module, t + e) - along(module, t - e) for e in torch.eye(D_IN, dtype=F64)], -1) / 4
        close(found, torch.einsum("boi,bo->bi", along_t, w), 1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ONCE)
def test_what_can_be_differentiated_once_is_served_once(name: str, mode: str, truth: Truth) -> None:
    module, by_x, by_theta = truth(name)
    with MODES[mode]():
        check_first_order(module, "input", by_x)
        check_first_order(module, "weight", by_theta)
        J = linearize(module, X)[1]
        T = torch.randn(1, B, D_IN, dtype=F64)
        for second in (lambda: J.second(T, torch.ones(B, D_OUT, dtype=F64)), lambda: J.second_push(T, T)):
            with pytest.raises(ModuleError, match=r"once but not twice.*once_differentiable"):
                second()


CALLS: dict[str, Callable[[Any, Any, str], object]] = {
    "linearize": lambda f, x, wrt: linearize(f, x, wrt),
    "explain": lambda f, x, wrt: explain(f, x, wrt),
    "jacobian": lambda f, x, wrt: products.jacobian(f, x, wrt=wrt),
    "jvp": lambda f, x, wrt: products.jvp(f, x, None, x, wrt),
    "vjp": lambda f, x, wrt: products.vjp(f, x, None, x, wrt),
    "jmp": lambda f, x, wrt: products.jmp(f, x, wrt=wrt),
    "mjp": lambda f, x, wrt: products.mjp(f, x, wrt=wrt),
    "jmjTp": lambda f, x, wrt: products.jmjTp(f, x, wrt=wrt),
    "jTmjp": lambda f, x, wrt: products.jTmjp(f, x, wrt=wrt),
    "ggn": lambda f, x, wrt: ggn(f, x, Gaussian(1.0), wrt).diag(),
    "ggn_diag": lambda f, x, wrt: ggn_diag(f, x, Gaussian(1.0), wrt),
    "ggn_blocks": lambda f, x, wrt: ggn_blocks(f, x, Gaussian(1.0)),
    "sample_gradients": lambda f, x, wrt: sample_gradients(f, x, lambda y: y.flatten(1).sum(1)),
    "sample_gradient_norms": lambda f, x, wrt: sample_gradient_norms(f, x, lambda y: y.flatten(1).sum(1)),
    "tangent_kernel": lambda f, x, wrt: tangent_kernel(f, x),
}
OF_WEIGHTS = ("ggn_blocks", "sample_gradients", "sample_gradient_norms", "tangent_kernel")

PACKED = nn.utils.rnn.pack_sequence([torch.randn(4, 2, dtype=F64), torch.randn(2, 2, dtype=F64)])
RAGGED = [torch.randn(2, 2, dtype=F64), torch.randn(3, 2, dtype=F64)]


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.inner(x) * condition


class Keyword(Conditional):
    def forward(self, x: Tensor, *, condition: Tensor) -> Tensor:
        return self.inner(x) * condition


class SparseWeight(nn.Module):
    def __init__(self, compress: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(compress(torch.randn(D_OUT, D_IN, dtype=F64)))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.T).T


def autocast(inner: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return inner(x)


def returning(given: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    return lambda: (Around(lambda f, x: given(f(x))), X)


Refused = tuple[Callable[[], tuple[Any, Any]], type[Exception], str, tuple[str, ...]]
BOTH, WEIGHT, INPUT = ("input", "weight"), ("weight",), ("input",)

REFUSED: dict[str, Refused] = {
    "packed sequence as input": (lambda: (Recurrent(), PACKED), DtypeError, "pad_packed_sequence", BOTH),
    "packed sequence as output": (
        lambda: (
            Around(lambda f, x: nn.utils.rnn.pack_sequence(list(f(x).unsqueeze(2)))),
            X,
        ),
        ModuleError,
        "returned PackedSequence",
        BOTH,
    ),
    "coo input": (lambda: (mlp(), X.to_sparse()), DtypeError, r"torch.sparse_coo.*to_dense", BOTH),
    "csr input": (lambda: (mlp(), X.to_sparse_csr()), DtypeError, r"torch.sparse_csr.*to_dense", BOTH),
    "csc input": (lambda: (mlp(), X.to_sparse_csc()), DtypeError, r"torch.sparse_csc.*to_dense", BOTH),
    "bsr input": (lambda: (mlp(), torch.ones(4, 2).double().to_sparse_bsr((2, 2))), DtypeError, "sparse_bsr", BOTH),
    "nested input": (lambda: (mlp(), torch.nested.nested_tensor(RAGGED)), DtypeError, "to_padded_tensor", BOTH),
    "jagged input": (
        lambda: (mlp(), torch.nested.nested_tensor(RAGGED, layout=torch.jagged)),
        DtypeError,
        "to_padded_tensor",
        BOTH,
    ),
    "coo output": (returning(Tensor.to_sparse), ModuleError, r"returned a torch.sparse_coo.*to_dense", BOTH),
    "csr output": (returning(Tensor.to_sparse_csr), ModuleError, r"returned a torch.sparse_csr.*to_dense", BOTH),
    "nested output": (
        returning(lambda y: torch.nested.as_nested_tensor(list(y))),
        ModuleError,
        "returned a nested.*to_padded_tensor",
        BOTH,
    ),
    "coo weight": (lambda: (SparseWeight(Tensor.to_sparse), X), ModuleError, "parameter weight is a torch.sp", WEIGHT),
    "csr weight": (lambda: (SparseWeight(Tensor.to_sparse_csr), X), ModuleError, "weight is a torch.sparse", WEIGHT),
    "second argument": (lambda: (Conditional(), X), ModuleError, "'condition'.*functools.partial", BOTH),
    "second argument by keyword": (lambda: (Keyword(), X), ModuleError, "'condition'.*functools.partial", BOTH),
    "no forward": (lambda: (nn.ModuleList([mlp()]), X), ModuleError, "no forward", BOTH),
    "numpy": (
        lambda: (Around(lambda f, x: torch.from_numpy(np.tanh(f(x).detach().numpy()))), X),
        ModuleError,
        "NumPy",
        BOTH,
    ),
    "forces without a graph": (
        lambda: (Around(lambda f, x: torch.autograd.grad(energy_of(f, x.requires_grad_()), x)[0]), X),
        ModuleError,
        "create_graph=True",
        BOTH,
    ),
    "forces of a detached input": (
        lambda: (Around(lambda f, x: forces(f, x.detach())), X),
        ModuleError,
        "detach",
        INPUT,
    ),
    "bfloat16 by autocast": (
        lambda: (Around(autocast, mlp().float()), X.float()),
        ModuleError,
        r"bfloat16 for torch.float32 inputs.*autocast",
        BOTH,
    ),
    "half output": (returning(Tensor.half), ModuleError, "float16 for torch.float64 inputs", BOTH),
    "output on meta": (returning(lambda y: y.to("meta")), ModuleError, "returned a tensor on meta", BOTH),
    "none": (returning(lambda y: None), ModuleError, "returned NoneType", BOTH),
    "string": (returning(str), ModuleError, "returned str", BOTH),
    "list": (returning(list), ModuleError, "returned list", BOTH),
    "indices": (returning(lambda y: y.argmax(1)), ModuleError, r"returned torch.int64", BOTH),
    "booleans": (returning(lambda y: y > 0), ModuleError, r"returned torch.bool", BOTH),
    "complex": (returning(torch.fft.fft), ModuleError, "returned torch.complex128", BOTH),
    "scripted": (lambda: (torch.jit.script(mlp()), X), ModuleError, "TorchScript", WEIGHT),
    "frozen": (lambda: (torch.jit.freeze(torch.jit.script(mlp().eval())), X), ModuleError, "parameters", WEIGHT),
    "spectral norm in train mode": (
        lambda: (nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3).double())), X),
        CoupledSamplesError,
        "spectral norm in train mode.*eval",
        BOTH,
    ),
    "output without gradients": (
        lambda: (Around(lambda f, x: torch.no_grad()(f)(x)), X),
        ModuleError,
        "no_grad|leads back",
        BOTH,
    ),
    "output from inference mode": (
        lambda: (Around(lambda f, x: torch.inference_mode()(f)(x)), X),
        ModuleError,
        "leads back",
        BOTH,
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REFUSED)
def test_everything_raises_the_same_named_error(name: str, mode: str, without_type_checks: None) -> None:
    make, error, text, wrts = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, x = make()
        for wrt in wrts:
            for call in CALLS:
                if call in OF_WEIGHTS and wrt == "input":
                    continue
                if name == "frozen" and call in ("jacobian", "jvp", "vjp", "jmp", "mjp", "jmjTp", "jTmjp"):
                    continue  # None: it has no parameters
                if name == "output from inference mode" and mode == "inference":
                    continue  # it is in that mode already
                with MODES[mode](), pytest.raises(error, match=text):
                    CALLS[call](module, x, wrt)


@pytest.mark.parametrize("mode", MODES)
def test_frozen_and_traced_modules_are_served_by_input(mode: str) -> None:
    plain = mlp().eval()
    expected = by_input(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted, traced = torch.jit.script(plain), torch.jit.trace(plain, X)
        modules = [scripted, traced, torch.jit.freeze(scripted), torch.jit.freeze(traced)]
    for module in modules:
        with MODES[mode]():
            J = linearize(module, X)[1]
            close(J.push(J.signature.in_basis()).permute(1, 2, 0), expected)
            close(J.pull(J.signature.out_basis()).permute(1, 0, 2), expected)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_exported_for_one_batch_size_runs_on_the_whole_batch(mode: str) -> None:
    plain = mlp()
    exported = torch.export.export(plain, (X,)).module()
    with MODES[mode]():
        for wrt in BOTH:
            J, expected = linearize(exported, X, wrt)[1], linearize(plain, X, wrt)[1].dense()
            basis = J.signature.out_basis()
            torch.testing.assert_close(J.pull(basis).flatten(2).transpose(0, 1), expected)


def test_the_cause_is_what_torch_raised() -> None:
    J = linearize(Around(lambda f, x: Once.apply(f(x))), X)[1]
    with pytest.raises(ModuleError) as caught:
        J.second(J.signature.in_basis(), torch.ones(len(X), D_OUT, dtype=F64))
    assert "setup_context" in str(caught.value.__cause__)


class MineError(Exception):
    """The caller's own."""


@pytest.mark.parametrize("error", [KeyError("mine"), ValueError("mine"), RuntimeError("mine"), MineError("mine")])
@pytest.mark.parametrize("wrt", ["input", "weight"])
@pytest.mark.parametrize("mode", MODES)
def test_errors_of_the_caller_stay_what_they_are(error: Exception, wrt: str, mode: str) -> None:
    def fail(f: nn.Module, x: Tensor) -> Tensor:
        raise error

    for call in ("linearize", "explain", "jTmjp", "ggn_diag"):
        with MODES[mode](), pytest.raises(type(error)) as caught:
            CALLS[call](Around(fail), X, wrt)
        assert caught.value is error


@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_errors_of_the_caller_that_come_later_stay_what_they_are(wrt: str) -> None:
    broken = False

    def fail(f: nn.Module, x: Tensor) -> Tensor:
        if broken:
            raise KeyError("mine")
        return torch.fft.rfft(f(x)).abs()

    J = linearize(Around(fail), X, wrt)[1]
    broken = True
    with pytest.raises(KeyError, match="mine"):
        J.pull(J.signature.out_basis())


def test_a_shape_that_does_not_fit_the_module_is_told_by_the_module() -> None:
    for wrt in ("input", "weight"):
        with pytest.raises(RuntimeError, match=r"mat1 and mat2 shapes"):
            linearize(mlp(), torch.randn(3, 7, dtype=F64), wrt)


def test_quantised_modules_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.ao.quantization.quantize_dynamic(mlp().float(), {nn.Linear})
    with pytest.raises(ModuleError, match="quantised"):
        linearize(module, X.float())


@pytest.fixture
def process_group() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore")
def test_modules_of_several_processes(process_group: None) -> None:
    from torch.distributed import fsdp
    from torch.distributed.device_mesh import init_device_mesh

    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("torch is older")
    whole = nn.parallel.DistributedDataParallel(mlp())
    check_first_order(whole, "input", by_input(mlp()))
    check_first_order(whole, "weight", by_weight(mlp()))
    sharded = [
        fsdp.fully_shard(mlp(), mesh=init_device_mesh("cpu", (1,))),
        fsdp.FullyShardedDataParallel(mlp(), device_id=torch.device("cpu")),
    ]
    for module in sharded:
        for wrt in BOTH:
            for call in ("linearize", "explain", "jTmjp", "ggn_diag"):
                with pytest.raises(ModuleError, match=r"full_tensor|summon_full_params"):
                    CALLS[call](module, X, wrt)


def test_partial_fixes_a_second_argument() -> None:
    module, condition = Conditional(), torch.rand(B, 1, dtype=F64)
    J = linearize(functools.partial(module, condition=condition[:1]), X)[1]
    close(J.dense(), by_input(module.inner) * condition[0])


def test_a_table_with_sparse_gradients_has_second_derivatives() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Tanh(), nn.Linear(3, 2)).double()
    dense = nn.Sequential(nn.Embedding(5, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    dense.load_state_dict(module.state_dict())
    x = torch.tensor([[1], [2], [4]])
    found, expected = (linearize(f, x, "weight")[1] for f in (module, dense))
    T, w = torch.randn(2, 3, found.signature.n_in, dtype=F64), torch.randn(3, 1, 2, dtype=F64)
    close(found.second(T, w), expected.second(T, w))
    close(found.second_push(T, T), expected.second_push(T, T))
