"""Decoders drawn from the Laplace approximation, against Gauss-Newton matrices that autograd forms."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev
from torch.nn.utils import parameters_to_vector

from pullgeo import PullbackManifold
from pullgeo.errors import OptionError, ShapeError
from pullgeo.likelihood import Bernoulli, Categorical, Gaussian, Likelihood
from pullgeo.manifold import Ensemble
from pullgeo.manifold.decoders import laplace

N, D, HIDDEN, OUT = 11, 2, 3, 5
SAMPLES = 4000


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def decoder(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, OUT, bias=bias)).double()


def latents() -> Tensor:
    return torch.randn(N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def jacobians(module: nn.Module, z: Tensor) -> Tensor:
    """``(n, out, P)`` by autograd."""
    weights = {name: p.detach() for name, p in module.named_parameters()}
    J = jacrev(lambda w: functional_call(module, w, (z,)))(weights)
    return torch.cat([J[name].flatten(2) for name in weights], 2)


def information(likelihood: Likelihood, y: Tensor) -> Tensor:
    """Fisher information of the parameters, as text books state it."""
    if isinstance(likelihood, Gaussian):
        return torch.eye(OUT, dtype=y.dtype).expand(N, OUT, OUT) / likelihood.sigma**2
    p = y.sigmoid() if isinstance(likelihood, Bernoulli) else y.softmax(1)
    return (
        torch.diag_embed(p * (1 - p))
        if isinstance(likelihood, Bernoulli)
        else torch.diag_embed(p) - p[:, :, None] * p[:, None]
    )


def drawn(module: nn.Module, likelihood: Likelihood, structure: str, prior: float = 2.0) -> Tensor:
    """Weights less their mean, ``(samples, P)``."""
    vectors = laplace.laplace_samples(module, latents(), likelihood, structure, SAMPLES, prior, generator())
    return vectors - parameters_to_vector(module.parameters()).detach()


def check_covariance(found: Tensor, expected: Tensor) -> None:
    """Each entry of a covariance of Gaussian draws within five of its standard errors."""
    covariance = found.mT @ found / len(found)
    own = expected.diagonal()
    error = ((own[:, None] * own + expected.square()) / len(found)).sqrt()
    assert float(((covariance - expected).abs() - 5 * error).max()) <= 0
    assert float((found.mean(0).abs() - 5 * (own / len(found)).sqrt()).max()) <= 0


@pytest.mark.parametrize("likelihood", [Gaussian(0.3), Bernoulli(), Categorical()])
def test_diagonal(likelihood: Likelihood) -> None:
    module, z = decoder(), latents()
    J = jacobians(module, z)
    H = torch.einsum("nop,noq,nqr->pr", J, information(likelihood, module(z).detach()), J)
    check_covariance(drawn(module, likelihood, "diag"), (1 / (H.diagonal() + 2.0)).diag())


@pytest.mark.parametrize("likelihood", [Gaussian(0.3), Bernoulli(), Categorical()])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("most", [laplace.MOST_WEIGHTS, 1])
def test_last_layer(likelihood: Likelihood, bias: bool, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laplace, "MOST_WEIGHTS", most)
    module, z = decoder(bias), latents()
    if most == 1 and isinstance(likelihood, Categorical):
        with pytest.raises(OptionError, match="no block for each output"):
            drawn(module, likelihood, "last_layer")
        return
    first = D * HIDDEN + HIDDEN
    J = jacobians(module, z)[:, :, first:]
    H = torch.einsum("nop,noq,nqr->pr", J, information(likelihood, module(z).detach()), J)
    found = drawn(module, likelihood, "last_layer")
    assert float(found[:, :first].abs().max()) == 0
    check_covariance(found[:, first:], torch.linalg.inv(H + 2.0 * torch.eye(len(H), dtype=H.dtype)))


@pytest.mark.parametrize("likelihood", [Gaussian(0.3), Categorical()])
@pytest.mark.parametrize("bias", [True, False])
def test_kronecker(likelihood: Likelihood, bias: bool) -> None:
    module, z = decoder(bias), latents()
    inputs = [z, module[1](module[0](z)).detach()]
    y = module(z).detach()
    info = information(likelihood, y)
    # the output's derivative by the layers' outputs
    h = module[0](z).detach()
    slope = 1 - h.tanh().square()
    K = [module[2].weight.detach() * slope[:, None], torch.eye(OUT, dtype=y.dtype).expand(N, OUT, OUT)]
    blocks = []
    for number, (x, k) in enumerate(zip(inputs, K, strict=True)):
        has_bias = bias or number == 0
        x = torch.cat([x, torch.ones(N, 1, dtype=x.dtype)], 1) if has_bias else x
        A, B = x.mT @ x / N, torch.einsum("noi,nop,npj->ij", k, info, k).contiguous()
        H = torch.kron(B, A)
        cov = torch.linalg.inv(H + 2.0 * torch.eye(len(H), dtype=H.dtype))
        # from rows (weights, bias) of each output to all weights, then all biases
        grid = torch.arange(len(H)).reshape(B.shape[0], -1)
        order = torch.cat([grid[:, :-1].flatten(), grid[:, -1]]) if has_bias else grid.flatten()
        blocks.append(cov[order][:, order])
    check_covariance(drawn(module, likelihood, "kron"), torch.block_diag(*blocks))


def test_kronecker_is_exact_for_a_layer_with_the_same_information_everywhere() -> None:
    torch.manual_seed(0)
    module, z = nn.Linear(D, OUT).double(), latents()
    J = jacobians(module, z)
    H = torch.einsum("nop,noq->pq", J, J) / 0.3**2
    expected = torch.linalg.inv(H + 2.0 * torch.eye(len(H), dtype=H.dtype))
    check_covariance(drawn(module, Gaussian(0.3), "kron"), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("structure", ["diag", "kron", "last_layer"])
def test_members_have_geodesics_and_the_decoder_stays(structure: str, dtype: torch.dtype) -> None:
    module = decoder().to(dtype)
    before = copy.deepcopy(module.state_dict())
    z = latents().to(dtype)
    arguments = {"samples": 3, "prior_precision": 10.0}
    ensemble = Ensemble.of_laplace(module, z, Gaussian(0.1), structure, **arguments, generator=generator())
    again = Ensemble.of_laplace(module, z, Gaussian(0.1), structure, **arguments, generator=generator())
    assert torch.equal(ensemble(z), again(z))
    assert ensemble(z).dtype == dtype
    assert len(ensemble.members) == 3
    assert bool(torch.isfinite(PullbackManifold(ensemble).dist(z[:3], z[3:6])).all())
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.usefixtures("without_type_checks")
def test_named_errors_say_what_to_do() -> None:
    module, z = decoder(), latents()

    def ask(decoder: object = module, data: Tensor = z, structure: str = "diag", **options: float) -> None:
        Ensemble.of_laplace(decoder, data, Gaussian(), structure, generator=generator(), **options)  # type: ignore[arg-type]

    with pytest.raises(OptionError, match="structure must be one of diag, kron, last_layer, got 'full'"):
        ask(structure="full")
    with pytest.raises(OptionError, match="a module with weights, got Tanh"):
        ask(nn.Tanh())
    with pytest.raises(OptionError, match=r"positive prior_precision, got 10 and 0\.0"):
        ask(prior_precision=0.0)
    with pytest.raises(ShapeError, match=r"data must be latents \(n, d\)"):
        ask(data=z[0])
    convolution = nn.Sequential(nn.Unflatten(1, (1, D)), nn.Conv1d(1, 3, 2)).double()
    with pytest.raises(OptionError, match=r"not so: 1\. Use structure='diag'"):
        ask(convolution, structure="kron")
    shared = nn.Linear(D, D).double()
    with pytest.raises(OptionError, match="called once"):
        ask(nn.Sequential(shared, nn.Tanh(), shared), structure="kron")
