"""The backend for laplace-torch, where that is installed, against one backward pass for each output of each sample."""

import sys

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pullgeo.errors import OptionError
from pullgeo.likelihood import laplace_backend


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 7, dropout=0.0, batch_first=True)
        self.into, self.out = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.into(x)).mean(1))


class Twice(nn.Module):
    """A skip connection, a norm, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.out = nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :5]
        return self.out(x + self.norm(self.inner(torch.tanh(self.inner(x)))))


MODELS = {"recurrent": Recurrent, "attention": Attention, "twice": Twice}


def model_and_data(name: str, likelihood: str) -> tuple[nn.Module, DataLoader, Tensor, Tensor]:
    model = MODELS[name]().double().eval()
    x = torch.randn(7, 2, 5, dtype=torch.float64)
    y = torch.randint(3, (7,)) if likelihood == "classification" else torch.randn(7, 3, dtype=torch.float64)
    return model, DataLoader(TensorDataset(x, y), batch_size=3), x, y


def jacobians(model: nn.Module, x: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """``(b, C, P)``, one backward pass for each output of each sample."""
    rows = []
    for sample in x:
        f = model(sample[None])[0]
        grads = [torch.autograd.grad(v, parameters, retain_graph=True) for v in f]
        rows.append(torch.stack([torch.cat([g.flatten() for g in grad]) for grad in grads]))
    return torch.stack(rows)


def information(f: Tensor, likelihood: str) -> Tensor:
    if likelihood == "regression":
        return torch.eye(3, dtype=f.dtype).expand(len(f), 3, 3)
    p = f.softmax(1)
    return torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)


@pytest.mark.parametrize("likelihood", ["classification", "regression"])
@pytest.mark.parametrize("structure", ["diag", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_it_fits_what_the_default_backends_refuse(name: str, structure: str, likelihood: str) -> None:
    laplace = pytest.importorskip("laplace")
    model, loader, x, _ = model_and_data(name, likelihood)
    J = jacobians(model, x, list(model.parameters()))
    H = torch.einsum("bcp,bck,bkq->pq", J, information(model(x), likelihood), J).detach()
    la = laplace.Laplace(model, likelihood, "all", structure, backend=laplace_backend())
    la.fit(loader)
    torch.testing.assert_close(la.H, H if structure == "full" else H.diagonal(), rtol=1e-9, atol=1e-11)
    assert torch.isfinite(la.log_marginal_likelihood())
    # the predictive variance is that of the linearised model
    _, variance = la._glm_predictive_distribution(x[:2])
    posterior = torch.linalg.inv((H if structure == "full" else H.diagonal().diag()) + torch.eye(len(H)).to(H))
    torch.testing.assert_close(variance.detach(), (J[:2] @ posterior @ J[:2].mT).detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("structure", ["diag", "full"])
def test_the_last_layer_frozen_weights_and_subnetworks(structure: str) -> None:
    laplace = pytest.importorskip("laplace")
    model, loader, x, _ = model_and_data("twice", "classification")
    F = information(model(x), "classification")

    def expected(parameters: list[nn.Parameter]) -> Tensor:
        J = jacobians(model, x, parameters)
        H = torch.einsum("bcp,bck,bkq->pq", J, F, J).detach()
        return H if structure == "full" else H.diagonal()

    last = laplace.Laplace(model, "classification", "last_layer", structure, backend=laplace_backend())
    last.fit(loader)
    torch.testing.assert_close(last.H, expected(list(model.out.parameters())), rtol=1e-9, atol=1e-11)
    for parameter in model.norm.parameters():
        parameter.requires_grad_(False)
    rest = [p for p in model.parameters() if p.requires_grad]
    frozen = laplace.Laplace(model, "classification", "all", structure, backend=laplace_backend())
    frozen.fit(loader)
    torch.testing.assert_close(frozen.H, expected(rest), rtol=1e-9, atol=1e-11)
    chosen = torch.tensor([1, 5, 29, 31])
    options = {"subnetwork_indices": chosen, "backend": laplace_backend()}
    part = laplace.Laplace(model, "classification", "subnetwork", structure, **options)
    part.fit(loader)
    whole = expected(rest)
    torch.testing.assert_close(part.H, whole[chosen][:, chosen] if structure == "full" else whole[chosen])


def test_gradients_are_those_of_each_sample() -> None:
    pytest.importorskip("laplace")
    model, _, x, y = model_and_data("recurrent", "classification")
    backend = laplace_backend()(model, "classification")
    G, loss = backend.gradients(x, y)
    for i in range(7):
        own = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(own, list(model.parameters()))])
        torch.testing.assert_close(G[i], expected)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(model(x), y, reduction="sum").detach())


@pytest.mark.parametrize("structure", ["diag", "full"])
def test_sampled_information_comes_close(structure: str) -> None:
    pytest.importorskip("laplace")
    model, _, x, y = model_and_data("twice", "classification")
    exact = getattr(laplace_backend()(model, "classification"), structure)(x, y)[1]
    sampled = laplace_backend()(model, "classification", stochastic=True, num_samples=2000)
    found = getattr(sampled, structure)(x, y)[1]
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.05


def test_jacobians_can_be_differentiated() -> None:
    pytest.importorskip("laplace")
    model, _, x, _ = model_and_data("twice", "regression")
    x.requires_grad_()
    backend = laplace_backend()(model, "regression")
    J, f = backend.jacobians(x, enable_backprop=True)
    (by_x,) = torch.autograd.grad(J.square().sum() + f.sum(), x)
    truth = jacobians(model, x, list(model.parameters()))
    torch.testing.assert_close(J, truth)
    step = torch.randn_like(x)
    with torch.no_grad():
        ends = [x + sign * 1e-5 * step for sign in (1, -1)]
    values = [backend.jacobians(end)[0].square().sum() + model(end).sum() for end in ends]
    torch.testing.assert_close((by_x * step).sum(), (values[0] - values[1]).detach() / 2e-5, rtol=1e-6, atol=1e-6)
    assert not backend.jacobians(x)[0].requires_grad


def test_what_it_does_not_serve() -> None:
    pytest.importorskip("laplace")
    model, _, x, y = model_and_data("twice", "regression")
    backend = laplace_backend()(model, "regression")
    with pytest.raises(OptionError, match="Kronecker"):
        backend.kron(x, y, 7)
    with pytest.raises(OptionError, match="got a mapping with keys input_ids"):
        backend.diag({"input_ids": x}, y)


def test_without_laplace_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    laplace_backend.cache_clear()
    monkeypatch.setitem(sys.modules, "laplace.curvature", None)
    with pytest.raises(OptionError, match=r"pullgeo\[laplace\]"):
        laplace_backend()
