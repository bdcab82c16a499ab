"""Weights of modules that are differentiated automatically: samples side by side, or one after another."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo.jacobian import AutodiffWeight, Signature, linearize


class Spectral(nn.Module):
    """Multiplies low frequencies by weights."""

    def __init__(self) -> None:
        super().__init__()
        self.real, self.imaginary = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x)[:, :3] * torch.complex(self.real, self.imaginary), n=5)


class Recurrent(nn.Module):
    """An LSTM's last output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.unsqueeze(-1))[0][:, -1]


class ManyRecurrent(nn.Module):
    """Recurrent layers of every kind, from given first states too."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, 3, 2, batch_first=True, bidirectional=True, proj_size=2)
        self.gru = nn.GRU(4, 2, batch_first=True)
        self.rnn = nn.RNN(2, 2, 2, batch_first=True, nonlinearity="relu", bias=False)
        self.start = nn.Parameter(torch.randn(1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.lstm(x.unsqueeze(-1))[0]
        h = self.gru(h, self.start.expand(-1, len(x), -1).contiguous())[0]
        return (self.rnn(h)[0] + h)[:, -1]


class Branchless(nn.Module):
    """Holds a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.grid, self.scale = torch.linspace(0.5, 1, 3, dtype=torch.float64), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.grid + self.scale).sin()


class Branching(nn.Module):
    """Looks at its values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if float(x.detach().abs().max()) > 0 else self.layer(-x)


class InPlace(nn.Module):
    """Writes into what it has computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mul_(2).add_(x[:, :4])


CASES: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "spectral": (Spectral, True),
    "in place": (InPlace, True),
    "prelu with as many channels as samples": (lambda: nn.Sequential(nn.Linear(5, 3), nn.PReLU(3)), True),
    "recurrent": (Recurrent, True),
    "recurrent, of many kinds": (ManyRecurrent, True),
    "branching": (Branching, False),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("grad", [True, False])
def test_products(name: str, grad: bool) -> None:
    make, together = CASES[name]
    module, x = make().double(), torch.randn(3, 5, dtype=torch.float64)
    y = module(x)
    n = sum(p.numel() for p in module.parameters())
    D = torch.stack([own_jacobian(module, sample) for sample in x.split(1)])
    J = AutodiffWeight(module, x, Signature(3, (n,), tuple(y.shape[1:]), y.dtype, y.device))
    with torch.set_grad_enabled(grad):
        for k in (2, 1):
            W, T = torch.randn(k, *y.shape, dtype=y.dtype), torch.randn(k, 3, n, dtype=y.dtype)
            torch.testing.assert_close(J.pull(W), torch.einsum("bop,kbo->kbp", D, W))
            torch.testing.assert_close(J.push(T), torch.einsum("bop,kbp->kbo", D, T))
        basis = J.signature.out_basis()
        torch.testing.assert_close(J.pull_diag(basis, basis), D.square().sum(1))
        torch.testing.assert_close(J.pull_diag_summed(basis, basis), D.square().sum((0, 1)))
        torch.testing.assert_close(J.cross_gram(basis, J, basis), torch.einsum("bop,cqp->bocq", D, D))
        torch.testing.assert_close(J.cross_diag(basis, J, basis), torch.einsum("bop,cop->obc", D, D))
    assert J.known.right["transforms"] is together


def own_jacobian(module: nn.Module, sample: Tensor) -> Tensor:
    """Of one sample, entry by entry of the output."""
    with torch.enable_grad():
        rows = [torch.autograd.grad(e, list(module.parameters()), retain_graph=True) for e in module(sample).flatten()]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def test_a_batched_derivative_that_is_wrong_is_noticed() -> None:
    class Doubled(torch.autograd.Function):
        """Batched over samples, its derivative is twice as large as it should be."""

        generate_vmap_rule = False

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx: object, inputs: object, output: object) -> None: ...

        @staticmethod
        def backward(ctx: object, w: Tensor) -> Tensor:
            return w

        @staticmethod
        def vmap(info: object, in_dims: tuple[int | None, ...], x: Tensor) -> tuple[Tensor, int | None]:
            return 2 * x, in_dims[0]

    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return Doubled.apply(self.layer(x)).sin()

    module, x = Wrong().double(), torch.randn(3, 5, dtype=torch.float64)
    J = AutodiffWeight(module, x, Signature(3, (12,), (2,), x.dtype, x.device))
    D = torch.stack([own_jacobian(module, sample) for sample in x.split(1)])
    W = torch.randn(2, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(J.pull(W), torch.einsum("bop,kbo->kbp", D, W))
    assert J.known.right["transforms"] is False


def test_gradients_of_products() -> None:
    module = Spectral().double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def pulled(x: Tensor, W: Tensor, *weights: Tensor) -> Tensor:
        return linearize(module, x, "weight")[1].pull(W)

    W = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pulled, (x, W, *module.parameters()))


def test_slices_are_transposed_without_the_imports_of_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("torch.func imports torch's compiler")

    monkeypatch.setattr("pullgeo.jacobian.tracing.ops.adjoint.vjp", refuse)

    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, -1] * x[:, 0]

    x = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    J = linearize(Last(), x)[1]
    W = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([W * x[:, -1], W * x[:, 0]], 3).unflatten(2, (4,)).transpose(2, 3)
    torch.testing.assert_close(J.pull(W), expected)
    assert torch.autograd.gradcheck(lambda x, W: linearize(Last(), x)[1].pull(W), (x, W))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("b", [1, 3])
def test_one_cotangent_needs_no_transform(b: int, grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain reverse mode serves, and all that it is connected to is found again."""
    module, x = Spectral().double(), torch.randn(b, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(1, b, 5, dtype=torch.float64)
    calls: list[str] = []
    entry = sys.modules["pullgeo.jacobian.weights.autodiff"]
    original = entry.vjp
    monkeypatch.setattr(entry, "vjp", lambda *a, **k: (calls.append("vjp"), original(*a, **k))[1])
    forwards: list[int] = []
    module.register_forward_hook(lambda *_: forwards.append(1))
    for _ in range(2):
        forwards.clear()
        with torch.set_grad_enabled(grad):
            pulled = linearize(module, x, "weight")[1].pull(w)
    assert (calls, len(forwards)) == ([], 2)  # the value, which is watched, and what is differentiated
    D = torch.stack([own_jacobian(module, sample) for sample in x.split(1)])
    torch.testing.assert_close(pulled, torch.einsum("bop,kbo->kbp", D, w))
    assert pulled.requires_grad == grad
    if grad:

        def gradients(p: Tensor) -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                p.square().sum(), [x, *module.parameters()], materialize_grads=True, allow_unused=True
            )

        rows = [
            torch.cat(
                torch.autograd.grad(module(x[i : i + 1]), list(module.parameters()), w[0, i : i + 1], create_graph=True)
            )
            for i in range(b)
        ]
        torch.testing.assert_close(gradients(pulled), gradients(torch.stack(rows)))


def test_a_plain_tensor_among_the_attributes_does_not_keep_a_run_away() -> None:
    """Several numbers are neither true nor false; a graph that is recorded later still sees the module as it was."""
    module, x = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), Branchless()).double(), torch.randn(3, 5, dtype=torch.float64)
    w = torch.randn(1, 3, 3, dtype=torch.float64)
    for _ in range(3):
        J = linearize(module, x, "weight")[1]
        J.pull(w)
    assert getattr(J.run, "trusted", False)  # type: ignore[attr-defined]
