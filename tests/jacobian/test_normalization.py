"""Normalisation layers: all settings against the truth, with respect to input and affine parameters."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import CoupledSamplesError, ShapeError
from pullgeo.jacobian import Elementwise, RowNormalization, linearize
from pullgeo.testing import check_rule, oracles
from tests.jacobian.architectures import check_input, check_weight, close, random

TRACKED = {"affine": True, "track_running_stats": True}

CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "LayerNorm": (nn.LayerNorm(5), (5,)),
    "LayerNorm over two dimensions": (nn.LayerNorm((2, 3)), (2, 2, 3)),
    "LayerNorm without bias": (nn.LayerNorm(3, bias=False, eps=0.1), (2, 3)),
    "LayerNorm of long rows": (nn.LayerNorm(37), (37,)),
    "RMSNorm": (nn.RMSNorm(5), (2, 5)),
    "RMSNorm over two dimensions": (nn.RMSNorm((2, 3), eps=0.1), (2, 3)),
    "RMSNorm of long rows": (nn.RMSNorm(37), (37,)),
    "GroupNorm": (nn.GroupNorm(2, 6), (6, 2)),
    "GroupNorm of numbers": (nn.GroupNorm(1, 5), (5,)),
    "InstanceNorm1d": (nn.InstanceNorm1d(2, affine=True), (2, 5)),
    "InstanceNorm1d in train mode": (nn.InstanceNorm1d(2, **TRACKED).train(), (2, 5)),
    "InstanceNorm2d with running statistics": (nn.InstanceNorm2d(2, **TRACKED).eval(), (2, 2, 3)),
    "InstanceNorm3d": (nn.InstanceNorm3d(2, affine=True), (2, 1, 2, 3)),
    "BatchNorm1d of numbers": (nn.BatchNorm1d(5).eval(), (5,)),
    "BatchNorm1d": (nn.BatchNorm1d(2).eval(), (2, 3)),
    "BatchNorm2d": (nn.BatchNorm2d(2, eps=0.1).eval(), (2, 2, 3)),
    "BatchNorm3d": (nn.BatchNorm3d(2).eval(), (2, 1, 3, 2)),
    "SyncBatchNorm": (nn.SyncBatchNorm(2).eval(), (2, 3)),
}
WITHOUT_PARAMETERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "LayerNorm without affine map": (nn.LayerNorm(5, elementwise_affine=False), (3, 5)),
    "RMSNorm without affine map": (nn.RMSNorm(5, elementwise_affine=False), (5,)),
    "GroupNorm without affine map": (nn.GroupNorm(3, 6, affine=False), (6, 2)),
    "InstanceNorm2d without affine map": (nn.InstanceNorm2d(2), (2, 3, 2)),
    "BatchNorm1d without affine map": (nn.BatchNorm1d(5, affine=False).eval(), (5,)),
    "LocalResponseNorm": (nn.LocalResponseNorm(3, alpha=0.9, beta=0.6, k=1.3), (5, 2)),
    "LocalResponseNorm of even size": (nn.LocalResponseNorm(4, alpha=0.9), (5, 1, 2)),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    module, shape = (CASES | WITHOUT_PARAMETERS)[name]
    torch.manual_seed(0)
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    for key, buffer in module.named_buffers():
        if key in ("running_mean", "running_var"):
            buffer.copy_(0.5 + torch.rand_like(buffer))
    return module, random(3, *shape)


@pytest.mark.parametrize("name", [*CASES, *WITHOUT_PARAMETERS])
def test_input(name: str) -> None:
    module, x = case(name)
    check_input(module, x)


@pytest.mark.parametrize("name", CASES)
def test_weight(name: str) -> None:
    module, x = case(name)
    check_weight(module, x)


@pytest.mark.parametrize("name", ["LayerNorm without bias", "RMSNorm over two dimensions", "BatchNorm1d of numbers"])
def test_every_promise_of_a_rule(name: str) -> None:
    module, x = case(name)
    check_rule(module, x)
    check_rule(module, x, wrt="weight", gradients=False)


def test_every_promise_of_a_rule_without_parameters() -> None:
    module, x = case("LocalResponseNorm")
    check_rule(module, x[..., :1], gradients=False)


def test_linearising_leaves_running_statistics_alone() -> None:
    module, x = case("InstanceNorm1d in train mode")
    before = {key: value.clone() for key, value in module.state_dict().items()}
    linearize(module, x)[1].dense()
    linearize(module, x, "weight")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("size", [3, 4])
def test_cross_map_lrn_is_the_derivative_of_what_forward_computes(size: int) -> None:
    # torch's backward is that of another window than its forward has, so that the truth is by differences of values
    module, x = nn.CrossMapLRN2d(size, alpha=0.7, beta=0.6, k=1.2), random(3, 5, 2, 1)
    y, J = linearize(module, x)
    close(y, module(x))
    truth = oracles.dense_jacobian_fd(module, x)
    torch.testing.assert_close(J.dense(), truth, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(J.pull(J.signature.out_basis()).flatten(2).transpose(0, 1), truth, rtol=1e-8, atol=1e-9)
    T, w = random(2, 3, 5, 2, 1, seed=1), random(3, 5, 2, 1, seed=2)
    form = oracles.second_form_fd(module, x, w, T)
    torch.testing.assert_close(J.second(T, w), form, rtol=1e-6, atol=1e-7)


def test_structure_is_kept() -> None:
    assert isinstance(linearize(*case("BatchNorm2d"))[1], Elementwise)
    assert isinstance(linearize(*case("GroupNorm"))[1], RowNormalization)


def test_squares_of_short_and_long_rows_agree_with_the_matrix() -> None:
    for n in (31, 37):
        for module in (nn.LayerNorm(n).double(), nn.RMSNorm(n).double()):
            J = linearize(module, random(3, n))[1]
            v = random(2, 3, n, seed=1)
            close(J.push_squared(v), torch.einsum("bon,kbn->kbo", J.dense().square(), v))
            close(J.pull_squared(v), torch.einsum("bon,kbo->kbn", J.dense().square(), v))


def test_norms_that_couple_samples_are_refused() -> None:
    x = random(3, 5)
    for module in (nn.BatchNorm1d(5), nn.BatchNorm1d(5, track_running_stats=False).eval()):
        with pytest.raises(CoupledSamplesError, match=r"eval\(\)|running statistics"):
            linearize(module.double(), x)
    for module in (nn.LayerNorm((3, 5)), nn.RMSNorm((3, 5))):
        with pytest.raises(CoupledSamplesError, match="batch"):
            linearize(module.double(), x)
    with pytest.raises(ShapeError, match="batch first"):
        linearize(nn.InstanceNorm1d(3).double(), x)
