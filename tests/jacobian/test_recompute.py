"""Chunks that are computed again in the backward pass: gradients are right, and nothing of a sweep is kept."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from pullgeo import linearize
from pullgeo.errors import TensorChangedError
from pullgeo.jacobian import BatchSum, tangent_kernel
from pullgeo.jacobian.recompute import over_chunks, recomputed
from pullgeo.likelihood import Categorical, Gaussian, ggn_blocks, ggn_diag, sampled_ggn_diag
from pullgeo.metric import Identity, hutchinson_diag, monte_carlo_diag
from tests.nnj.memory import Meter
from tests.releases import newer_torch


class Recurrent(nn.Module):
    """Differentiated automatically, with respect to input and weights."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 3, batch_first=True)
        self.head = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.reshape(len(x), 3, 2))[0][:, -1])


class Gated(nn.Module):
    """A graph whose parameters are used by themselves, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(4, 5)
        self.gate = nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x)) * torch.sin(self.gate)
        return self.last(h + h * self.gate)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 5), nn.Sigmoid())


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)),
        nn.Conv1d(1, 3, 3, padding=1),
        nn.Tanh(),
        nn.ConvTranspose1d(3, 2, 2),
        nn.Flatten(),
        nn.Linear(14, 5),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "convolutions": convolutions,
    "graph": Gated,
    "slices": lambda: Selecting(),
    "automatic": Recurrent,
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    return NETWORKS[request.param]().double()


def jacobians(network: nn.Module, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """``(b, n_out, P)``, by torch.autograd alone, connected to points and weights."""
    rows = []
    for sample in x.split(1):
        y = functional_call(network, weights, (sample,)).flatten()
        found = [torch.autograd.grad(e, list(weights.values()), create_graph=True) for e in y]
        rows.append(torch.stack([torch.cat([g.flatten() for g in row]) for row in found]))
    return torch.stack(rows)


def contractions(
    network: nn.Module, x: Tensor
) -> Iterator[tuple[str, Callable[[], Tensor], Callable[[Tensor], Tensor]]]:
    """Names, what is computed in chunks of two of five outputs, and the same of dense Jacobians."""
    M = torch.randn(5, 5, dtype=x.dtype)

    def J() -> object:
        return linearize(network, x, "weight")[1].in_chunks(2)

    def basis() -> Tensor:
        return J().signature.out_basis()

    def turned() -> Tensor:
        return torch.einsum("kl,lbo->kbo", M, basis())

    yield "pull_diag", lambda: J().pull_diag(basis(), turned()), lambda D: torch.einsum("bop,bqp,oq->bp", D, D, M)
    yield "pull_gram", lambda: J().pull_gram(basis(), turned()), lambda D: torch.einsum("bop,bqp,kq->bok", D, D, M)
    yield "pull_outer", lambda: J().pull_outer(basis(), turned()), lambda D: torch.einsum("bop,bqr,oq->bpr", D, D, M)
    yield "dense", lambda: J().dense(), lambda D: D
    yield "sum of diagonals", lambda: BatchSum(J()).pull_diag(basis(), basis()), lambda D: D.square().sum((0, 1))
    yield "sum of matrices", lambda: BatchSum(J()).pull_outer(basis(), basis()), lambda D: (D.mT @ D).sum(0)
    yield "squares", lambda: J().pull_squared(turned()[:2]), lambda D: torch.einsum("ko,bop->kbp", M[:2], D.square())
    yield "kernel", lambda: tangent_kernel(network, x, chunk_size=2), lambda D: torch.einsum("bop,cqp->bocq", D, D)
    yield (
        "diagonal kernel",
        lambda: tangent_kernel(network, x, outputs="diagonal", chunk_size=2),
        lambda D: torch.einsum("bop,cop->bco", D, D),
    )
    yield "diagonal", lambda: ggn_diag(network, x, Gaussian(), chunk_size=2), lambda D: D.square().sum(1)
    yield (
        "summed diagonal",
        lambda: ggn_diag(network, x, Gaussian(), reduction="sum", chunk_size=2),
        lambda D: D.square().sum((0, 1)),
    )


@pytest.mark.heavy
def test_gradients_of_contractions_in_chunks(network: nn.Module) -> None:
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    weights = dict(network.named_parameters())
    D = jacobians(network, x, weights)
    for name, ours, theirs in contractions(network, x):
        found, expected = ours(), theirs(D)
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")
        weight = torch.randn_like(found)
        arguments = [x, *weights.values()]
        gradients = torch.autograd.grad(found, arguments, weight, allow_unused=True)
        oracle = torch.autograd.grad(expected, arguments, weight, retain_graph=True, allow_unused=True)
        for left, right in zip(gradients, oracle, strict=True):
            zero = torch.zeros(()) if right is None else torch.zeros_like(right)
            left, right = (zero if g is None else g for g in (left, right))
            torch.testing.assert_close(left, right, msg=lambda text, name=name: f"gradient of {name}: {text}")


def test_second_derivatives() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)

    def diagonal(x: Tensor, *weights: Tensor) -> Tensor:
        return ggn_diag(network, x, Categorical(), reduction="sum", chunk_size=1)

    arguments = (x, *network.parameters())
    assert torch.autograd.gradcheck(diagonal, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(diagonal, arguments, fast_mode=True)


@pytest.mark.parametrize("name", ["blocks", "sampled", "hutchinson", "monte carlo", "metric"])
def test_gradients_with_chunks_are_those_without(name: str) -> None:
    network, x = mlp().double(), torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def found(chunk_size: int | None) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        J = linearize(network, x, "weight")[1].in_chunks(chunk_size)
        M = Identity(5, torch.float64)
        if name == "blocks":
            return torch.cat([b.flatten() for b in ggn_blocks(network, x, Categorical(), chunk_size=chunk_size).blocks])
        if name == "sampled":
            return sampled_ggn_diag(network, x, Categorical(), generator, 5, "weight", chunk_size=chunk_size).value
        if name == "hutchinson":
            return hutchinson_diag(J, M, 5, generator).value
        if name == "monte carlo":
            return monte_carlo_diag(J, M, 5, generator, reduction="sum").value
        return torch.stack([M.pullback(J).dense(), M.pullback(J).to_dense().dense()])

    left, right = found(2), found(None)
    torch.testing.assert_close(left, right)
    weight, arguments = torch.randn_like(left), [x, *network.parameters()]
    gradients = [torch.autograd.grad(value, arguments, weight) for value in (left, right)]
    torch.testing.assert_close(*gradients)


def deep_convolutions() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(1, 4, 3, padding=1)]
    for _ in range(3):
        layers += [nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))


@pytest.mark.full
@pytest.mark.heavy
def test_a_diagonal_that_can_be_differentiated_takes_the_memory_of_a_chunk() -> None:
    network, x = deep_convolutions(), torch.randn(1, 1, 12, 12)
    ggn_diag(network, x, Gaussian(), chunk_size=8)
    peaks = {}
    for grad in (False, True):
        for size in (4, 36):
            with torch.set_grad_enabled(grad), Meter() as meter:
                diagonal = ggn_diag(network, x, Gaussian(), chunk_size=size)
            peaks[grad, size] = meter.peak
            assert diagonal.requires_grad == grad
    assert peaks[True, 4] < 1.2 * peaks[False, 4]
    assert peaks[True, 36] < 1.2 * peaks[False, 36]
    assert peaks[True, 4] < peaks[True, 36] / 2
    with Meter() as meter:  # and its backward pass that of the graph of one chunk
        diagonal = ggn_diag(network, x, Gaussian(), chunk_size=4)
        diagonal.sum().backward()
    kept = Meter()
    with kept:
        ggn_diag(network, x, Gaussian(), chunk_size=144).sum().backward()
    assert meter.peak < kept.peak / 8


@pytest.mark.full
@pytest.mark.parametrize("outputs", ["full", "diagonal", "trace"])
@pytest.mark.heavy
def test_kernels_keep_no_graph(outputs: str) -> None:
    network, x = deep_convolutions(), torch.randn(2, 1, 8, 8)
    peaks = []
    for grad in (False, True):
        with torch.set_grad_enabled(grad), Meter() as meter:
            tangent_kernel(network, x, outputs=outputs, chunk_size=8)
        peaks.append(meter.peak)
    assert peaks[1] < 1.2 * peaks[0]


def test_nothing_of_a_chunk_is_saved() -> None:
    network, x = mlp(), torch.randn(3, 6)
    J = linearize(network, x, "weight")[1].in_chunks(1)
    basis, saved = J.signature.out_basis(), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        J.pull_diag(basis, basis)
    known = {p.data_ptr() for p in network.parameters()}
    others = {t.data_ptr(): t.shape for t in saved if t.data_ptr() not in known}
    assert all(shape[0] == 3 for shape in others.values())  # activations of the one forward pass, not stacks
    assert len(others) <= 4


def test_without_gradients_nothing_is_connected() -> None:
    network = mlp()
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert not ggn_diag(network, torch.randn(3, 6), Gaussian(), chunk_size=1).requires_grad
    network.requires_grad_()
    with torch.inference_mode():
        assert ggn_diag(network, torch.randn(3, 6), Gaussian(), chunk_size=1).is_inference()


@pytest.mark.heavy
def test_under_transforms() -> None:
    network = mlp().double()
    x = torch.randn(2, 6, dtype=torch.float64)

    def diagonal(x: Tensor, size: int | None = 2) -> Tensor:
        return ggn_diag(network, x, Gaussian(), wrt="weight", chunk_size=size)

    x_ = x.clone().requires_grad_()
    expected = torch.autograd.functional.jacobian(lambda x: diagonal(x, None), x_)
    torch.testing.assert_close(torch.autograd.functional.jacobian(diagonal, x_), expected)
    torch.testing.assert_close(jacrev(diagonal)(x), expected)
    with torch.autograd.forward_ad.dual_level():
        t = torch.randn_like(x)
        dual = torch.autograd.forward_ad.make_dual(x, t)
        tangent = torch.autograd.forward_ad.unpack_dual(diagonal(dual)).tangent
    torch.testing.assert_close(tangent, torch.einsum("bpcx,cx->bp", expected, t))


def test_what_is_written_into_is_noticed() -> None:
    w, x = torch.randn(3, requires_grad=True), torch.randn(3)
    y = recomputed(lambda: (w * x).sin())
    x.mul_(2)
    with pytest.raises(TensorChangedError, match="written into before the backward pass"):
        y.sum().backward()
    y = recomputed(lambda: (w * x).sin())
    with torch.no_grad():
        w.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_second_backward_pass_needs_the_graph() -> None:
    w = torch.randn(3, requires_grad=True)
    y = recomputed(lambda: w.sin())
    first, second = (torch.autograd.grad(y.sum(), w, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


def test_paths_between_what_was_used_count_once() -> None:
    a = torch.randn(3, dtype=torch.float64, requires_grad=True)
    b = a.sin()
    values = list(over_chunks(range(3), lambda i: (a * b + i * b.square(), (a * i).exp())))
    plain = [(a * b + i * b.square(), (a * i).exp()) for i in range(3)]
    total, expected = (sum(u.sum() + 2 * v.sum() for u, v in terms) for terms in (values, plain))
    torch.testing.assert_close(*(torch.autograd.grad(t, a, retain_graph=True) for t in (total, expected)))


def test_gradients_that_the_function_takes_itself() -> None:
    w = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def pulled() -> Tensor:
        with torch.enable_grad():
            z = torch.zeros(3, dtype=torch.float64).requires_grad_()
            (found,) = torch.autograd.grad((z * w.sin()).sum(), z, create_graph=True)
        return found if torch.is_grad_enabled() else found.detach()

    gradients = [torch.autograd.grad(y.square().sum(), w)[0] for y in (recomputed(pulled), w.sin())]
    torch.testing.assert_close(*gradients)


class Selecting(nn.Module):
    """Slices, whose transposes are found by differentiating them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 4), nn.Linear(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)).unflatten(1, (2, 2))[:, -1])


@newer_torch
def test_mixed_precision_is_restored() -> None:
    w = torch.randn(4, 4, requires_grad=True)
    x = torch.randn(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = recomputed(lambda: x @ w)
        expected = x @ w
    assert y.dtype == torch.bfloat16
    gradients = (torch.autograd.grad(v.float().square().sum(), w)[0] for v in (y, expected))
    torch.testing.assert_close(*gradients)


def test_tensors_that_are_wrapped_before_use_keep_their_graph() -> None:
    w = torch.randn(3, requires_grad=True)
    y = recomputed(lambda: torch.func.vmap(torch.sin)(w))
    torch.testing.assert_close(torch.autograd.grad(y.sum(), w)[0], w.detach().cos())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_keeps_its_graph() -> None:
    network = torch.jit.trace(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), torch.zeros(1, 2))
    x = torch.randn(3, 2, requires_grad=True)
    values = [linearize(network, x)[1].in_chunks(size).dense() for size in (1, None)]
    arguments = [x, *network.parameters()]
    left, right = (torch.autograd.grad(v.square().sum(), arguments, allow_unused=True) for v in values)
    torch.testing.assert_close(left[:2], right[:2])
    assert left[1].abs().max() > 0
