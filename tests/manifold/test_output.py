"""Every kind of value that decoders return, as users write them."""

import functools
import itertools
import math
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_bvp
from scipy.special import polygamma
from torch import Tensor, nn
from torch import distributions as td
from torch.nn import functional as F

from pullgeo import Newton, PullbackManifold
from pullgeo.errors import ModuleError, OptionError, ShapeError
from pullgeo.likelihood import Bernoulli, HeteroscedasticGaussian, Std, TorchDistribution, ggn
from pullgeo.manifold.output import MAIN
from pullgeo.testing.oracles.jacobians import dense_jacobian

D, H, OUT = 2, 5, 3
Pair = namedtuple("Pair", ["mu", "sigma"])


@dataclass
class DecoderOutput:
    """As of diffusers."""

    sample: Tensor
    commit_loss: Tensor | None = None


@dataclass
class MaskedOutput:
    """As of transformers, where they are dataclasses."""

    logits: Tensor
    loss: Tensor | None = None
    hidden_states: tuple[Tensor, ...] = ()


class ModelOutput(OrderedDict):
    """As of transformers and pythae: a dict whose entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


@dataclass(frozen=True)
class Kind:
    """How a decoder returns the two heads of a network.

    Args:
        returned: from the heads, of shapes (b, 3), to what the decoder returns.
        output: what the user says.
        truth: the map whose Euclidean pullback it is; or the distribution's likelihood.
    """

    returned: Callable[[Tensor, Tensor], Any]
    output: Any
    truth: Callable[[Tensor, Tensor], Tensor] | None
    likelihood: Callable[[Tensor], td.Distribution] | None = None


def euclidean(returned: Callable[[Tensor, Tensor], Any], output: Any = None, truth: Any = None) -> Kind:
    return Kind(returned, output, truth or (lambda a, s: a))


def fisher(make: Callable[[Tensor, Tensor], td.Distribution], returned: Any = None, output: Any = None) -> Kind:
    """A distribution; its metric by `TorchDistribution`, which has no charts."""
    return Kind(returned or make, output, None, lambda eta: make(eta[:, :OUT], eta[:, OUT:]))


def both(scale: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, s: torch.cat([a, scale(s)], 1)


def root(s: Tensor) -> Tensor:
    return F.softplus(s).sqrt()


def tail(s: Tensor) -> Tensor:
    return F.softplus(s) + 0.5


PLAIN = {
    "tensor": euclidean(lambda a, s: a),
    "tuple by position": euclidean(lambda a, s: (a, s), 0),
    "mean and log-variance": euclidean(lambda a, s: (a, s), "mean+logvar", both(lambda s: (s / 2).exp())),
    "mean and std": euclidean(lambda a, s: (a, tail(s)), "mean+std", both(tail)),
    "mean and variance": euclidean(lambda a, s: [a, tail(s)], "mean+var", both(lambda s: tail(s).sqrt())),
    "mean and log-std": euclidean(lambda a, s: (a, s), "mean+logstd", both(torch.exp)),
    "one number for the scale": euclidean(
        lambda a, s: (a, s[:, :1]), "mean+logstd", lambda a, s: torch.cat([a, s[:, :1].exp().expand_as(a)], 1)
    ),
    "list of one": euclidean(lambda a, s: [a]),
    "tensor and a loss": euclidean(lambda a, s: (a, s.sum())),
    "dict": euclidean(lambda a, s: {"mean": a, "logvar": s}, "mean"),
    "dict of two": euclidean(lambda a, s: {"mean": a, "logvar": s}, "mean+logvar", both(lambda s: (s / 2).exp())),
    "dict of one": euclidean(lambda a, s: {"x": a, "loss": s.mean(), "note": "text"}),
    "dataclass": euclidean(lambda a, s: DecoderOutput(a)),
    "dataclass with more": euclidean(lambda a, s: DecoderOutput(a, s)),
    "named tuple": euclidean(lambda a, s: Pair(a, tail(s)), "mean+std", both(tail)),
    "named tuple by name": euclidean(lambda a, s: Pair(a, s), "mu"),
    "transformers": euclidean(lambda a, s: ModelOutput(logits=a, hidden_states=(s,))),
    "pythae": euclidean(lambda a, s: ModelOutput(recon_x=a, z=s, loss=s.mean())),
    "pythae decoder": euclidean(lambda a, s: ModelOutput(reconstruction=a)),
    "transformers as a dataclass": euclidean(lambda a, s: MaskedOutput(loss=s.mean(), logits=a, hidden_states=(s, a))),
    "pythae with its losses": euclidean(
        lambda a, s: ModelOutput(recon_loss=s.mean(), reg_loss=a.sum(), loss=a.mean(), recon_x=a, z=s[:, :D])
    ),
    "diffusers": euclidean(lambda a, s: DecoderOutput(sample=a, commit_loss=s.sum())),
    "an object by attribute": euclidean(lambda a, s: SimpleNamespace(reconstruction=a, extra=s), "reconstruction"),
    "object in an attribute": euclidean(
        lambda a, s: SimpleNamespace(px=td.Normal(a, 1.0), extra=s), lambda out: out.px.mean
    ),
    "function": euclidean(lambda a, s: (a, s), lambda out: out[0] + out[1], lambda a, s: a + s),
    "mean of a distribution": euclidean(lambda a, s: td.Normal(a, tail(s)), "mean"),
    "moments": euclidean(lambda a, s: td.Normal(a, tail(s)), "mean+std", both(tail)),
    "moments of counts": euclidean(
        lambda a, s: td.Poisson(tail(a)), "mean+std", lambda a, s: torch.cat([tail(a), tail(a).sqrt()], 1)
    ),
    "parameter of a distribution": euclidean(lambda a, s: td.Bernoulli(logits=a), "logits"),
}


def counts(a: Tensor, s: Tensor) -> td.Distribution:
    return td.NegativeBinomial(torch.tensor([1.5, 2.0, 7.0], dtype=a.dtype), logits=a)


DISTRIBUTIONS = {
    "Normal": fisher(lambda a, s: td.Normal(a, tail(s))),
    "Normal of fixed scale": fisher(lambda a, s: td.Normal(a, 0.3)),
    "Normal of fixed mean": fisher(lambda a, s: td.Normal(0.3, tail(s))),
    "Independent": fisher(lambda a, s: td.Independent(td.Normal(a, s.exp()), 1)),
    "Independent of Bernoulli": fisher(lambda a, s: td.Independent(td.Bernoulli(logits=a), 1)),
    "Independent of Gamma": fisher(lambda a, s: td.Independent(td.Gamma(tail(a), tail(s)), 1)),
    "Independent of Independent": fisher(
        lambda a, s: td.Independent(td.Independent(td.Laplace(a.unsqueeze(2), tail(s).unsqueeze(2)), 1), 1)
    ),
    "HalfNormal": fisher(lambda a, s: td.HalfNormal(tail(s))),
    "Binomial": fisher(lambda a, s: td.Binomial(7, logits=a)),
    "Bernoulli": fisher(lambda a, s: td.Bernoulli(logits=a)),
    "Bernoulli of probabilities": fisher(lambda a, s: td.Bernoulli(probs=torch.sigmoid(a))),
    "ContinuousBernoulli": fisher(lambda a, s: td.ContinuousBernoulli(logits=2 * a)),
    "Categorical": fisher(lambda a, s: td.Categorical(logits=a)),
    "Categorical of probabilities": fisher(lambda a, s: td.Categorical(probs=tail(a))),
    "OneHotCategorical": fisher(lambda a, s: td.OneHotCategorical(logits=a)),
    "Multinomial": fisher(lambda a, s: td.Multinomial(5, logits=a)),
    "Poisson": fisher(lambda a, s: td.Poisson(tail(a))),
    "NegativeBinomial": fisher(counts),
    "Beta": fisher(lambda a, s: td.Beta(tail(a), tail(s))),
    "Dirichlet": fisher(lambda a, s: td.Dirichlet(tail(a))),
    "Gamma": fisher(lambda a, s: td.Gamma(tail(a), tail(s))),
    "Gamma of fixed shape": fisher(lambda a, s: td.Gamma(2.5, tail(s))),
    "LogNormal": fisher(lambda a, s: td.LogNormal(a, tail(s))),
    "Laplace": fisher(lambda a, s: td.Laplace(a, tail(s))),
    "Gumbel": fisher(lambda a, s: td.Gumbel(a, tail(s))),
    "StudentT": fisher(lambda a, s: td.StudentT(4.0, a, tail(s))),
    "StudentT of several": fisher(lambda a, s: td.StudentT(torch.tensor([2.0, 3.0, 9.0], dtype=a.dtype), a, tail(s))),
    "VonMises": fisher(lambda a, s: td.VonMises(a, tail(s))),
    "Exponential": fisher(lambda a, s: td.Exponential(tail(a))),
    "Geometric": fisher(lambda a, s: td.Geometric(logits=a)),
    "mixture of images": fisher(
        lambda a, s: td.MixtureSameFamily(
            td.Categorical(logits=a[:, :2]),
            td.Independent(td.Bernoulli(logits=torch.stack([a, s], 1)), 1),
            validate_args=False,
        )
    ),
    "a distribution in a dict": fisher(
        lambda a, s: td.Poisson(tail(a)), lambda a, s: {"px": td.Poisson(tail(a)), "kl": a.sum()}
    ),
    "one of two distributions": fisher(
        lambda a, s: td.Poisson(tail(a)), lambda a, s: {"px": td.Poisson(tail(a)), "pl": td.Normal(a, 1.0)}, "px"
    ),
    "made by output": fisher(
        lambda a, s: td.Normal(a, s.exp()), lambda a, s: (a, s), lambda out: td.Normal(out[0], out[1].exp())
    ),
}
KINDS = PLAIN | DISTRIBUTIONS


class Network(nn.Module):
    """Two heads, and a ``forward`` that returns what users return."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body = nn.Sequential(nn.Linear(D, H), nn.Tanh(), nn.Linear(H, 2 * OUT))
        self.kind = kind

    def heads(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(z).tensor_split(2, 1)

    def forward(self, z: Tensor) -> Any:
        return self.kind.returned(*self.heads(z))

    def decode(self, z: Tensor) -> Any:
        return self(z)


def points(dtype: torch.dtype = torch.float64, count: int = 3) -> tuple[Tensor, Tensor]:
    z = torch.randn(2, count, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)
    return z[0], z[1]


def truth(kind: Kind, z: Tensor) -> Tensor:
    """The metric by dense Jacobians, and by the information of distributions without charts."""
    network = Network(kind).double()
    if kind.likelihood is not None:
        return ggn(network.body, z, TorchDistribution(kind.likelihood)).dense()
    J = dense_jacobian(lambda z: kind.truth(*network.heads(z)), z)
    return J.mT @ J


FORMS = {
    "module": lambda network: network,
    "method": lambda network: network.decode,
    "function": lambda network: lambda z: network(z),
}


DTYPES = (torch.float32, torch.float64)


def combinations(*axes: Any) -> list[Any]:
    """Every kind with every entry of the axes; in the quick tier with one of them, in turns."""
    cells = list(itertools.product(*axes))
    return [
        pytest.param(name, *cell, marks=() if i % len(cells) == j else pytest.mark.full)
        for i, name in enumerate(KINDS)
        for j, cell in enumerate(cells)
    ]


@pytest.mark.parametrize(("name", "form", "dtype"), combinations(FORMS, DTYPES))
def test_metric_of_every_kind(name: str, form: str, dtype: torch.dtype) -> None:
    kind, (z, _) = KINDS[name], points()
    manifold = PullbackManifold(FORMS[form](Network(kind).to(dtype)), output=kind.output)
    G = manifold.metric(z.to(dtype)).dense()
    assert G.dtype == dtype
    tolerance = {"rtol": 2e-4, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(G.double(), truth(kind, z), **tolerance)
    assert ("Fisher-Rao" in repr(manifold)) == (kind.likelihood is not None)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["dict", "Normal", "Gamma", "Categorical"])
def test_metrics_without_gradients(name: str, mode: Any) -> None:
    kind, (z, _) = KINDS[name], points()
    manifold = PullbackManifold(Network(kind).double(), output=kind.output)
    expected = truth(kind, z)
    with torch.no_grad():
        torch.testing.assert_close(manifold.metric(z).dense(), expected)
    with mode():
        assert manifold.decode(z).shape == (3, OUT)


def length_of(kind: Kind, curve: Callable[[Tensor], Tensor]) -> Tensor:
    """The lengths of curves by the metric alone: the midpoint rule on many panels."""
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    z = curve(times)
    middle, step = (z[:, 1:] + z[:, :-1]) / 2, z[:, 1:] - z[:, :-1]
    G = truth(kind, middle.flatten(0, 1)).unflatten(0, middle.shape[:2])
    return torch.einsum("bti,btij,btj->bt", step, G, step).sqrt().sum(1)


@pytest.mark.quick(19)
@pytest.mark.parametrize(("name", "dtype"), list(itertools.product(KINDS, DTYPES)))
def test_geodesics_of_every_kind(name: str, dtype: torch.dtype) -> None:
    kind = KINDS[name]
    z0, z1 = (z.to(dtype) for z in points())
    manifold = PullbackManifold(Network(kind).to(dtype), output=kind.output)
    solution = manifold.geodesic(z0, z1)
    assert bool(solution.converged.all()), solution.status
    assert solution.length.dtype == dtype
    found = solution.length.detach().double()
    torch.testing.assert_close(
        found, length_of(kind, lambda t: solution.curve(t.to(dtype)).double()), rtol=2e-3, atol=0
    )
    line = length_of(kind, lambda t: z0.double()[:, None] + t[:, None] * (z1 - z0).double()[:, None])
    assert bool((found <= line * (1 + 1e-4)).all())


@pytest.mark.quick(3)
@pytest.mark.parametrize("name", ["Normal", "Gamma", "Dirichlet", "StudentT of several", "Gumbel", "NegativeBinomial"])
def test_the_connection_of_distributions_follows_their_metric(name: str) -> None:
    kind = KINDS[name]
    z0, z1 = points()
    manifold = PullbackManifold(Network(kind).double(), output=kind.output)
    found = manifold.expmap(z0, 0.3 * manifold.logmap(z0, z1))
    length = manifold.dist(z0, z1)
    torch.testing.assert_close(manifold.dist(z0, found), 0.3 * length, rtol=1e-3, atol=0)
    torch.testing.assert_close(manifold.dist(found, z1), 0.7 * length, rtol=1e-3, atol=0)


def at(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def simplex(z: Tensor) -> Tensor:
    return torch.cat([z, 1 - z.sum(1, keepdim=True)], 1)


def gaussian(z: Tensor) -> td.Distribution:
    """Means, then the Cholesky factor of a covariance."""
    first, last = torch.stack([z[:, 2].exp(), 0 * z[:, 0]], 1), torch.stack([z[:, 3], z[:, 4].exp()], 1)
    return td.MultivariateNormal(z[:, :2], scale_tril=torch.stack([first, last], 1))


def hyperbolic(mu: float, s0: float, s1: float) -> float:
    return math.sqrt(2) * math.acosh(1 + (mu**2 / 2 + (s1 - s0) ** 2) / (2 * s0 * s1))


def symmetric(terms: int, a: float, b: float) -> float:
    """Dirichlet's length from (a, ..., a) to (b, ..., b), a geodesic as it is fixed by all permutations."""
    information = lambda x: terms * polygamma(1, x) - terms**2 * polygamma(1, terms * x)  # noqa: E731
    return quad(lambda x: math.sqrt(information(x)), a, b, epsabs=1e-13)[0]


def in_one(information: Callable[[float], float], a: float, b: float) -> float:
    return quad(lambda x: math.sqrt(information(x)), a, b, epsabs=1e-13)[0]


def continuous_bernoulli(x: float) -> float:
    return (
        quad(lambda t: t**2 * math.exp(x * t), 0, 1)[0] / (n := quad(lambda t: math.exp(x * t), 0, 1)[0])
        - (quad(lambda t: t * math.exp(x * t), 0, 1)[0] / n) ** 2
    )


CLOSED = {
    "N(0, 1) to N(0, e)": (lambda z: td.Normal(z[:, :1], z[:, 1:]), at(0, 1), at(0, math.e), math.sqrt(2)),
    "N(0, 1) to N(3, 2)": (lambda z: td.Normal(z[:, :1], z[:, 1:]), at(0, 1), at(3, 2), hyperbolic(3, 1, 2)),
    "fixed deviation": (lambda z: td.Normal(z, 2.0), at(0, 0), at(3, 4), 2.5),
    "Bernoulli": (lambda z: td.Bernoulli(probs=z), at(0.2), at(0.8), 1.2870022176),
    "Poisson": (lambda z: td.Poisson(z), at(1), at(4), 2.0),
    "categorical": (
        lambda z: td.Categorical(probs=simplex(z)),
        at(0.2, 0.3),
        at(0.6, 0.3),
        2 * math.acos(math.sqrt(0.12) + 0.3 + math.sqrt(0.05)),
    ),
    "multinomial": (
        lambda z: td.Multinomial(7, probs=simplex(z)),
        at(0.2, 0.3),
        at(0.6, 0.3),
        2 * math.sqrt(7) * math.acos(math.sqrt(0.12) + 0.3 + math.sqrt(0.05)),
    ),
    "exponential": (lambda z: td.Exponential(z), at(1), at(5), math.log(5)),
    "gamma of shape 3": (lambda z: td.Gamma(3.0, z), at(1), at(5), math.sqrt(3) * math.log(5)),
    "gamma of rate 2": (
        lambda z: td.Gamma(z, 2.0),
        at(1),
        at(5),
        in_one(lambda x: float(polygamma(1, x)), 1, 5),
    ),
    "beta": (lambda z: td.Beta(z[:, :1], z[:, 1:]), at(1, 1), at(3, 3), symmetric(2, 1, 3)),
    "Dirichlet": (lambda z: td.Dirichlet(z), at(1, 1, 1), at(3, 3, 3), symmetric(3, 1, 3)),
    "Laplace": (lambda z: td.Laplace(z[:, :1], z[:, 1:]), at(0, 1), at(0, math.e), 1.0),
    "Student": (lambda z: td.StudentT(5.0, z[:, :1], z[:, 1:]), at(0, 1), at(0, math.e), math.sqrt(10 / 8)),
    "negative binomial": (
        lambda z: td.NegativeBinomial(3.0, logits=z),
        at(0),
        at(1),
        in_one(lambda x: 3 / (1 + math.exp(-x)), 0, 1),
    ),
    "continuous Bernoulli": (
        lambda z: td.ContinuousBernoulli(logits=z),
        at(-1),
        at(2),
        in_one(continuous_bernoulli, -1, 2),
    ),
    "covariances": (gaussian, at(0, 0, 0, 0, 0), at(0, 0, 1, 0, -1), 2.0),
    "means and covariances apart": (
        gaussian,
        at(0, 0, 0, 0, 0),
        at(3, 0, math.log(2), 0, 0.5),
        math.hypot(hyperbolic(3, 1, 2), math.sqrt(2) * 0.5),
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_decoders_that_are_parameter_maps_have_closed_forms(name: str) -> None:
    decoder, z0, z1, expected = CLOSED[name]
    found = PullbackManifold(decoder).geodesic(z0, z1, Newton(segments=128))
    assert bool(found.converged.all())
    assert float(found.length) == pytest.approx(expected, rel=1e-7)


def dirichlet_length(begin: list[float], end: list[float]) -> float:
    """By collocation of the geodesic equation: the metric is the Hessian of ``Σ log Γ(α) - log Γ(Σ α)``."""
    n = len(begin)

    def information(alpha: np.ndarray) -> np.ndarray:
        return np.diag(polygamma(1, alpha)) - polygamma(1, alpha.sum())

    def slope(t: np.ndarray, state: np.ndarray) -> np.ndarray:
        alpha, v = state[:n], state[n:]
        # half of the third derivatives, contracted twice with the velocity
        force = 0.5 * (polygamma(2, alpha) * v**2 - polygamma(2, alpha.sum(0)) * v.sum(0) ** 2)
        turned = [np.linalg.solve(information(alpha[:, i]), -force[:, i]) for i in range(len(t))]
        return np.concatenate([v, np.stack(turned, 1)])

    def ends(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.concatenate([a[:n] - begin, b[:n] - end])

    t = np.linspace(0, 1, 41)
    line = np.outer(begin, 1 - t) + np.outer(end, t)
    start = np.concatenate([line, np.repeat((np.array(end) - begin)[:, None], len(t), 1)])
    found = solve_bvp(slope, ends, t, start, tol=1e-9, max_nodes=20000)
    assert found.success
    alpha, v = found.sol(0.0)[:n], found.sol(0.0)[n:]
    return float(math.sqrt(v @ information(alpha) @ v))


@pytest.mark.heavy
@pytest.mark.quick(1)
@pytest.mark.parametrize(("begin", "end"), [([1.5, 4.0], [3.0, 0.8]), ([1.5, 4.0, 2.5], [3.0, 0.8, 5.0])])
def test_beta_and_dirichlet_geodesics_that_no_symmetry_gives(begin: list[float], end: list[float]) -> None:
    expected = dirichlet_length(begin, end)
    families = [lambda z: td.Dirichlet(z)]
    if len(begin) == 2:
        families.append(lambda z: td.Beta(z[:, :1], z[:, 1:]))
    for family in families:
        found = PullbackManifold(family).geodesic(at(*begin), at(*end), Newton(segments=128))
        assert float(found.length) == pytest.approx(expected, rel=1e-7)


def test_the_metric_of_gaussians_with_full_covariance() -> None:
    """``dμᵀ Σ⁻¹ dμ + ½ tr (Σ⁻¹ dΣ)²``."""
    z = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    means = dense_jacobian(lambda z: gaussian(z).loc, z)
    changes = dense_jacobian(lambda z: gaussian(z).covariance_matrix.flatten(1), z).unflatten(1, (2, 2))
    precision = torch.linalg.inv(gaussian(z).covariance_matrix)
    turned = torch.einsum("bij,bjkd->bikd", precision, changes)
    expected = torch.einsum("bid,bij,bje->bde", means, precision, means)
    expected = expected + torch.einsum("bikd,bkie->bde", turned, turned) / 2
    torch.testing.assert_close(PullbackManifold(gaussian).metric(z).dense(), expected)


def test_a_given_covariance_is_flat_and_several_gaussians_add_up() -> None:
    factor = torch.tensor([[2.0, 0.0], [0.7, 0.5]], dtype=torch.float64)
    z0, z1 = points()
    manifold = PullbackManifold(lambda z: td.MultivariateNormal(z, scale_tril=factor))
    difference = torch.linalg.solve(factor, (z1 - z0).mT).mT
    torch.testing.assert_close(manifold.dist(z0, z1), difference.norm(dim=1))

    def several(z: Tensor) -> td.Distribution:
        covariance = torch.diag_embed(z.exp()).unsqueeze(1).expand(-1, 3, -1, -1)
        return td.MultivariateNormal(z.unsqueeze(1).expand(-1, 3, -1), covariance)

    one = PullbackManifold(lambda z: td.MultivariateNormal(z, torch.diag_embed(z.exp())))
    torch.testing.assert_close(PullbackManifold(several).metric(z0).dense(), 3 * one.metric(z0).dense())


@pytest.mark.usefixtures("without_type_checks")
def test_what_is_ambiguous_is_listed_with_the_line_to_write() -> None:
    z, _ = points()
    pair = PullbackManifold(Network(euclidean(lambda a, s: (a, s))).double())
    with pytest.raises(ModuleError, match=r"\[0\] of shape \(3, 3\), \[1\] of shape \(3, 3\).*output='mean\+logvar'"):
        pair.metric(z)
    named = PullbackManifold(Network(euclidean(lambda a, s: {"x": a, "y": s})).double())
    with pytest.raises(ModuleError, match=r"\['x'\] of shape.*output=lambda out: out\['x'\].*output='x' for short"):
        named.decode(z)
    two = PullbackManifold(lambda z: {"px": td.Normal(z, 1.0), "pl": td.Normal(z, 2.0)})
    with pytest.raises(ModuleError, match=r"\['px'\] a Normal with batch_shape \(3, 2\)"):
        two.metric(z)


class Slotted:
    __slots__ = ("sample",)

    def __init__(self, sample: Tensor) -> None:
        self.sample = sample


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (
            lambda a, s: ((a, s), a.sum()),
            r"\[1\] of shape \(\), \[0\]\[0\] of shape \(3, 3\).*lambda out: out\[0\]\[0\]\)",
        ),
        (lambda a, s: ((a,),), r"holds \[0\]\[0\] of shape \(3, 3\)\. Pick one.*lambda out: out\[0\]\[0\]\)"),
        (lambda a, s: {"out": {"x": a}}, r"holds \['out'\]\['x'\] of shape.*lambda out: out\['out'\]\['x'\]\)"),
        (lambda a, s: [DecoderOutput(a)], r"holds \[0\]\.sample of shape.*lambda out: out\[0\]\.sample\)"),
        (lambda a, s: {"px": [td.Normal(a, 1.0)]}, r"\['px'\]\[0\] a Normal with batch_shape \(3, 3\)"),
        (lambda a, s: (a.sum(), a, s), r"Pick one.*output=lambda out: out\[1\]\), or output=1 for short"),
    ],
)
def test_what_lies_deeper_is_listed_too(returned: Callable[[Tensor, Tensor], Any], words: str) -> None:
    with pytest.raises(ModuleError, match=words):
        PullbackManifold(Network(euclidean(returned)).double()).metric(points()[0])


def test_objects_with_slots_are_read() -> None:
    z, _ = points()
    kind = euclidean(lambda a, s: Slotted(a))
    torch.testing.assert_close(PullbackManifold(Network(kind).double()).metric(z).dense(), truth(kind, z))


@pytest.mark.usefixtures("without_type_checks")
def test_what_cannot_be_measured_says_what_can() -> None:
    z, _ = points()
    cases = [
        (lambda z: td.Normal(z, 1.0), {"ambient": Bernoulli()}, OptionError, "output='mean'"),
        (lambda z: td.Pareto(z.exp(), 3.0), {}, OptionError, "scale.*depends on the latent"),
        (lambda z: td.Kumaraswamy(z.exp(), 3.0), {}, OptionError, "Kumaraswamy is not known"),
        (
            lambda z: td.MixtureSameFamily(td.Categorical(logits=z), td.Pareto(z.exp(), 1.0)),
            {},
            OptionError,
            "mixture of Pareto.*output='mean'",
        ),
        (lambda z: td.Normal(z.sum(), 1.0), {}, ModuleError, "first axis must be the batch"),
        (lambda z: td.Categorical(logits=z), {"output": "mean"}, ModuleError, "has no mean.*'probs'"),
        (lambda z: (z, z, z), {"output": "mean+std"}, ModuleError, r"takes a pair.*holds 0 of shape"),
        (lambda z: {"mean": z}, {"output": "mean+std"}, ModuleError, r"takes one of mean.*and one of std"),
        (lambda z: td.Normal(z, 1.0), {"output": "mean+logvar"}, ModuleError, r"Write output='mean\+std'"),
        (lambda z: (z, z[:, :0]), {"output": "mean+std"}, ShapeError, "same shape"),
    ]
    for decoder, options, error, words in cases:
        with pytest.raises(error, match=words):
            PullbackManifold(decoder, **options).metric(z)


def test_pairs_as_gaussians_have_their_fisher_rao_metric() -> None:
    z, _ = points()
    network = Network(KINDS["mean and log-variance"]).double()
    ours = PullbackManifold(network, HeteroscedasticGaussian(Std()), output="mean+logvar").metric(z).dense()
    distribution = PullbackManifold(network, output=lambda out: td.Normal(out[0], (out[1] / 2).exp()))
    torch.testing.assert_close(ours, distribution.metric(z).dense())


def test_images_of_distributions_are_their_means() -> None:
    z, _ = points()
    net = nn.Sequential(nn.Linear(D, 12), nn.Unflatten(1, (3, 2, 2))).double()
    torch.testing.assert_close(PullbackManifold(lambda z: td.Bernoulli(logits=net(z))).decode(z), net(z).sigmoid())
    classes = PullbackManifold(lambda z: td.Categorical(logits=net(z).movedim(1, -1)))
    torch.testing.assert_close(classes.decode(z), net(z).movedim(1, -1).softmax(-1))
    assert set(MAIN) == {"sample", "logits", "reconstruction", "recon_x"}


def test_a_decoder_is_asked_once_what_it_returns() -> None:
    calls = []

    def decoder(z: Tensor) -> td.Distribution:
        if z.requires_grad and z.grad_fn is not None and len(z) == 3:
            calls.append(z)
        return td.Poisson(z.exp())

    z0, z1 = points(count=5)
    manifold = PullbackManifold(decoder)
    assert "Fisher-Rao" not in repr(manifold)
    manifold.in_double().metric(z0)
    assert repr(manifold) == "PullbackManifold(" + decoder.__qualname__ + ", Fisher-Rao of Poisson, ambient=Euclidean)"
    before = len(calls)
    manifold.metric(z1)
    assert len(calls) == before == 1


class Autoencoder(nn.Module):
    """As people write them: ``forward`` takes data."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inward, self.outward = nn.Linear(7, D), nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, 7))

    def encode(self, x: Tensor) -> Tensor:
        return self.inward(x)

    def decode(self, z: Tensor) -> tuple[Tensor]:
        return (self.outward(z),)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))[0]


class Pythae(nn.Module):
    """As pythae's: encoder and decoder are modules, and ``forward`` takes a dict of data."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(7, D)
        self.decoder = Reconstructing()

    def forward(self, inputs: dict[str, Tensor]) -> ModelOutput:
        return ModelOutput(recon_x=self.decoder(self.encoder(inputs["data"])).reconstruction)


class Reconstructing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Autoencoder().outward

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.net(z))


class Wrapped:
    """No module, and not to be called."""

    def __init__(self) -> None:
        self.model = Autoencoder()

    def encode(self, x: Tensor) -> Tensor:
        return self.model.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("model", [Autoencoder, Pythae, Wrapped])
def test_models_that_encode_stand_for_their_decoders(model: type, dtype: torch.dtype) -> None:
    made = model()
    if isinstance(made, nn.Module):
        made = made.to(dtype)
    z0, z1 = (z.to(dtype) for z in points())
    net = Autoencoder().outward.double()
    found = PullbackManifold(made).dist(z0, z1)
    expected = PullbackManifold(net).dist(z0.double(), z1.double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


class Cells(nn.Module):
    """As scvi's: rates grow with the size of a cell's library, and with its batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(D + 2, 5), nn.Tanh(), nn.Linear(5, 7), nn.Softmax(1))
        self.dispersion = nn.Parameter(torch.linspace(0, 1, 7))

    def forward(self, z: Tensor, library: Tensor, batch: Tensor, scale: float = 1.0) -> dict[str, td.Distribution]:
        rate = scale * library.exp() * self.net(torch.cat([z, batch], 1))
        r = self.dispersion.exp()
        return {"px": td.NegativeBinomial(r, logits=(rate / r).log())}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_further_inputs_are_conditions(dtype: torch.dtype) -> None:
    cells, (z, w) = Cells().to(dtype), (p.to(dtype) for p in points())
    held = {"library": torch.tensor([[6.0]], dtype=dtype), "batch": torch.tensor([[0.0, 1.0]], dtype=dtype)}
    manifold = PullbackManifold(cells, conditions=held | {"scale": 2.0})
    double, wide = Cells().double(), {name: value.double().expand(3, -1) for name, value in held.items()}
    r = double.dispersion.exp()

    def root(z: Tensor) -> Tensor:
        p = double(z, wide["library"][: len(z)], wide["batch"][: len(z)], 2.0)["px"]
        return 2 * r.sqrt() * (p.mean / r).sqrt().asinh()

    J = dense_jacobian(root, z.double())
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(manifold.metric(z).dense().double(), J.mT @ J, **tolerance)
    solution = manifold.geodesic(z, w)
    assert bool(solution.converged.all())
    partial = functools.partial(cells, scale=2.0, library=held["library"], batch=held["batch"].expand(1, -1))
    other = PullbackManifold(lambda z: partial(z, batch=held["batch"].expand(len(z), -1)))
    torch.testing.assert_close(other.dist(z, w), solution.length, rtol=1e-5, atol=0)


@pytest.mark.usefixtures("without_type_checks")
def test_conditions_that_do_not_fit_are_named() -> None:
    for conditions, words in (
        ([1], "must be a dict"),
        ({"library": torch.ones(5, 1)}, r"expected one row.*library.mean\(0, keepdim=True\)"),
    ):
        with pytest.raises(OptionError, match=words):
            PullbackManifold(Cells(), conditions=conditions)
    with pytest.raises(OptionError, match=r"got the class Cells. Make one of it, Cells\(...\)"):
        PullbackManifold(Cells)


def test_a_mean_that_is_lacking_is_told_from_one_where_the_decoder_is_not_finite() -> None:
    def counts(z: Tensor) -> torch.distributions.NegativeBinomial:
        inside = z.square().sum(1, keepdim=True) < 1
        logits = torch.where(inside, torch.cat([z, z.sin(), z[:, :1] * z[:, 1:]], 1), torch.nan)
        return torch.distributions.NegativeBinomial(3.0, logits=logits, validate_args=False)

    manifold = PullbackManifold(counts, output="mean")
    assert manifold.decode(torch.full((3, 2), 5.0)).isnan().all()
    z = torch.tensor([[0.1, 0.2], [-0.3, 0.4], [0.5, -0.1]], dtype=torch.float64)
    assert manifold.geodesic(z, z.flip(0) / 2).converged.all()
    with pytest.raises(ModuleError, match="a Categorical has no mean"):
        PullbackManifold(lambda z: torch.distributions.Categorical(logits=z), output="mean").metric(z)
