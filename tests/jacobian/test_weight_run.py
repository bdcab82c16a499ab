"""Few cotangents pulled to weights by plain reverse mode, without a graph: the same product, and when it serves."""

import copy
import gc
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional as F

from pullgeo.errors import CoupledSamplesError, TensorChangedError
from pullgeo.jacobian import WeightGraph, linearize, sample_gradients
from pullgeo.jacobian.weight_run import WeightRun

ENTRY = sys.modules["pullgeo.jacobian.linearize"]  # the function goes by this name too
D = torch.float64


class Residual(nn.Module):
    """A table, positions added to it, a norm, a residual and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(11, 5), nn.Parameter(torch.randn(3, 5))
        self.norm, self.inner, self.last = nn.LayerNorm(5), nn.Linear(5, 5), nn.Linear(5, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x) + self.places
        h = h + torch.tanh(self.inner(self.norm(h)))
        return self.last(self.inner(h).sin().mean(1))


class Convolving(nn.Module):
    """Down, up and a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 5, 2, stride=2)
        self.up, self.last = nn.ConvTranspose2d(5, 3, 2, stride=2), nn.Conv2d(6, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first(x), inplace=True)
        return self.last(torch.cat([h, self.up(F.gelu(self.down(h)))], 1))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "residual": (Residual, lambda b: torch.randint(0, 11, (b, 3))),
    "convolving": (Convolving, lambda b: torch.randn(b, 1, 4, 6, dtype=D)),
}

MODES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "grad": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def known(name: str, b: int, mode: str = "grad") -> tuple[nn.Module, Tensor]:
    """A network of which a graph was recorded, and a run compared with it."""
    make, batch = CASES[name]
    module, x = make().to(D), batch(b)
    for _ in range(2):
        with MODES[mode]():
            y, J = linearize(module, x, "weight")
            J.pull(torch.ones(1, *y.shape, dtype=D))
    return module, x


def by_torch_func(module: nn.Module, x: Tensor, W: Tensor) -> Tensor:
    weights = {name: p.detach() for name, p in module.named_parameters()}

    def of_one(sample: Tensor, w: Tensor) -> Tensor:
        back = vjp(lambda ps: functional_call(module, ps, (sample.unsqueeze(0),)).squeeze(0), weights)[1]
        return torch.cat([g.flatten() for g in back(w)[0].values()])

    return torch.stack([vmap(of_one)(x, w) for w in W])


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was recorded."""
    seen: list[str] = []
    record = ENTRY.record_weight

    def counted(module: nn.Module, *rest: object) -> object:
        seen.append(type(module).__name__)
        return record(module, *rest)

    monkeypatch.setattr(ENTRY, "record_weight", counted)
    return seen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_the_product_is_that_of_torch(name: str, b: int, mode: str, recordings: list[str]) -> None:
    module, x = known(name, b, mode)
    recordings.clear()
    for k in (1, 3):
        with MODES[mode]():
            y, J = linearize(module, x, "weight")
            W = torch.randn(k, *y.shape, dtype=D)
            found, again = J.pull(W), J.pull(W)
        expected = by_torch_func(module, x, W.clone())
        torch.testing.assert_close(y, module(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.clone(), expected, rtol=1e-12, atol=1e-12, check_stride=False)
        torch.testing.assert_close(again.clone(), found.clone(), rtol=0, atol=0)
        assert found.requires_grad == (mode == "grad")
    assert recordings == []


@pytest.mark.parametrize(("b", "k", "sweeps"), [(1, 1, 1), (3, 1, 1), (3, 2, 2), (1, 4, 4)])
@pytest.mark.parametrize("name", CASES)
def test_passes_are_few(
    name: str, b: int, k: int, sweeps: int, recordings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One forward pass, a backward pass for each cotangent, nothing recorded."""
    module, x = known(name, b, "no_grad")
    recordings.clear()
    forwards: list[int] = []
    backwards: list[int] = []
    forward, grad = type(module).forward, torch.autograd.grad
    monkeypatch.setattr(type(module), "forward", lambda self, x: (forwards.append(1), forward(self, x))[1])
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **o: (backwards.append(1), grad(*a, **o))[1])
    with torch.no_grad():
        y, J = linearize(module, x, "weight")
        J.pull(torch.randn(k, *y.shape, dtype=D))
    assert (len(forwards), len(backwards), recordings) == (1, sweeps, [])


@pytest.mark.parametrize(("b", "part"), [(1, 0.6), (3, 0.85)])
@pytest.mark.parametrize("name", CASES)
def test_calls_of_python_are_few(name: str, b: int, part: float) -> None:
    """So small a part of the calls that recording takes, which grow faster with the network."""

    def calls(module: nn.Module, x: Tensor) -> int:
        count = 0

        def counted(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        with torch.no_grad():
            w = torch.ones(1, *module(x).shape, dtype=D)
            gc.disable()
            sys.setprofile(counted)
            try:
                linearize(module, x, "weight")[1].pull(w)
            finally:
                sys.setprofile(None)
                gc.enable()
        return count

    module, x = known(name, b, "no_grad")
    fresh = CASES[name][0]().to(D)
    assert calls(module, x) < part * calls(fresh, x)


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_what_few_cotangents_do_not_suffice_for_is_recorded(name: str, b: int, recordings: list[str]) -> None:
    module, x = known(name, b)
    twin = copy.deepcopy(module)
    y, J = linearize(module, x, "weight")
    plain, graph = J, linearize(twin, x, "weight")[1]
    assert isinstance(plain, WeightGraph)
    assert isinstance(plain.run, WeightRun)
    assert plain.run.trusted
    recordings.clear()
    W = torch.randn(7, *y.shape, dtype=D)
    torch.testing.assert_close(plain.pull(W), graph.pull(W))
    torch.testing.assert_close(plain.pull_diag(W, W), graph.pull_diag(W, W))
    torch.testing.assert_close(plain.pull_gram(W, W), graph.pull_gram(W, W))
    T = torch.randn(2, b, J.signature.n_in, dtype=D)
    torch.testing.assert_close(plain.push(T), graph.push(T))
    assert recordings == [type(module).__name__]


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("name", CASES)
def test_gradients_of_products(name: str, b: int) -> None:
    module, x = known(name, b)
    parameters = list(module.parameters())
    y, J = linearize(module, x, "weight")
    W = torch.randn(2, *y.shape, dtype=D, requires_grad=True)
    V = torch.randn(2, b, J.signature.n_in, dtype=D)
    plain = torch.autograd.grad((J.pull(W) * V).sum(), [W, *parameters], create_graph=True, materialize_grads=True)
    graph = linearize(copy.deepcopy(module), x, "weight")[1]
    twins = list(graph.root.parameters())
    recorded = torch.autograd.grad((graph.pull(W) * V).sum(), [W, *twins], create_graph=True, materialize_grads=True)
    for left, right in zip(plain, recorded, strict=True):
        torch.testing.assert_close(left, right)
    left = torch.autograd.grad(sum(g.square().sum() for g in plain), parameters, allow_unused=True)
    right = torch.autograd.grad(sum(g.square().sum() for g in recorded), twins, allow_unused=True)
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other)


def test_gradgradcheck_by_cotangents_and_the_batch() -> None:
    module, x = known("convolving", 3)
    x = x.requires_grad_()

    def product(x: Tensor, W: Tensor) -> Tensor:
        J = linearize(module, x, "weight")[1]
        return J.pull(W)[..., ::7]

    W = torch.randn(1, 3, 1, 4, 6, dtype=D, requires_grad=True)
    product(x, W)
    assert torch.autograd.gradcheck(product, (x, W), fast_mode=True)
    assert torch.autograd.gradgradcheck(product, (x, W), fast_mode=True)


@pytest.mark.parametrize("b", [1, 3])
def test_the_value_is_the_callers(b: int) -> None:
    """What is done to the value, and a backward pass that frees its graph, changes no product."""
    module, x = known("residual", b)
    y, J = linearize(module, x, "weight")
    W = torch.randn(1, *y.shape, dtype=D)
    expected = by_torch_func(module, x, W)
    y.register_hook(lambda g: 7 * g)
    torch.testing.assert_close(J.pull(W), expected)
    y.square().sum().backward()
    torch.testing.assert_close(J.pull(W), expected)
    with torch.no_grad():
        y.mul_(3)
    torch.testing.assert_close(J.pull(W), expected)


def test_it_is_recorded_as_it_was() -> None:
    """Switches that were turned since do not matter to a graph that is recorded later."""
    module = nn.Sequential(Residual(), nn.Dropout(0.5)).double().eval()
    x = torch.randint(0, 11, (3, 3))
    for _ in range(2):
        y, J = linearize(module, x, "weight")
        J.pull(torch.ones(1, *y.shape, dtype=D))
    W = torch.randn(7, *y.shape, dtype=D)
    expected = linearize(module, x, "weight")[1].pull(W)
    J = linearize(module, x, "weight")[1]
    module.train()
    torch.testing.assert_close(J.pull(W), expected)
    assert module.training
    assert module[1].training


@pytest.mark.parametrize("k", [1, 7])
def test_weights_written_into(k: int) -> None:
    module, x = known("residual", 3)
    y, J = linearize(module, x, "weight")
    with torch.no_grad():
        module.get_parameter("last.weight").mul_(2)
    with pytest.raises(TensorChangedError, match="Linearize again"):
        J.pull(torch.ones(k, *y.shape, dtype=D))


def test_samples_that_are_mixed_later_are_noticed() -> None:
    module, x = known("residual", 3)
    forward = Residual.forward
    module.forward = lambda x: forward(module, x) - forward(module, x).mean(0)  # type: ignore[arg-type, method-assign]
    with pytest.raises(CoupledSamplesError):
        linearize(module, x, "weight")


@pytest.mark.parametrize("b", [1, 3])
def test_random_numbers_that_are_drawn_later_are_noticed(b: int) -> None:
    class Noisy(Residual):
        noisy = False

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x)) if self.noisy else super().forward(x)

    module, x = Noisy().double(), torch.randint(0, 11, (b, 3))
    for _ in range(3):
        y, J = linearize(module, x, "weight")
        J.pull(torch.ones(1, *y.shape, dtype=D))
    module.noisy = True
    with pytest.raises(CoupledSamplesError):
        linearize(module, x, "weight")


@pytest.mark.parametrize("b", [1, 3])
def test_parameters_held_fixed(b: int) -> None:
    """Frozen ones count unless they are left out, and a choice of some is a choice of its own."""
    module, x = known("residual", b)
    module.get_parameter("inner.weight").requires_grad_(False)
    for chosen in ("all", "trainable", "*.bias"):
        for _ in range(3):
            y, J = linearize(module, x, "weight", chosen)
            W = torch.randn(1, *y.shape, dtype=D)
            found = J.pull(W)
        names = J.layout.names
        whole = by_torch_func(module, x, W).split([p.numel() for p in module.parameters()], 2)
        pieces = dict(zip(dict(module.named_parameters()), whole, strict=True))
        torch.testing.assert_close(found, torch.cat([pieces[name] for name in names], 2))


def test_parameters_that_layers_do_not_hold_are_recorded() -> None:
    """A factor that no layer holds has no place where a sample's part shows; of one sample it needs none."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.factor = nn.Linear(5, 2), nn.Parameter(torch.randn(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).sin() * self.factor

    module = Scaled().double()
    for b, kind in ((1, WeightRun), (3, type(None))):
        x = torch.randn(b, 5, dtype=D)
        for _ in range(3):
            y, J = linearize(module, x, "weight")
            W = torch.randn(1, *y.shape, dtype=D)
            torch.testing.assert_close(J.pull(W), by_torch_func(module, x, W))
        assert isinstance(J, WeightGraph)
        assert type(J.run) is kind


def test_nothing_is_kept_of_a_run() -> None:
    module, x = known("residual", 3)
    gc.collect()
    gc.disable()
    try:
        y, J = linearize(module, x, "weight")
        J.pull(torch.ones(1, *y.shape, dtype=D))
        del y, J
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [kept for kept in gc.garbage if isinstance(kept, Tensor | WeightRun)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_per_sample_gradients_hold_their_answer_once() -> None:
    """What every layer pulls is written to its place, with gradients on as well."""
    module = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)).double()
    x, w = torch.randn(11, 5, dtype=D), torch.randn(11, 3, dtype=D)
    found = sample_gradients(module, x, w)
    assert found.shape == (11, 5 * 7 + 7 + 21)
    node, names = found.grad_fn, []
    while node is not None:
        names.append(type(node).__name__)
        node = node.next_functions[0][0] if node.next_functions else None
    assert not any("Cat" in name for name in names)
    torch.testing.assert_close(found, by_torch_func(module, x, w.unsqueeze(0)).squeeze(0))
