"""What a user can get wrong, and what the message then says."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import nnj
from pullgeo.errors import CoupledSamplesError, DeviceError, DtypeError, ModuleError, OptionError, ShapeError

X = torch.zeros(3, 2)
pytestmark = pytest.mark.usefixtures("without_type_checks")


@pytest.fixture
def net() -> nnj.Module:
    return nnj.Sequential(nnj.Linear(2, 5), nnj.Tanh(), nnj.Linear(5, 7))


@pytest.mark.parametrize("product", ["jacobian", "jvp", "vjp", "jmp", "mjp", "jmjTp", "jTmjp"])
def test_an_unknown_wrt_names_the_choices(net: nnj.Module, product: str) -> None:
    arguments = {"jvp": (None, X), "vjp": (None, X)}.get(product, ())
    with pytest.raises(ValueError, match=rf'{product}: wrt must be "input" or "weight" .* got \'latent\'') as raised:
        getattr(net, product)(X, *arguments, wrt="latent")
    assert isinstance(raised.value, OptionError)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda n: n.jvp(X, None, torch.zeros(3, 7)),
            r"jvp: vector must have shape \(3, 2\), got \(3, 7\).*input side",
        ),
        (lambda n: n.jvp(X, None, torch.zeros(2)), r"must have shape \(3, 2\), got \(2,\)"),
        (
            lambda n: n.vjp(X, None, torch.zeros(3, 2)),
            r"vjp: vector must have shape \(3, 7\), got \(3, 2\).*output side",
        ),
        (lambda n: n.jvp(X, None, torch.zeros(3, 2), wrt="weight"), r"must have shape \(3, 57\).*weight side"),
        (lambda n: n.jmp(X, None, torch.zeros(3, 5, 2)), r"jmp: matrix must have shape \(3, 2, k\), got \(3, 5, 2\)"),
        (lambda n: n.mjp(X, None, torch.zeros(3, 7, 2)), r"mjp: matrix must have shape \(3, k, 7\), got \(3, 7, 2\)"),
        (lambda n: n.jTmjp(X, None, torch.zeros(3, 2, 2)), r"jTmjp: matrix must have shape \(3, 7, 7\) or None, got"),
        (lambda n: n.jTmjp(X, None, torch.zeros(7, 7)), r"must have shape \(3, 7, 7\) or None, got \(7, 7\)"),
        (lambda n: n.jTmjp(X, None, torch.zeros(3, 7)), r"\(3, 7, 7\) or None, got \(3, 7\).*needs from_diag=True"),
        (
            lambda n: n.jTmjp(X, None, torch.zeros(3, 7, 7), from_diag=True),
            r"\(from_diag=True\) must have shape \(3, 7\)",
        ),
        (lambda n: n.jmjTp(X, None, torch.zeros(3, 3), diag_backprop=True), r"\(diag_backprop=True\) .* \(3, 2\)"),
        (lambda n: n.jmjTp(X, None, torch.zeros(3, 7, 7)), r"jmjTp: matrix must have shape \(3, 2, 2\) or None"),
        (
            lambda n: n.jTmjp(X, torch.zeros(3, 7, 7)),
            r"val must be the module's output at x, of shape \(3, 7\), or None",
        ),
        (lambda n: n.jmjTp(X, None, [X], wrt="weight"), r"matrix must be a list of 2 entries.*got 1 entries"),
        (
            lambda n: n.jmjTp(X, None, [torch.zeros(3, 15, 15), torch.zeros(3, 15, 15)], wrt="weight"),
            r"matrix\[1\] \(for Linear\) must have shape \(3, 42, 42\), got \(3, 15, 15\)",
        ),
    ],
)
def test_wrong_shapes_say_what_was_expected_and_where_it_lives(net: nnj.Module, call, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call(net)


def test_own_shapes_are_offered_where_they_differ_from_flat_ones() -> None:
    net = nnj.Flatten()
    with pytest.raises(ShapeError, match=r"\(3, 4\) or \(3, 2, 2\), got \(3, 2\)"):
        net.jvp(torch.zeros(3, 2, 2), None, X)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n: n.jvp(X, None, X.double()), r"vector must be torch\.float32 .* got torch\.float64\. Use vector\.to"),
        (lambda n: n.jTmjp(X, None, torch.eye(7, dtype=torch.int64).expand(3, 7, 7)), r"got torch\.int64"),
        (lambda n: n.jTmjp(X, None, "identity"), "matrix must be a torch.Tensor, got str"),
        (lambda n: n.vjp(X, None, None), "vector must be a torch.Tensor, got NoneType"),
        (lambda n: n.jTmjp(X, "val"), "val must be the module's output at x or None, got str"),
        (lambda n: n.jTmjp(X.double()), r"x is torch\.float64"),
        (lambda n: n.jmjTp(X, None, [X, None], wrt="weight"), r"must have shape|must be a torch\.float32 tensor, got"),
    ],
)
def test_wrong_kinds_of_numbers_are_named(net: nnj.Module, call, message: str) -> None:
    with pytest.raises((DtypeError, ShapeError), match=message):
        call(net)


def test_another_device_is_named(net: nnj.Module) -> None:
    with pytest.raises(DeviceError, match=r"matrix must be on cpu .* got meta\. Use matrix\.to\('cpu'\)"):
        net.jTmjp(X, None, torch.zeros(3, 7, 7, device="meta"))


def test_contradicting_options_are_refused(net: nnj.Module) -> None:
    for flag in ("to_diag", "diag_backprop"):
        with pytest.raises(OptionError, match="full=True asks for the whole matrix"):
            net.jTmjp(X, wrt="weight", full=True, **{flag: True})
    blocks = net.jTmjp(X, wrt="weight")
    with pytest.raises(OptionError, match="list of blocks"):
        net.jmjTp(X, None, blocks, wrt="weight", from_diag=True)
    with pytest.raises(OptionError, match="list of blocks"):
        net.jmjTp(X, None, blocks, wrt="input")
    with pytest.raises(OptionError, match="list of blocks"):
        net[0].jmjTp(X, None, blocks[:1], wrt="weight")


class Coupled(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_what_has_no_jacobian_per_sample_is_refused_with_advice() -> None:
    with pytest.raises(CoupledSamplesError, match=r"Call module\.eval\(\) first"):
        nnj.Sequential(nnj.Linear(2, 3), nnj.BatchNorm1d(3)).jTmjp(X)
    with pytest.raises(CoupledSamplesError, match=r"train mode"):
        nnj.Sequential(nnj.Linear(2, 3), nnj.Dropout(0.5)).jTmjp(X, wrt="weight")
    with pytest.raises(ModuleError, match="returned tuple"):
        nnj.convert_to_nnj(Coupled()).jTmjp(X)
    with pytest.raises(ModuleError, match="plain function has no parameters"):
        nnj.products.jTmjp(torch.tanh, X, wrt="weight")
