"""Mistakes that others made in code of this kind, one test each."""

import copy

import pytest
import torch
from torch import nn

from pullgeo import nnj
from pullgeo.testing import oracles
from tests.nnj.cases import module, oracle, points, random, twin


def test_diagonal_and_full_agree_for_a_jacobian_that_is_not_symmetric() -> None:
    net = nnj.Linear(3, 3).double()
    x, M = random(3, 3), random(3, 3, 3)
    J = net.weight.detach().expand(3, 3, 3)
    assert (J - J.mT).abs().max() > 0.1
    for product, expected in [(net.jTmjp, J.mT @ M @ J), (net.jmjTp, J @ M @ J.mT)]:
        torch.testing.assert_close(product(x, None, M), expected)
        torch.testing.assert_close(product(x, None, M, to_diag=True), expected.diagonal(dim1=1, dim2=2))
        w = M.diagonal(dim1=1, dim2=2).contiguous()
        from_diag = product(x, None, w, from_diag=True)
        torch.testing.assert_close(from_diag, product(x, None, w.diag_embed()))
        torch.testing.assert_close(
            product(x, None, w, from_diag=True, to_diag=True), from_diag.diagonal(dim1=1, dim2=2)
        )


def test_feature_maps_of_an_earlier_forward_are_not_reused() -> None:
    net, x, other = twin("decoder"), points("decoder", 3), points("decoder", 5)
    first = net.jTmjp(x)
    val = net(x)
    net(other)
    net.jTmjp(other, wrt="weight")
    assert torch.equal(net.jTmjp(x), first)
    torch.testing.assert_close(
        net.jTmjp(other, val[:3].new_zeros(5, 7)), oracles.jTmjp(oracle("decoder", 5, "input"), None)
    )


def test_nothing_is_left_on_the_module() -> None:
    net, x = nnj.convert_to_nnj(module("uses twice")), points("uses twice", 3)
    before = {name: {key: id(value) for key, value in vars(m).items()} for name, m in net.named_modules()}
    parameters = [id(p) for p in net.parameters()]
    for wrt in ("input", "weight"):
        net.jTmjp(x, wrt=wrt)
        net.jmjTp(x, wrt=wrt, to_diag=True)
        net(x, jacobian=True)
    assert {name: {key: id(value) for key, value in vars(m).items()} for name, m in net.named_modules()} == before
    assert [id(p) for p in net.parameters()] == parameters
    assert all(p.grad is None for p in net.parameters())


def test_a_module_used_twice() -> None:
    net, x = twin("layer twice"), points("layer twice", 3)
    full = oracles.jTmjp(oracle("layer twice", 3, "weight"), None)
    assert net._n_params == 12 + 8
    torch.testing.assert_close(net.jTmjp(x, wrt="weight", full=True), full)
    first, last = net.jTmjp(x, wrt="weight")
    torch.testing.assert_close(first, full[:, :12, :12])
    torch.testing.assert_close(last, full[:, 12:, 12:])


def test_a_module_registered_under_two_names_keeps_its_parameters() -> None:
    class TwoNames(nnj.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nnj.Linear(3, 3)
            self.all = nnj.ModuleList([self.one])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.one(self.all[0](x).tanh())

    net, x = TwoNames().double(), random(3, 3)
    expected = oracles.dense_jacobian(net, x, "weight")
    parameters = list(net.parameters())
    for _ in range(2):
        torch.testing.assert_close(net.jacobian(x, wrt="weight"), expected)
    assert all(p is q for p, q in zip(net.parameters(), parameters, strict=True))


def test_max_pool_backward_adds_where_windows_overlap() -> None:
    net, x = nnj.MaxPool1d(3, stride=1), torch.tensor([[[0.0, 1.0, 5.0, 2.0, 0.5, -1.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        net.vjp(x, None, torch.ones(1, 4, dtype=torch.float64))[0, 2], torch.tensor(3.0).double()
    )
    torch.testing.assert_close(net.jTmjp(x), oracles.jTmjp(oracles.dense_jacobian(nn.MaxPool1d(3, stride=1), x), None))


def test_bilinear_upsampling_is_not_treated_as_nearest() -> None:
    x = random(3, 1, 2, 3)
    for options in ({"mode": "bilinear", "align_corners": True}, {"mode": "bilinear"}, {"mode": "nearest"}):
        expected = oracles.dense_jacobian(nn.Upsample(scale_factor=2, **options), x)
        torch.testing.assert_close(nnj.Upsample(scale_factor=2, **options).jacobian(x), expected)


def test_circular_padding_counts_backward() -> None:
    net, x = nnj.Conv1d(1, 2, 3, padding=1, padding_mode="circular").double(), random(3, 1, 5)
    J = net.jacobian(x).unflatten(1, (2, 5))
    torch.testing.assert_close(J[:, :, 0, 4], net.weight[:, 0, 0].expand(3, 2))
    torch.testing.assert_close(J.flatten(1, 2), oracles.dense_jacobian(net, x))


def test_conversion_keeps_stride_padding_dilation_and_groups() -> None:
    original = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, bias=False),
        nn.MaxPool2d(2, stride=1, padding=1, dilation=2, ceil_mode=True),
        nn.Softplus(beta=3.0, threshold=0.5),
        nn.Flatten(2),
        nn.Softmax(dim=-1),
    ).double()
    converted, x = nnj.convert_to_nnj(original), random(3, 2, 7, 5)
    assert repr(converted) == repr(original)
    torch.testing.assert_close(converted(x), original(x))
    torch.testing.assert_close(converted.jacobian(x), oracles.dense_jacobian(original, x))


def test_nested_containers_are_converted_to_something() -> None:
    net = nnj.convert_to_nnj(nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(3, 2)))))
    assert type(net[0][0][0]) is nnj.Linear
    assert net[0][0].jTmjp(random(3, 3).float()).shape == (3, 3, 3)
    assert net.jTmjp(random(3, 3).float(), wrt="weight")[0][0][0].shape == (3, 8, 8)


def test_blocks_between_layers_are_not_dropped() -> None:
    net, x, J = twin("decoder"), points("decoder", 3), oracle("decoder", 3, "weight")
    full = net.jTmjp(x, wrt="weight", full=True)
    torch.testing.assert_close(full, oracles.jTmjp(J, None))
    assert full[:, :15, 15:].abs().max() > 1e-2


def test_softplus_threshold_and_hardtanh_limits_count() -> None:
    x = torch.tensor([[-2.0, -0.3, 0.2, 0.6, 3.0]], dtype=torch.float64)
    for cls, options in [
        (nnj.Softplus, {"beta": 2.0, "threshold": 1.0}),
        (nnj.Hardtanh, {"min_val": -0.5, "max_val": 0.4}),
    ]:
        expected = oracles.dense_jacobian(cls(**options), x)
        torch.testing.assert_close(cls(**options).jacobian(x), expected)
        assert (expected - oracles.dense_jacobian(cls(), x)).abs().max() > 0.1


@pytest.mark.parametrize("case", ["decoder", "convolutional", "two branches"])
def test_float64_in_is_float64_out_and_float32_stays_float32(case: str) -> None:
    for dtype in (torch.float64, torch.float32):
        net, x = twin(case, dtype), points(case, 3, dtype)
        w = torch.ones_like(net(x))
        answers = [net.jacobian(x), net.vjp(x, None, w), net.jTmjp(x), net.jmjTp(x, wrt="weight")]
        answers += [net.jTmjp(x, wrt="weight", to_diag=True), net(x, jacobian=True)[1]]
        assert {answer.dtype for answer in answers} == {dtype}


@pytest.mark.parametrize("case", ["decoder", "convolutional", "two branches", "norms", "layer twice"])
def test_samples_of_a_batch_are_not_summed(case: str) -> None:
    net, x = twin(case), points(case, 3)
    for wrt in ("input", "weight"):
        together = net.jTmjp(x, wrt=wrt, to_diag=True)
        apart = torch.cat([net.jTmjp(x[i : i + 1], wrt=wrt, to_diag=True) for i in range(3)])
        torch.testing.assert_close(together, apart)
        assert (together[0] - together[1]).abs().max() > 1e-6


def test_a_residual_block_has_its_cross_terms() -> None:
    F = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
    net, x, M = nnj.ResidualBlock(*F).double(), random(3, 3), random(3, 3, 3)
    A = oracles.dense_jacobian(F, x)
    I_plus_A = A + torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(net.jTmjp(x, None, M), I_plus_A.mT @ M @ I_plus_A)
    assert (I_plus_A.mT @ M @ I_plus_A - A.mT @ M @ A - M).abs().max() > 0.1


def test_a_skip_connection_has_its_cross_terms() -> None:
    F = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    net, x, M = nnj.SkipConnection(*copy.deepcopy(F)).double(), random(3, 3), random(3, 5, 5)
    A = torch.cat([torch.eye(3, dtype=torch.float64).expand(3, 3, 3), oracles.dense_jacobian(F, x)], 1)
    torch.testing.assert_close(net.jTmjp(x, None, M), A.mT @ M @ A)


def test_attention_by_fused_kernels_is_differentiated() -> None:
    net, x = twin("attention"), points("attention", 3)
    torch.testing.assert_close(net.jacobian(x), oracle("attention", 3, "input"))
    torch.testing.assert_close(net.jmp(x, None, random(3, 6, 2)), oracle("attention", 3, "input") @ random(3, 6, 2))


def test_prelu_where_the_batch_is_as_large_as_the_channels() -> None:
    net, x = twin("prelu per channel"), random(3, 3, 2)
    for wrt in ("input", "weight"):
        expected = oracles.dense_jacobian(module("prelu per channel"), x, wrt)
        torch.testing.assert_close(net.jacobian(x, wrt=wrt), expected)


def test_recurrent_layers_are_differentiated_in_batches() -> None:
    class LastState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(2, 3, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gru(x)[0][:, -1]

    original, x = LastState().double(), random(3, 5, 2)
    net = nnj.convert_to_nnj(original)
    for wrt in ("input", "weight"):
        torch.testing.assert_close(net.jacobian(x, wrt=wrt), oracles.dense_jacobian(original, x, wrt))
    torch.testing.assert_close(net.jTmjp(x), oracles.jTmjp(oracles.dense_jacobian(original, x), None))


def test_hardsigmoid_is_exact_in_float64() -> None:
    x = torch.tensor([[-4.0, -1.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(
        nnj.Hardsigmoid().jacobian(x),
        torch.tensor([0.0, 1 / 6, 1 / 6], dtype=torch.float64).diag()[None],
        rtol=1e-15,
        atol=0.0,
    )
