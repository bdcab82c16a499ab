"""Gauss-Newton matrices against products written out from dense Jacobians and the expected information."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.utils._python_dispatch import TorchDispatchMode

from pullgeo.errors import OptionError
from pullgeo.jacobian import linearize
from pullgeo.likelihood import (
    Bernoulli,
    Categorical,
    CategoricalFisher,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    LogStd,
    Poisson,
    TorchDistribution,
    ggn,
    ggn_blocks,
    ggn_diag,
    sampled_fisher,
    sampled_ggn,
    sampled_ggn_diag,
)
from pullgeo.likelihood.heteroscedastic import Paired
from pullgeo.metric import Dense, Implicit
from pullgeo.testing import check_metric, oracles

B = 3


class Branches(nn.Module):
    """Uses a layer twice, and adds what two branches give."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.out = nn.Linear(2, 2), nn.Linear(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.shared(x))
        return self.out(h + self.shared(h))


class MeanAndScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.scale = nn.Linear(2, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return self.mean(h), self.scale(h)


class Reused(nn.Module):
    """Two layers that share their weight, and not their biases."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def dense_net(out: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, out))


def image_net(channels: int) -> nn.Module:
    """To images of 3 by 2 pixels."""
    return nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Unflatten(1, (2, 3, 2)), nn.Conv2d(2, channels, 3, padding=1))


NORMAL = TorchDistribution(lambda eta: td.Normal(eta[:, :3], eta[:, 3:].exp()))
CASES: dict[str, tuple[Likelihood, nn.Module]] = {
    "gaussian": (Gaussian(torch.tensor([0.5, 1.0, 2.0, 3.0, 0.7, 1.1])), dense_net()),
    "log std": (HeteroscedasticGaussian(LogStd()), dense_net()),
    "pair": (HeteroscedasticGaussian(LogStd()), Paired(MeanAndScale())),
    "bernoulli image": (Bernoulli(), image_net(1)),
    "poisson": (Poisson(), dense_net()),
    "categorical": (Categorical(), dense_net(5)),
    "one class more than inputs": (Categorical(), nn.Linear(7, 2)),
    "spatial categorical": (Categorical(), image_net(5)),
    "branches": (Categorical(), Branches()),
    "shared weight": (Categorical(), Reused()),
    "normal of torch": (NORMAL, dense_net()),
}
every_case = pytest.mark.parametrize(("likelihood", "module"), CASES.values(), ids=CASES)


def points(module: nn.Module) -> Tensor:
    n = module.in_features if isinstance(module, nn.Linear) else 2
    return torch.randn(B, n, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def truth(likelihood: Likelihood, module: nn.Module, x: Tensor, wrt: str) -> Tensor:
    J = oracles.dense_jacobian(module, x, wrt)
    return oracles.jTmjp(J, likelihood.fisher(module(x)).dense().expand(B, J.shape[1], J.shape[1]))


@every_case
@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_ggn_is_the_information_pulled_back(likelihood: Likelihood, module: nn.Module, wrt: str) -> None:
    module = module.double()
    x = points(module)
    expected = truth(likelihood, module, x, wrt).detach()
    G = ggn(module, x, likelihood, wrt)
    v = torch.randn(2, B, G.dim, dtype=torch.float64)
    torch.testing.assert_close(G.dense(), expected)
    torch.testing.assert_close(G.diag(), expected.diagonal(dim1=1, dim2=2))
    torch.testing.assert_close(G.apply(v), torch.einsum("bij,kbj->kbi", expected, v))
    torch.testing.assert_close(G.inner(v, v.flip(0)), torch.einsum("kbi,bij,kbj->kb", v, expected, v.flip(0)))
    torch.testing.assert_close(G.root() @ G.root().mT, expected)


@every_case
def test_blocks_are_those_of_the_layers(likelihood: Likelihood, module: nn.Module) -> None:
    module = module.double()
    x = points(module)
    if isinstance(module, Reused):
        with pytest.raises(OptionError, match="share some of their parameters"):
            ggn_blocks(module, x, likelihood)
        return
    full = truth(likelihood, module, x, "weight").detach()
    found = ggn_blocks(module, x, likelihood)
    kept = torch.zeros_like(full)
    start = 0
    for layer in module.modules():
        n = sum(p.numel() for p in layer.parameters(recurse=False))
        kept[:, start : start + n, start : start + n] = full[:, start : start + n, start : start + n]
        start += n
    torch.testing.assert_close(found.dense(), kept)


def test_what_is_pulled_back_is_a_metric() -> None:
    likelihood, module = CASES["spatial categorical"]
    G = ggn(module.double(), points(module), likelihood)
    assert isinstance(G, Implicit)
    assert isinstance(G.M, CategoricalFisher)
    check_metric(G)


def test_a_pulled_metric_is_pulled_back_again() -> None:
    outer, inner = nn.Linear(5, 3).double(), nn.Sequential(nn.Linear(2, 5), nn.Tanh()).double()
    x = points(inner)
    z, J = linearize(inner, x)
    G = ggn(outer, z, Categorical()).pullback(J)
    torch.testing.assert_close(G.dense(), truth(Categorical(), nn.Sequential(inner, outer), x, "input"))
    torch.testing.assert_close(G.diag(), G.dense().diagonal(dim1=1, dim2=2))


def test_an_information_without_structure_of_its_own() -> None:
    class Correlated(Gaussian):
        def fisher(self, eta: Tensor) -> Dense:
            return Dense(torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=eta.dtype))

    module = dense_net(2).double()
    x = points(module)
    expected = truth(Correlated(), module, x, "weight")
    blocks = ggn_blocks(module, x, Correlated())
    torch.testing.assert_close(blocks.diag(), expected.diagonal(dim1=1, dim2=2).detach())
    torch.testing.assert_close(ggn(module, x, Correlated(), "weight").dense(), expected.detach())
    torch.testing.assert_close(Correlated().root(module(x)).square().sum(2), torch.tensor([[2.0, 3.0]] * B).double())


def test_the_information_is_the_curvature_of_kl() -> None:
    likelihood, module = CASES["spatial categorical"]
    x = points(module.double())
    v = torch.randn(B, 2, dtype=torch.float64)
    step = 1e-3

    def distribution(z: Tensor) -> td.Distribution:
        return td.Independent(td.Categorical(logits=module(z).movedim(1, -1)), 2)

    kl = td.kl_divergence(distribution(x - step / 2 * v), distribution(x + step / 2 * v))
    torch.testing.assert_close(2 * kl / step**2, ggn(module, x, likelihood).inner(v, v), rtol=1e-4, atol=0)


def test_the_embedding_gives_the_same_metric_as_the_information() -> None:
    for name in ("gaussian", "bernoulli image", "poisson", "spatial categorical"):
        likelihood, module = CASES[name]
        x = points(module.double())
        embedded = nn.Sequential(module, likelihood.embedding)
        J = oracles.dense_jacobian(embedded, x)
        torch.testing.assert_close(ggn(module, x, likelihood).dense(), J.mT @ J)
        torch.testing.assert_close(linearize(embedded, x)[1].dense(), J)


def test_saturated_outputs_give_finite_matrices_and_gradients() -> None:
    for likelihood in (Bernoulli(), Categorical()):
        module = nn.Linear(3, 5)
        with torch.no_grad():
            module.weight.mul_(1e4)
        for wrt in ("input", "weight"):
            G = ggn(module, torch.randn(B, 3), likelihood, wrt)
            for answer in (
                G.dense(),
                G.diag(),
                G.root(),
                G.apply(torch.ones(B, G.dim)),
            ):
                assert bool(answer.isfinite().all())
                slopes = torch.autograd.grad(answer.sum(), list(module.parameters()), retain_graph=True)
                assert all(bool(slope.isfinite().all()) for slope in slopes)


def test_gradients_pass_through_the_diagonal() -> None:
    likelihood, module = CASES["categorical"]
    x = points(module.double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ggn(module, x, likelihood, "weight").diag().square().sum(0), (x,))


def test_precision_is_kept() -> None:
    for likelihood, module in (CASES["bernoulli image"], CASES["spatial categorical"], CASES["normal of torch"]):
        x = points(module).float()
        expected = truth(likelihood, module.double(), x.double(), "weight").diagonal(dim1=1, dim2=2)
        found = ggn(module.float(), x, likelihood, "weight").diag()
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-3, atol=1e-6)


def test_an_empty_batch_has_no_matrices() -> None:
    likelihood, module = CASES["spatial categorical"]
    G = ggn(module.double(), torch.zeros(0, 2, dtype=torch.float64), likelihood, "weight")
    P = sum(p.numel() for p in module.parameters())
    assert G.diag().shape == (0, P)
    assert G.dense().shape == (0, P, P)


@every_case
def test_diagonals_are_added_up_over_the_batch(likelihood: Likelihood, module: nn.Module) -> None:
    module = module.double()
    x = points(module)
    expected = truth(likelihood, module, x, "weight").detach().diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(ggn_diag(module, x, likelihood), expected)
    torch.testing.assert_close(ggn_diag(module, x, likelihood, reduction="sum"), expected.sum(0))
    torch.testing.assert_close(ggn_diag(module, x, likelihood, reduction="mean"), expected.mean(0))


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return found


@pytest.mark.parametrize("likelihood", [Categorical(), Bernoulli()], ids=["categorical", "bernoulli"])
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_no_array_of_outputs_times_weights_is_formed(likelihood: Likelihood, reduction: str) -> None:
    b, n_out = 30, 7
    module = nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, n_out))
    P = sum(p.numel() for p in module.parameters())
    with torch.no_grad(), Largest() as seen:
        ggn_diag(module, torch.randn(b, 40), likelihood, reduction=reduction)
    assert 0 < seen.elements <= (b * P if reduction == "none" else b * n_out * 60)


def test_reductions_that_mean_nothing_are_refused() -> None:
    module, x = dense_net().double(), torch.zeros(B, 2, dtype=torch.float64)
    with pytest.raises(OptionError, match="reduction must be"):
        ggn_diag(module, x, Bernoulli(), reduction="average")
    with pytest.raises(OptionError, match="every sample has an input of its own"):
        ggn_diag(module, x, Bernoulli(), "input", reduction="sum")


# Draws


@pytest.mark.parametrize("name", ["log std", "spatial categorical", "shared weight"])
def test_sampled_diagonals_are_right_within_their_error(name: str, generator: torch.Generator) -> None:
    likelihood, module = CASES[name]
    x = points(module.double())
    exact = truth(likelihood, module, x, "weight").detach().diagonal(dim1=1, dim2=2)
    with torch.no_grad():
        found = sampled_ggn_diag(module, x, likelihood, generator, samples=400, wrt="weight")
    seen = found.standard_error > 0
    z = ((found.value - exact) / found.standard_error)[seen]
    assert float(z.abs().max()) < 6
    assert float((found.standard_error / exact)[exact > 0.1 * exact.max()].max()) < 0.5


def test_standard_errors_are_the_spread_of_estimates(generator: torch.Generator) -> None:
    module, x = nn.Linear(2, 5).double(), torch.ones(1, 2, dtype=torch.float64)
    runs = [sampled_ggn_diag(module, x, Categorical(), generator, 20, "weight") for _ in range(60)]
    spread = torch.stack([run.value for run in runs]).detach().std(0)
    claimed = torch.stack([run.standard_error for run in runs]).detach().square().mean(0).sqrt()
    ratio = (claimed / spread)[spread > 0]
    assert math.isclose(float(ratio.mean()), 1, abs_tol=0.15)


def test_sampled_metrics_have_a_root_of_low_rank(generator: torch.Generator) -> None:
    likelihood, module = CASES["spatial categorical"]
    x = points(module.double())
    G = sampled_ggn(module, x, likelihood, generator, samples=7, wrt="weight")
    same = torch.Generator().manual_seed(0)
    M = sampled_fisher(likelihood, module(x), same, samples=7)
    check_metric(M)
    J = oracles.dense_jacobian(module, x, "weight")
    torch.testing.assert_close(G.dense(), oracles.jTmjp(J, M.dense()).detach())
    torch.testing.assert_close(G.diag(), G.dense().diagonal(dim1=1, dim2=2))
    assert G.root().shape == (B, J.shape[2], 7)
    again = sampled_ggn_diag(module, x, likelihood, torch.Generator().manual_seed(0), samples=7, wrt="weight")
    torch.testing.assert_close(again.value, G.diag())
    whole = {
        reduction: sampled_ggn_diag(module, x, likelihood, torch.Generator().manual_seed(0), 7, "weight", reduction)
        for reduction in ("sum", "mean")
    }
    torch.testing.assert_close(whole["sum"].value, again.value.sum(0))
    torch.testing.assert_close(B * whole["mean"].value, again.value.sum(0))
    torch.testing.assert_close(B * whole["mean"].standard_error, whole["sum"].standard_error)


def test_too_few_draws_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(OptionError, match="at least 2"):
        sampled_ggn_diag(dense_net(), torch.zeros(1, 2), Bernoulli(), generator, samples=1)
    with pytest.raises(OptionError, match="at least 1"):
        sampled_fisher(Bernoulli(), torch.zeros(1, 2), generator, samples=0)
