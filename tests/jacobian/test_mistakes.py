"""Mistakes that others made, in networks that branch: one test each, named after the mistake."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pullgeo.jacobian import linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import oracles
from tests.jacobian.architectures import check_input, check_weight, close, network, random


class Branches(nn.Module):
    """``x + f(x) ∘ g(x)``, with layers and functions in between."""

    def __init__(self, function: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.function = nn.Tanh() if function is None else function

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.function(self.first(x))) * x.sin()


class Applied(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator]


def test_residual_pullback_computed_as_AtMA_plus_M() -> None:
    module, x, M = Branches().double(), random(3, 3), random(3, 3, 3, seed=1)
    J = linearize(module, x)[1]
    truth = oracles.dense_jacobian(module, x)
    pulled = J.pull_outer(J.signature.out_basis(), M.transpose(0, 1))
    close(pulled, oracles.jTmjp(truth, M))
    A = truth - torch.eye(3, dtype=torch.float64)
    assert not torch.allclose(pulled, A.mT @ M @ A + M)


def test_cross_layer_weight_blocks_dropped() -> None:
    module, x = Branches().double(), random(3, 3)
    J = linearize(module, x, "weight")[1]
    truth = oracles.dense_jacobian(module, x, "weight")
    W, V = random(2, 3, 3, seed=1), random(2, 3, 3, seed=2)
    full = J.pull_outer(W, V)
    close(full, oracles.jTmjp(truth, torch.einsum("kbo,kbp->bop", W, V)))
    assert bool((full[:, :12, 12:].abs() > 0.01).any())


def test_feature_maps_of_an_earlier_forward_reused() -> None:
    module, x, other = Branches().double(), random(3, 3), random(3, 3, seed=5)
    for wrt in ("input", "weight"):
        first = linearize(module, x, wrt)[1]
        module(other)
        linearize(module, other, wrt)[1].dense()
        close(first.dense(), oracles.dense_jacobian(module, x, wrt))


def test_a_module_used_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)) * self.layer(x)

    module, x = Twice().double(), random(3, 3)
    check_input(module, x)
    check_weight(module, x)


def test_diagonal_and_full_with_transposed_indices() -> None:
    module, x = network("gates")  # three inputs, two outputs
    J = linearize(module, x)[1]
    truth = oracles.dense_jacobian(module, x)
    v, w = random(2, 3, 3, seed=1), random(2, 3, 2, seed=2)
    close(J.push_squared(v), torch.einsum("boi,kbi->kbo", truth.square(), v))
    close(J.pull_squared(w), torch.einsum("boi,kbo->kbi", truth.square(), w))


def test_batch_size_one_hiding_a_sum_over_the_batch() -> None:
    module, x = Branches().double(), random(3, 3)
    for wrt in ("input", "weight"):
        together = linearize(module, x, wrt)[1]
        W = random(2, 3, 3, seed=1)
        for i in range(3):
            alone = linearize(module, x[i : i + 1], wrt)[1]
            close(together.pull(W)[:, i], alone.pull(W[:, i : i + 1])[:, 0])
            close(together.pull_diag(W, W)[i], alone.pull_diag(W[:, i : i + 1], W[:, i : i + 1])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_float64_in_float32_out(dtype: torch.dtype) -> None:
    for name in ("vision transformer", "shared weights"):
        module, x = network(name)
        for wrt in ("input", "weight"):
            y, J = linearize(module.to(dtype), x.to(dtype), wrt)
            W = torch.ones(1, *y.shape, dtype=dtype)
            T = torch.ones(1, len(x), *J.signature.in_shape, dtype=dtype)
            products = (y, J.push(T), J.pull(W), J.pull_diag(W, W), J.pull_gram(W, W), J.pull_squared_layerwise(W))
            assert J.signature.dtype == dtype
            assert all(product.dtype == dtype for product in products)


def test_softplus_threshold_and_hardtanh_limits_ignored() -> None:
    def function(x: Tensor) -> Tensor:
        return x * F.softplus(x, beta=2.0, threshold=1.0) + F.hardtanh(x, -0.3, 0.6) * x

    check_input(Applied(function), random(3, 5))


def test_max_pool_backward_assigning_where_windows_overlap() -> None:
    check_input(Applied(lambda x: F.max_pool2d(x, 3, 1) * F.avg_pool2d(x, 3, 1)), random(3, 2, 4, 5))


def test_bilinear_upsampling_treated_as_nearest() -> None:
    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear") * F.interpolate(x, scale_factor=2, mode="nearest")

    check_input(Applied(function), random(3, 2, 2, 3))


def test_circular_padding_ignored_backward() -> None:
    check_input(Applied(lambda x: F.pad(x, (1, 2), mode="circular") * F.pad(x, (1, 2))), random(3, 2, 5))


def test_stride_and_padding_dropped() -> None:
    weight = random(2, 2, 3, 3, seed=4)
    check_input(Applied(lambda x: F.conv2d(x, weight, stride=2, padding=1).sin()), random(3, 2, 4, 5))
    check_input(Applied(lambda x: F.conv_transpose2d(x, weight, stride=2, padding=1).sin()), random(3, 2, 2, 3))


def test_prelu_wrong_under_vmap_where_batch_and_channels_agree() -> None:
    slopes = random(3, seed=4)
    check_input(Applied(lambda x: F.prelu(x, slopes) * x), random(3, 3))


def test_fused_attention_without_forward_mode_nor_second_derivative() -> None:
    J = check_input(Applied(lambda x: F.scaled_dot_product_attention(x, x.sin(), x.cos())), random(3, 2, 3, 5))
    assert torch.isfinite(J.push(J.signature.in_basis())).all()


def test_recurrent_layers_failing_under_vmap_over_samples() -> None:
    module, x = network("GRU decoder")
    J = linearize(module, x)[1]
    close(flat(J.push(J.signature.in_basis())).permute(1, 2, 0), oracles.dense_jacobian(module, x))


def test_hardsigmoid_without_second_derivative() -> None:
    x, T, w = random(3, 5), random(2, 3, 5, seed=1), random(3, 5, seed=2)
    J = linearize(Applied(lambda x: F.hardsigmoid(x) * x), x)[1]
    inside = (x.abs() < 3).double()
    close(J.second(T, w), torch.einsum("bi,kbi,lbi->bkl", w * inside / 3, T, T))
