"""The neural tangent kernel between two batches, beside the product of the oracle's Jacobians."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import DtypeError, OptionError, ShapeError
from pullgeo.jacobian import LinearWeight, LookupWeight, SampleSlice, WeightKind, linearize, tangent_kernel
from pullgeo.testing import oracles
from tests.jacobian.architectures import SharedWeights


class TwoFeatures(nn.Module):
    """A bilinear layer of two parts of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(2, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x[:, :2], x[:, 2:])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(2, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0][:, -1]


def tied() -> nn.Module:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Linear(3, 2))


def normalised() -> nn.Module:
    norm = nn.BatchNorm1d(3)
    norm.running_mean, norm.running_var = torch.randn(3), torch.rand(3) + 0.5
    return nn.Sequential(nn.Linear(2, 3), norm, nn.PReLU(3), nn.LayerNorm(3)).eval()


CASES = {
    "linear": (lambda: nn.Linear(3, 2), (3,)),
    "without bias": (lambda: nn.Linear(3, 2, bias=False), (3,)),
    "over rows": (lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(10, 2)), (5, 3)),
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (3,)),
    "bilinear": (TwoFeatures, (5,)),
    "convolution": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2)),
        (2, 3, 5),
    ),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose1d(2, 2, 3, groups=2), nn.Sigmoid()), (2, 2)),
    "norms": (normalised, (2,)),
    "tied": (tied, (3,)),
    "shared": (SharedWeights, (3,)),
    "recurrent": (Recurrent, (2, 2)),
}
TABLES = {
    "embedding": lambda: nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 2)),
    "embedding alone": lambda: nn.Embedding(5, 2, padding_idx=1),
    "bag": lambda: nn.EmbeddingBag(5, 3, mode="mean"),
    "bag of maxima": lambda: nn.EmbeddingBag(5, 3, mode="max"),
}


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    if name in TABLES:
        x = torch.randint(5, (7, 3), generator=generator)
        return TABLES[name]().double(), x[:3], x[3:]
    build, shape = CASES[name]
    x = torch.randn(7, *shape, generator=generator, dtype=torch.float64)
    return build().double(), x[:3], x[3:]


@pytest.mark.parametrize("name", [*CASES, *TABLES])
def test_kernel_is_the_product_of_both_jacobians(name: str) -> None:
    module, x1, x2 = case(name)
    J1, J2 = (oracles.dense_jacobian(module, x, "weight") for x in (x1, x2))
    between, within = torch.einsum("aop,cqp->aocq", J1, J2), torch.einsum("aop,cqp->aocq", J1, J1)
    for chunk_size in (None, 2):
        options = {"chunk_size": chunk_size}
        torch.testing.assert_close(tangent_kernel(module, x1, x2, **options), between, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(tangent_kernel(module, x1, **options), within, rtol=1e-10, atol=1e-12)
        diagonal = tangent_kernel(module, x1, x2, "diagonal", **options)
        torch.testing.assert_close(diagonal, torch.einsum("aoco->aco", between), rtol=1e-10, atol=1e-12)
        trace = tangent_kernel(module, x1, x2, "trace", **options)
        torch.testing.assert_close(trace, torch.einsum("aoco->ac", between), rtol=1e-10, atol=1e-12)


def test_kernel_is_differentiable() -> None:
    module, x1, x2 = case("mlp")
    assert torch.autograd.gradcheck(lambda a, b: tangent_kernel(module, a, b, "trace"), (x1.requires_grad_(), x2))
    tangent_kernel(module, x1, x2).sum().backward()
    assert all(p.grad is not None for p in list(module.parameters())[:3])


def test_linear_layers_and_tables_form_no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def formed(self: WeightKind, W: Tensor) -> Tensor:
        raise AssertionError("cotangents were pulled to weights")

    monkeypatch.setattr(LinearWeight, "pull", formed)
    monkeypatch.setattr(LookupWeight, "pull", formed)
    for name in ("mlp", "embedding"):
        module, x1, x2 = case(name)
        assert tangent_kernel(module, x1, x2).shape == (3, 2, 4, 2)
        assert tangent_kernel(module, x1, x2, "trace").shape == (3, 4)


def test_any_jacobian_may_be_one_of_some_samples() -> None:
    module, x, _ = case("mlp")
    J = linearize(module, x, "weight")[1]
    part = SampleSlice(J, (0, 3)).at(slice(1, 3))
    dense = oracles.dense_jacobian(module, x, "weight")[1:]
    T, W = torch.randn(2, 2, 32).double(), torch.randn(2, 2, 2).double()
    torch.testing.assert_close(part.push(T), torch.einsum("bop,kbp->kbo", dense, T))
    torch.testing.assert_close(part.pull(W), torch.einsum("bop,kbo->kbp", dense, W))
    whole = torch.cat([torch.zeros(2, 1, 32).double(), T], 1)
    torch.testing.assert_close(part.second_push(T, T), J.second_push(whole, whole)[:, 1:])
    torch.testing.assert_close(part.second(T, W[0]), J.second(whole, torch.cat([W[0, :1], W[0]]))[1:])


def test_batches_that_do_not_fit_each_other_are_refused(without_type_checks: None) -> None:
    module, x1, _ = case("mlp")
    with pytest.raises(ShapeError, match=r"x2 must have shape \(b2, 3\) .* got \(4, 2\)"):
        tangent_kernel(module, x1, torch.zeros(4, 2).double())
    with pytest.raises(DtypeError, match=r"float64 tensor as x1 is, got torch.float32"):
        tangent_kernel(module, x1, torch.zeros(4, 3))
    with pytest.raises(OptionError, match=r"one of \('full', 'diagonal', 'trace'\), got 'sum'"):
        tangent_kernel(module, x1, outputs="sum")  # type: ignore[arg-type]
    assert tangent_kernel(module, x1, x1[:0]).shape == (3, 2, 0, 2)
    assert tangent_kernel(module, x1[:0], x1, "diagonal").shape == (0, 3, 2)
