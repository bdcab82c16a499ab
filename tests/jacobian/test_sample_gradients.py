"""Gradients sample by sample beside loops of autograd."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.errors import DtypeError, OptionError, ShapeError
from pullgeo.jacobian import (
    ConvWeight,
    LinearWeight,
    named_sample_gradients,
    sample_gradient_norms,
    sample_gradients,
)
from tests.jacobian.architectures import SharedWeights

NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (3,)),
    "convolutional": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.SiLU(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(6, 2)),
        (2, 5),
    ),
    "tokens": (lambda: nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Flatten(), nn.Linear(10, 2)), (5, 3)),
    "shared": (SharedWeights, (3,)),
}


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    build, shape = NETWORKS[name]
    module, x = build().double(), torch.randn(5, *shape, dtype=torch.float64)
    return module, x, torch.randint(module(x).shape[1], (5,))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_of_each_sample_and_their_norms(name: str) -> None:
    module, x, target = case(name)
    parameters = list(module.parameters())
    loops = [
        torch.autograd.grad(F.cross_entropy(module(x[i : i + 1]), target[i : i + 1]), parameters) for i in range(5)
    ]
    expected = torch.stack([torch.cat([g.flatten() for g in gradients]) for gradients in loops])

    def loss(y: Tensor) -> Tensor:
        return F.cross_entropy(y, target, reduction="none")

    torch.testing.assert_close(sample_gradients(module, x, loss), expected)
    torch.testing.assert_close(sample_gradient_norms(module, x, loss), expected.norm(dim=1))
    y = module(x)
    cotangent = torch.autograd.grad(loss(y).sum(), y)[0]
    named = named_sample_gradients(module, x, cotangent)
    assert list(named) == [name for name, _ in module.named_parameters()]
    for i, gradient in enumerate(named.values()):
        torch.testing.assert_close(gradient, torch.stack([gradients[i] for gradients in loops]))
    with torch.no_grad():
        torch.testing.assert_close(sample_gradients(module, x, loss), expected)


def test_norms_of_linear_layers_and_convolutions_form_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    def formed(self: object, W: Tensor) -> Tensor:
        raise AssertionError("gradients were formed")

    monkeypatch.setattr(LinearWeight, "pull", formed)
    monkeypatch.setattr(ConvWeight, "pull", formed)
    for module, shape in ((nn.Linear(3, 2), (3,)), (nn.Linear(3, 2), (5, 3)), (nn.Conv1d(64, 64, 3), (64, 4))):
        x = torch.randn(3, *shape)
        assert sample_gradient_norms(module, x, lambda y: y.square().flatten(1).sum(1)).shape == (3,)


def test_norms_are_differentiable() -> None:
    module, x, _ = case("mlp")
    penalty = sample_gradient_norms(module, x, lambda y: y.square().sum(1)).sum()
    found = torch.autograd.grad(penalty, list(module.parameters()))
    y = [module(x[i : i + 1]).square().sum() for i in range(5)]
    slow = [torch.autograd.grad(value, list(module.parameters()), create_graph=True) for value in y]
    norms = sum(torch.cat([g.flatten() for g in gradients]).norm() for gradients in slow)
    for a, b in zip(found, torch.autograd.grad(norms, list(module.parameters())), strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_no_loss_per_sample_is_refused(without_type_checks: None) -> None:
    module, x, _ = case("mlp")
    with pytest.raises(ShapeError, match=r"one number per sample, shape \(5,\), got \(\)"):
        sample_gradients(module, x, lambda y: y.sum())
    with pytest.raises(ShapeError, match=r"of shape \(5, 2\).* got shape \(5, 3\)"):
        sample_gradient_norms(module, x, torch.zeros(5, 3).double())
    with pytest.raises(DtypeError, match=r"loss must be torch.float64"):
        sample_gradients(module, x, torch.zeros(5, 2))
    assert not sample_gradients(module, x, lambda y: torch.ones(5).double()).any()


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("as_function", [True, False])
def test_in_chunks_of_samples(size: int, as_function: bool) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, target = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1])
    count: list[int] = []

    def cross_entropy(y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(y, target, reduction="none")

    with torch.no_grad():
        residual = network(x).softmax(1) - nn.functional.one_hot(target, 2)
    loss = cross_entropy if as_function else residual
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(cross_entropy(network(x))[i], list(network.parameters()))])
        for i in range(5)
    ]
    expected = torch.stack(rows)
    handle = network.register_forward_pre_hook(lambda module, args: count.append(len(args[0])))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = sample_gradients(network, x, loss, chunk_size=size)
            norms = sample_gradient_norms(network, x, loss, chunk_size=size)
            named = named_sample_gradients(network, x, loss, chunk_size=size)
        torch.testing.assert_close(found.detach(), expected)
        torch.testing.assert_close(norms.detach(), expected.norm(dim=1))
        torch.testing.assert_close(torch.cat([g.flatten(1) for g in named.values()], 1).detach(), expected)
        assert found.requires_grad is grad
    assert max(count) == size
    handle.remove()
    # gradients of a penalty go through the losses and the chunks alike
    penalty = [sample_gradients(network, x, loss, chunk_size=n).pow(3).sum() for n in ("auto", size)]
    left, right = (torch.autograd.grad(p, list(network.parameters()), materialize_grads=True) for p in penalty)
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("without_type_checks")
def test_chunks_of_samples_that_do_not_fit_are_named() -> None:
    network, x = nn.Linear(3, 2), torch.randn(5, 3)
    for wrong in (0, True, 1.5):
        with pytest.raises(OptionError, match="sample_gradients: chunk_size must be a positive number"):
            sample_gradients(network, x, torch.ones(5, 2), chunk_size=wrong)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"one row for each of the 5 samples.*\(4, 2\)"):
        sample_gradients(network, x, torch.ones(4, 2), chunk_size=2)
