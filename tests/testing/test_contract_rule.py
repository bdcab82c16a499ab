"""check_rule passes right rules and fails every broken one: state, copies, layouts, gradients."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from pullgeo.errors import ShapeError
from pullgeo.jacobian import Elementwise
from pullgeo.testing.contracts import check_rule
from tests.testing.fakes import Layer, Matrices, linearize

X = torch.tensor([[0.3, -0.2, 0.9], [0.7, 0.1, -0.4], [-0.5, 0.8, 0.2]], dtype=torch.float64)


@pytest.mark.parametrize("wrt", ["input", "weight"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_right_rule_passes_and_leaves_the_global_randomness_alone(dtype, wrt):
    before = torch.get_rng_state()
    check_rule(Layer(dtype), X.to(dtype), wrt=wrt, linearize=linearize)
    assert torch.equal(torch.get_rng_state(), before)


def remembers_in_a_table(table, module, x, wrt="input"):
    if module not in table:
        table[module] = linearize(module, x, wrt)
    return table[module]


def shares_its_state(shared, module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    shared.setdefault("J", J)
    shared["J"].J, shared["J"].form = J.J, J.form
    return y, shared["J"]


def knows_only_the_original(original, module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    if original.setdefault("module", module) is not module and module.weight.dtype == original["module"].weight.dtype:
        J.J = 0 * J.J
    return y, J


def caches_on_the_module(module, x, wrt="input"):
    module.last_input = x
    return linearize(module, x, wrt)


def leaves_a_hook(module, x, wrt="input"):
    module.register_forward_hook(lambda *_: None)
    return linearize(module, x, wrt)


def freezes_the_weights(module, x, wrt="input"):
    module.requires_grad_(False)
    return linearize(module, x, wrt)


def changes_mode(module, x, wrt="input"):
    module.eval()
    return linearize(module, x, wrt)


def changes_the_weights(module, x, wrt="input"):
    with torch.no_grad():
        module.weight *= 1
    return linearize(module, x, wrt)


def changes_the_input(module, x, wrt="input"):
    with torch.no_grad():
        x += 0
    return linearize(module, x, wrt)


def normalises_over_the_batch(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    J.J = J.J * (len(x) / 3) if len(x) else J.J
    return y, J


def is_double_only(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    J.J = J.J.double()
    J.push = lambda T: Matrices.push(J, T.double())
    J.pull = lambda W: Matrices.pull(J, W.double())
    return y, J


def needs_a_sample(module, x, wrt="input"):
    x.max()
    return linearize(module, x, wrt)


def loses_the_empty_batch(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    if len(x) == 0:
        J.push_squared = lambda v: v.new_zeros(0)
    return y, J


def reads_raw_memory(module, x, wrt="input"):
    packed = x if x.is_contiguous() else torch.as_strided(x, x.shape, x.contiguous().stride())
    return linearize(module, packed, wrt)


def views_its_input(module, x, wrt="input"):
    return linearize(module, x.view(-1).view(x.shape), wrt)


def insists_on_a_graph(module, x, wrt="input"):
    with torch.enable_grad():
        return linearize(module, x, wrt)


def detaches(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    J.J = J.J.detach()
    return y, J


def detaches_the_weights(module, x, wrt="input"):
    frozen = copy.copy(module)
    frozen._parameters = {}
    frozen.weight = module.weight.detach()
    y, J = linearize(frozen, x, wrt)
    return y, J


def detaches_the_value(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    return y.detach(), J


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g


def differentiates_once(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    J.push = lambda T: Matrices.push(J, Once.apply(T))
    return y, J


def gives_another_value(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    return y + 1e-3, J


def gives_a_flat_value(module, x, wrt="input"):
    y, J = linearize(module, x, wrt)
    return y.flatten(1), J


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (functools.partial(remembers_in_a_table, {}), "another batch: value"),
        (functools.partial(shares_its_state, {}), "first Jacobian after linearising at other points: push"),
        (functools.partial(knows_only_the_original, {}), "deepcopy: push"),
        (caches_on_the_module, "linearize left its traces on the module: Layer"),
        (leaves_a_hook, "linearize left its traces on the module: Layer"),
        (freezes_the_weights, "linearize left its traces on the module: parameter weight"),
        (changes_mode, "linearize left its traces on the module: Layer"),
        (changes_the_weights, "linearize: argument 1 was changed in place"),
        (changes_the_input, "linearize: argument 0 was changed in place"),
        (normalises_over_the_batch, "batch of one: push"),
        (is_double_only, "float32: push: expected dtype torch.float32, got torch.float64"),
        (needs_a_sample, "empty batch: raised IndexError|empty batch: raised RuntimeError"),
        (loses_the_empty_batch, "empty batch: push_squared: expected shape"),
        (reads_raw_memory, "non-contiguous input: value"),
        (views_its_input, "non-contiguous input: raised RuntimeError"),
        (insists_on_a_graph, "under no_grad: the result requires grad"),
        (detaches, "gradcheck of push: the derivative is not that of the product"),
        (detaches_the_weights, "gradcheck of push: the derivative is not that of the product"),
        (detaches_the_value, "gradcheck of the value"),
        (differentiates_once, "gradgradcheck of push"),
        (gives_another_value, "value: max error"),
        (gives_a_flat_value, "value: expected shape"),
    ],
    ids=lambda case: getattr(getattr(case, "func", case), "__name__", ""),
)
def test_a_broken_rule_fails(broken, message):
    with pytest.raises(AssertionError, match=rf"check_rule\(Layer, wrt='input'\).*({message})"):
        check_rule(Layer(), X, linearize=broken)


def test_checks_can_be_left_out():
    check_rule(Layer(), X, linearize=differentiates_once, second_gradients=False)
    check_rule(Layer(), X, linearize=detaches, gradients=False)


def test_broken_with_respect_to_weights():
    def ignores_a_layer_occurrence(module, x, wrt="input"):
        y, J = linearize(module, x, wrt)
        J.J = torch.cat([J.J[..., :6], 0 * J.J[..., 6:]], dim=-1)
        return y, J

    with pytest.raises(AssertionError, match=r"wrt='weight'\).*push: max error"):
        check_rule(Layer(), X, wrt="weight", linearize=ignores_a_layer_occurrence)


def test_modules_that_cannot_be_pickled():
    module = Layer()
    module.function = lambda x: x
    with pytest.raises(AssertionError, match="pickled=False"):
        check_rule(module, X, linearize=linearize)
    check_rule(module, X, linearize=linearize, pickled=False)


class Cube(nn.Module):
    def forward(self, x):
        return x**3


def cube(kind):
    return lambda module, x, wrt="input": (x**3, kind(3 * x**2, lambda: 6 * x))


class WrongDiagonal(Elementwise):
    def pull_diag(self, W, V):
        return (self.pull(W) * V).sum(0)


class WrongGram(Elementwise):
    def push_gram(self, T, S):
        return super().push_gram(T, T)


class SwappedOuter(Elementwise):
    def push_outer(self, T, S):
        return super().push_outer(S, T)


class WrongSecondPush(Elementwise):
    def second_push(self, T, S):
        return super().second_push(T, T)


class StalePushWithSecond(Elementwise):
    def push_with_second(self, T, w):
        return self.push(T), 0 * self.second(T, w)


class FlatJet(Elementwise):
    def push_jet(self, X, u, w):
        return self.push(X)


class LopsidedJet(Elementwise):
    def push_jet(self, X, u, w):
        return super().push_jet(X, u, u)


class WrongLayerwise(Elementwise):
    def push_squared_layerwise(self, v):
        return self.push(v)


class WrongColumns(Elementwise):
    def columns(self):
        return super().columns().transpose(1, 2)


class WrongTranspose(Elementwise):
    @property
    def T(self):
        return Elementwise(2 * self.derivative).T


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WrongDiagonal, r"pull_diag\(W, V\): max error"),
        (WrongGram, r"push_gram\(T, S\): (max error|expected shape)"),
        (SwappedOuter, r"push_outer\(T, S\): max error"),
        (WrongSecondPush, r"second_push\(T, S\): max error"),
        (StalePushWithSecond, r"push_with_second: second\(T, w\)"),
        (FlatJet, r"push_jet\(T, u, w\): second derivatives: max error"),
        (LopsidedJet, r"push_jet\(T, u, w\): second derivatives: max error"),
        (WrongLayerwise, "push_squared_layerwise: max error"),
        (WrongColumns, "columns: expected shape|columns: max error"),
        (WrongTranspose, "transpose.push: max error"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_a_broken_kind_fails(kind, message):
    check_rule(Cube(), X[:, :2], linearize=cube(Elementwise))
    with pytest.raises(AssertionError, match=message):
        check_rule(Cube(), X[:, :2], linearize=cube(kind))


def test_finite_differences_serve_where_torch_has_no_double_backward():
    # Hardsigmoid's double backward does not exist; away from its corners its second derivative is zero.
    x = torch.tensor([[0.3], [-4.5], [0.7]], dtype=torch.float64)
    check_rule(nn.Hardsigmoid(), x, first="finite_difference", second="finite_difference", second_gradients=False)


PLAIN = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Sequential(nn.Linear(3, 5, bias=False), nn.Softplus()))
SHAPED = nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (2, 3)), nn.Sigmoid(), nn.Flatten())


@pytest.mark.parametrize(
    ("module", "wrt"),
    [(nn.Linear(2, 5), "input"), (nn.Linear(2, 5), "weight"), (PLAIN, "input"), (PLAIN, "weight"), (SHAPED, "input")],
    ids=["linear", "linear, weight", "nested", "nested, weight", "reshaped"],
)
def test_the_package_s_own_linearize(module, wrt):
    check_rule(module, torch.randn(3, 2), wrt=wrt)


def test_one_sample_is_not_enough():
    with pytest.raises(ShapeError, match="two samples"):
        check_rule(nn.Tanh(), X[:1])
