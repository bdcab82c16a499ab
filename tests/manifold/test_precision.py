"""Geometry runs in float64: decoders that work with less inside are served, or told what to do."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import PullbackManifold
from pullgeo.errors import DtypeError, ModuleError, OptionError
from pullgeo.manifold import mean_and_deviation


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 5))


class Casting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z.float())


class Constant(Casting):
    def __init__(self) -> None:
        super().__init__()
        self.turn = torch.eye(5)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z) @ self.turn


class Lowering(Casting):
    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).float()


class Autocast(Casting):
    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(z)


class InPlace(Casting):
    def forward(self, z: Tensor) -> Tensor:
        return self.net(z.mul_(2.0).div_(2.0))


class Caching(Casting):
    def forward(self, z: Tensor) -> Tensor:
        self.last = [self.net(z)]
        self.seen = {"z": self.last[0] * 1.0}
        return self.last[0]


class Locked(Casting):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


Z = torch.arange(6, dtype=torch.float64).reshape(3, 2) / 5
W = 1 - Z.flip(0) / 3


def truth() -> Tensor:
    return PullbackManifold(network().double()).dist(Z, W)


FUNCTIONS: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "float": lambda net: lambda z: net(z.float()),
    "to": lambda net: lambda z: net(z.to(torch.float32)),
    "to named": lambda net: lambda z: net(z.to(dtype=torch.float32)),
    "to like": lambda net: lambda z: net(z.to(net[0].weight)),
    "type": lambda net: lambda z: net(z.type(torch.float32)),
    "type by name": lambda net: lambda z: net(z.type("torch.FloatTensor")),
    "type_as": lambda net: lambda z: net(z.type_as(net[0].weight)),
    "result": lambda net: lambda z: net(z.float()).float(),
    "constant": lambda net: lambda z: net(z.float()) @ torch.eye(5) + torch.zeros(5).float(),
    "module": lambda net: (lambda m: lambda z: m(z))(Casting()),
    "module with constant": lambda net: (lambda m: lambda z: m(z))(Constant()),
    "autocast": lambda net: (lambda m: lambda z: m(z))(Autocast()),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_are_evaluated_in_float64_whatever_they_cast_to(kind: str) -> None:
    manifold = PullbackManifold(FUNCTIONS[kind](network()))
    torch.testing.assert_close(manifold.dist(Z, W), truth(), rtol=1e-10, atol=0)
    torch.testing.assert_close(manifold.dist(Z.float(), W.float()), truth().float())


@pytest.mark.parametrize("make", [Casting, Constant, Lowering])
@pytest.mark.parametrize("as_method", [False, True])
def test_modules_that_cast_are_told_the_way_out_and_it_works(make: type[nn.Module], as_method: bool) -> None:
    module = make()
    decoder = module.forward if as_method else module
    for z, w in ((Z, W), (Z.float(), W.float())):
        manifold = PullbackManifold(decoder)
        for ask in (manifold.dist, manifold.geodesic, manifold.logmap):
            with pytest.raises(DtypeError, match=r"(?i)geometry .*lambda z: decoder\(z\)"):
                ask(z, w)
    torch.testing.assert_close(PullbackManifold(lambda z: decoder(z)).dist(Z, W), truth(), rtol=1e-10, atol=0)


def test_precisions_that_do_not_fit_are_named() -> None:
    single, double = network(), network().double()
    with pytest.raises(DtypeError, match=r"takes float32 latents, got torch.float64.*Use z.float\(\)"):
        PullbackManifold(lambda z: single(z)).metric(Z)
    with pytest.raises(DtypeError, match=r"takes float64 latents, got torch.float32.*Use z.double\(\)"):
        PullbackManifold(lambda z: double(z)).metric(Z.float())
    with pytest.raises(DtypeError, match=r"returned torch.float32 for torch.float64 latents.*manifold.in_double"):
        PullbackManifold(lambda z: single(z.float())).metric(Z)
    G = PullbackManifold(lambda z: single(z.float())).in_double().metric(Z).dense()
    torch.testing.assert_close(G, PullbackManifold(double).metric(Z).dense())


@pytest.mark.parametrize("make", [network, Autocast])
def test_autocast_around_or_inside_does_not_coarsen_distances(make: Callable[[], nn.Module]) -> None:
    manifold = PullbackManifold(make())
    for z, w in ((Z, W), (Z.float(), W.float())):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(manifold.dist(z, w), truth().to(z.dtype), rtol=1e-6, atol=0)
        torch.testing.assert_close(manifold.dist(z, w), truth().to(z.dtype), rtol=1e-6, atol=0)
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        pytest.raises((DtypeError, ModuleError), match=r"bfloat16 .*torch.autocast"),
    ):
        manifold.metric(Z.float())


@pytest.mark.parametrize("as_function", [False, True])
def test_decoders_that_write_into_their_latents_are_served(as_function: bool) -> None:
    module = InPlace().double()
    manifold = PullbackManifold((lambda z: module(z)) if as_function else module)
    z = Z.clone()
    torch.testing.assert_close(manifold.dist(z, W), truth())
    torch.testing.assert_close(manifold.metric(z).dense(), PullbackManifold(network().double()).metric(Z).dense())
    start = Z.clone().requires_grad_()
    gradient = torch.autograd.grad(manifold.dist(start, W).sum(), start)[0]
    other = Z.clone().requires_grad_()
    expected = torch.autograd.grad(PullbackManifold(network().double()).dist(other, W).sum(), other)[0]
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(z, Z)


def test_old_weight_norm_and_kept_results_are_copied() -> None:
    net = network()
    with pytest.warns(FutureWarning):
        net[0] = nn.utils.weight_norm(net[0])
    net(Z.float())
    caching = Caching()
    caching(Z.float())
    for decoder in (net, caching, net.forward, lambda z: net(z)):
        length = PullbackManifold(decoder).dist(Z, W)
        torch.testing.assert_close(length, truth(), rtol=1e-6, atol=0)
    gradient = torch.autograd.grad(PullbackManifold(net).dist(Z, W).sum(), net[0].weight_v)[0]
    double = copy.deepcopy(network()).double()
    with pytest.warns(FutureWarning):
        double[0] = nn.utils.weight_norm(double[0])
    expected = torch.autograd.grad(PullbackManifold(double).dist(Z, W).sum(), double[0].weight_v)[0]
    torch.testing.assert_close(gradient, expected.float(), rtol=1e-4, atol=1e-6)


def test_what_cannot_be_copied_is_named() -> None:
    with pytest.raises(ModuleError, match=r"Locked cannot be copied.*lock.*Call .double\(\)"):
        PullbackManifold(Locked()).dist(Z, W)


OUTPUTS: dict[str, tuple[Callable[[Tensor], object], object]] = {
    "tuple": (lambda y: (0 * y, y), 1),
    "from the end": (lambda y: [0 * y, y], -1),
    "dict": (lambda y: {"mean": y, "other": None}, "mean"),
    "number as a key": (lambda y: {3: y}, 3),
    "distribution": (lambda y: torch.distributions.Normal(y, 1.0), "mean"),
    "named tuple": (lambda y: torch.return_types.max((y, y)), "values"),
    "function": (lambda y: (y, y), lambda out: out[0]),
    "moments": (lambda y: torch.distributions.Normal(y, torch.ones_like(y)), mean_and_deviation),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_are_picked(kind: str, dtype: torch.dtype) -> None:
    returned, output = OUTPUTS[kind]
    net = network().to(dtype)
    manifold = PullbackManifold(lambda z: returned(net(z)), output=output)
    torch.testing.assert_close(manifold.dist(Z.to(dtype), W.to(dtype)), truth().to(dtype))


@pytest.mark.usefixtures("without_type_checks")
def test_outputs_that_cannot_be_picked_are_named() -> None:
    net = network().double()
    several = PullbackManifold(lambda z: (z, net(z)))
    for ask in (
        several.metric,
        several.decode,
        lambda z: several.dist(z, W),
        lambda z: several.energy(torch.stack([z, W], 1)),
    ):
        with pytest.raises(
            ModuleError, match=r"returned tuple.*\[0\] of shape .*\[1\] of shape .*output=lambda out: out\[0\]"
        ):
            ask(Z)
    for output, words in ((2, "output=2 names no tensor"), ("mean", "0 of shape .*1 of shape")):
        with pytest.raises(ModuleError, match=words):
            PullbackManifold(lambda z: (z, net(z)), output=output).metric(Z)
    for output in (True, 1.5, [0], Tensor, {}):
        with pytest.raises(OptionError, match="output must be a function"):
            PullbackManifold(net, output=output)
