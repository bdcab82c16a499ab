"""Every class of torch.nn: a case whose every product is proven, or a reason why there is none."""

import inspect
import itertools
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from pullgeo.errors import ModuleError
from pullgeo.jacobian import Jacobian, linearize, rule_for
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import TorchLayer, oracles, torch_layers, why_no_layer
from pullgeo.testing.contracts.gradients import check_gradients
from pullgeo.testing.contracts.judge import Judge
from tests.jacobian.architectures import random

# Families of layers have tests of their own, in which annotations are checked; here that would take most of the time.
pytestmark = pytest.mark.usefixtures("without_type_checks")

LAYERS = torch_layers()
EXPORTED = {name for name, cls in vars(nn).items() if inspect.isclass(cls) and issubclass(cls, nn.Module)}
CASES = [
    (name, wrt)
    for name, layer in LAYERS.items()
    for wrt in ("input", "weight")
    if (any(True for _ in layer.module().parameters()) if wrt == "weight" else not layer.rows)
]
ALL = pytest.mark.parametrize(("name", "wrt"), CASES)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


def test_every_class_has_a_case_or_a_reason() -> None:
    without = EXPORTED - set(LAYERS)
    assert set(LAYERS) <= EXPORTED
    assert all(why_no_layer(name) for name in without)  # raises where nothing is known of a class
    assert all(isinstance(layer.build(), getattr(nn, name)) for name, layer in LAYERS.items())
    assert len(LAYERS) >= 117
    assert {"Sequential", "Conv3d", "Transformer", "LSTM", "EmbeddingBag"} <= set(LAYERS)


@cache
def truth(name: str, wrt: str) -> Tensor:
    """The dense Jacobian at three samples."""
    layer = LAYERS[name]
    # torch's first derivative of bags is right, its second is not there
    by_autograd = layer.exact or layer.rows > 0
    return (oracles.dense_jacobian if by_autograd else oracles.dense_jacobian_fd)(layer.module(), layer.points(3), wrt)


@ALL
def test_products(name: str, wrt: str) -> None:
    layer = LAYERS[name]
    ruled = rule_for(layer.module()) is not None
    for dtype, batch in itertools.product((torch.float64, torch.float32), (3, 1)):
        module, x, J_true = layer.module(dtype), layer.points(3, dtype)[:batch], truth(name, wrt)[:batch]
        y, J = linearize(module, x, wrt)
        with torch.no_grad():
            close(y, module(x), dtype, "value")
        check_maps(J, J_true, dtype)
        # networks of many operations are slow, and have nothing of their own that depends on precision or batch
        if ruled or (dtype, batch) == (torch.float64, 3):
            check_squares(J, J_true, dtype)
            check_contractions(J, J_true, dtype)


def check_maps(J: Jacobian, truth: Tensor, dtype: torch.dtype) -> None:
    """The map, its transpose, and the matrix."""
    s = J.signature
    T, W = (random(2, s.batch, *shape).to(dtype) for shape in (s.in_shape, s.out_shape))
    close(J.dense(), truth, dtype, "dense")
    close(flat(J.push(T)), torch.einsum("boi,kbi->kbo", truth, flat(T).double()), dtype, "push")
    close(flat(J.pull(W)), torch.einsum("boi,kbo->kbi", truth, flat(W).double()), dtype, "pull")


def check_squares(J: Jacobian, truth: Tensor, dtype: torch.dtype) -> None:
    """From diagonals to diagonals, both ways."""
    s, squares = J.signature, truth.square()
    T, W = (random(2, s.batch, *shape).to(dtype) for shape in (s.in_shape, s.out_shape))
    close(flat(J.push_squared(T)), torch.einsum("boi,kbi->kbo", squares, flat(T).double()), dtype, "push_squared")
    close(flat(J.pull_squared(W)), torch.einsum("boi,kbo->kbi", squares, flat(W).double()), dtype, "pull_squared")


def check_contractions(J: Jacobian, truth: Tensor, dtype: torch.dtype) -> None:
    """``J M Jᵀ`` and ``Jᵀ M J`` of M = Σ_k T_k S_kᵀ, which is not symmetric, whole and on the diagonal, and Grams."""
    s = J.signature
    T, S = (random(2, s.batch, *s.in_shape, seed=i).to(dtype) for i in (1, 2))
    W, V = (random(2, s.batch, *s.out_shape, seed=i).to(dtype) for i in (3, 4))
    JT, JS = (torch.einsum("boi,kbi->kbo", truth, flat(t).double()) for t in (T, S))
    JW, JV = (torch.einsum("boi,kbo->kbi", truth, flat(w).double()) for w in (W, V))
    close(J.push_outer(T, S), torch.einsum("kbo,kbp->bop", JT, JS), dtype, "push_outer")
    close(J.pull_outer(W, V), torch.einsum("kbi,kbj->bij", JW, JV), dtype, "pull_outer")
    close(J.push_diag(T, S), (JT * JS).sum(0).reshape(s.batch, *s.out_shape), dtype, "push_diag")
    close(J.pull_diag(W, V), (JW * JV).sum(0).reshape(s.batch, *s.in_shape), dtype, "pull_diag")
    close(J.push_gram(T, S), torch.einsum("kbo,lbo->bkl", JT, JS), dtype, "push_gram")
    close(J.pull_gram(W, V), torch.einsum("kbi,lbi->bkl", JW, JV), dtype, "pull_gram")


def close(got: Tensor, expected: Tensor, dtype: torch.dtype, what: str, tolerance: float = 0.0) -> None:
    got = got.detach()
    assert got.dtype == dtype, what
    assert got.shape == expected.shape, what
    error, scale = float((got.double() - expected).abs().max()), max(1.0, float(expected.abs().max()))
    assert error <= max(tolerance, TOLERANCE[dtype]) * scale, f"{what}: {error}"


@ALL
def test_second_derivatives(name: str, wrt: str) -> None:
    layer = LAYERS[name]
    # samples run one by one here: one of them is as good as three
    module, x = layer.module(), layer.points(3)[: 3 if wrt == "input" else 1]
    J = linearize(module, x, wrt)[1]
    s = J.signature
    T, w = random(2, s.batch, *s.in_shape, seed=3), random(s.batch, *s.out_shape, seed=4)
    if layer.exact:
        form, tolerance = oracles.second_form(module, x, w, T, wrt), 1e-9
    else:
        form, tolerance = oracles.second_form_fd(module, x, w, T, wrt), 1e-6
    close(J.second(T, w), form, torch.float64, "second", tolerance)
    bent = (flat(J.second_push(T[:1], T[1:])) * flat(w.unsqueeze(0))).sum(-1)[0]
    close(bent, form[:, 0, 1], torch.float64, "second_push", tolerance)


# for networks of many operations the numerical truth is slow, and theirs are those of the operations
@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "wrt"),
    [
        (name, wrt)
        for name, wrt in CASES
        if not name.startswith("Transformer") and (wrt == "input" or not name.startswith(("RNN", "GRU", "LSTM")))
    ],
)
def test_gradients_flow_through_products(name: str, wrt: str) -> None:
    module, x = LAYERS[name].module(), LAYERS[name].points(2)
    s = linearize(module, x, wrt)[1].signature
    T, W = random(1, 2, *s.in_shape, seed=5), random(1, 2, *s.out_shape, seed=6)
    check_gradients(Judge(name), linearize, module, x, T, W, wrt, False)


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize("name", [name for name in sorted(EXPORTED) if name.startswith("Lazy")])
def test_lazy_layers_are_refused_and_become_a_layer_that_has_a_case(name: str) -> None:
    layer: TorchLayer = LAYERS[name.removeprefix("Lazy")]
    x = layer.points(3, torch.float32)
    lazy = getattr(nn, name)(*{"Conv": (3, 2), "Line": (3,)}.get(name[4:8], ()))
    with pytest.raises(ModuleError, match="Call the module once"):
        linearize(lazy, x)
    lazy(x)
    assert type(lazy) is getattr(nn, layer.name)
    torch.testing.assert_close(linearize(lazy.eval(), x)[0], lazy(x))
