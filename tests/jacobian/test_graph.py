"""Networks that branch and merge: every product against the truth, cross terms of branches included."""

import copy
import pickle
import threading

import pytest
import torch
from torch import Tensor, nn

from pullgeo import nnj
from pullgeo.jacobian import AutodiffWeight, Chain, Graph, explain, linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import check_rule, oracles
from tests.jacobian.architectures import (
    NETWORKS,
    Gates,
    SharedWeights,
    check_input,
    check_weight,
    close,
    network,
    random,
)

BY_AUTODIFF = ["LSTM from its state"]
"""With respect to weights."""


@pytest.mark.parametrize("name", NETWORKS)
def test_products_with_respect_to_the_input_equal_the_oracle(name: str) -> None:
    module, x = network(name)
    check_input(module, x)
    assert {note.path for note in explain(module, x)} <= {"graph", "rule", "not called"}


@pytest.mark.parametrize("name", NETWORKS)
def test_products_with_respect_to_the_weights_equal_the_oracle(name: str) -> None:
    module, x = network(name)
    check_weight(module, x)
    assert (explain(module, x, "weight")[""].path == "autodiff") == (name in BY_AUTODIFF)


@pytest.mark.filterwarnings("ignore")  # whatever diffusers warns of
def test_a_decoder_of_images_from_a_library_of_models() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(3)
    decoder = diffusers.AutoencoderTiny(
        in_channels=1,
        out_channels=1,
        encoder_block_out_channels=(2, 2),
        decoder_block_out_channels=(2, 2),
        latent_channels=2,
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).decoder
    decoder, z = decoder.double().eval(), random(3, 2, 2, 1)
    check_input(decoder, z)
    check_weight(decoder, z)
    table = explain(decoder, z)
    assert {row.path for row in table} == {"graph", "rule"}


class Gate(nn.Module):
    """``A x ∘ σ(x) + s``, with the scale of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(2, 2, bias=False), nn.Parameter(torch.tensor([0.5, 1.5]))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * torch.sigmoid(self.scale * x)


@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_a_graph_keeps_every_promise_of_a_rule(wrt: str) -> None:
    check_rule(Gate().double(), random(3, 2), wrt=wrt)


def test_shared_weights_keep_every_promise_but_for_gradients() -> None:
    check_rule(SharedWeights().double(), random(3, 3), gradients=False)


class Residual(nn.Module):
    """``x + F(x)``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


@pytest.mark.parametrize("build", [Residual, nnj.ResidualBlock])
def test_a_residual_block_has_its_cross_terms(build: type[nn.Module]) -> None:
    module, x, M = build(nn.Linear(3, 3)).double(), random(3, 3), random(3, 3, 3, seed=1)
    A = next(module.parameters()).detach() + torch.eye(3)
    J = linearize(module, x)[1]
    pulled = J.pull_outer(J.signature.out_basis(), M.transpose(0, 1))
    torch.testing.assert_close(pulled, A.T @ M @ A)
    without_cross_terms = (A - torch.eye(3)).T @ M @ (A - torch.eye(3)) + M
    assert not torch.allclose(pulled, without_cross_terms)


def test_second_derivatives_of_a_product_have_mixed_terms() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :1] * x[:, 1:]

    T = torch.eye(2, dtype=torch.float64).unsqueeze(1)
    J = linearize(Product(), random(1, 2))[1]
    H = J.second(T, torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(H, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64))
    torch.testing.assert_close(J.second_push(T[:1], T[1:]), torch.ones(1, 1, 1, dtype=torch.float64))


def test_layerwise_diagonals_add_up_where_branches_merge() -> None:
    module, x = Residual(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))).double(), random(3, 3)
    v, w = random(2, 3, 3, seed=1), random(2, 3, 3, seed=2)
    J = linearize(module, x)[1]
    inner = [oracles.diag_backprop_pull(module.inner, x, weights) for weights in w]
    close(J.pull_squared_layerwise(w), w + torch.stack(inner))
    inner = [oracles.diag_backprop_push(module.inner, x, diagonal) for diagonal in v]
    close(J.push_squared_layerwise(v), v + torch.stack(inner))


def test_layerwise_diagonals_of_weights_go_through_branches() -> None:
    module, x = Residual(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3))).double(), random(3, 3)
    w = random(1, 3, 3, seed=1)
    J = linearize(module, x, "weight")[1]
    # the identity beside the layers carries nothing to weights
    close(J.pull_squared_layerwise(w)[0], oracles.diag_backprop_pull(module.inner, x, w[0], "weight"))
    v = random(1, 3, J.signature.n_in, seed=2)
    close(J.push_squared_layerwise(v)[0], oracles.diag_backprop_push(module.inner, x, v[0], "weight"))


def test_blocks_of_layers_in_a_graph() -> None:
    for module, x in (network("DenseNet"), network("shared weights")):
        J = linearize(module, x, "weight")[1]
        W, V = (random(2, *x.shape[:1], *J.signature.out_shape, seed=i) for i in (1, 2))
        truth = oracles.dense_jacobian(module, x, "weight")
        pulled = [torch.einsum("boi,kbo->kbi", truth, flat(stack)) for stack in (W, V)]
        layout = J.layout
        found = 0
        for stage, block in zip(J.stages, J.pull_blocks(W, V), strict=True):
            assert (block is None) == (stage.own is None)
            if stage.own is not None:
                left, right = (layout.gather(stack, stage.own.parameters) for stack in pulled)
                close(block, torch.einsum("kbi,kbj->bij", left, right))
                found += 1
        assert found >= 4


def test_without_branches_a_graph_is_a_chain() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.first(x)))

    assert isinstance(linearize(Plain().double(), random(3, 3))[1], Chain)
    assert isinstance(linearize(Gates().double(), random(3, 3))[1], Graph)


def test_a_module_without_rule_does_not_take_the_structure_of_the_others() -> None:
    module, x = network("GRU decoder")
    J = linearize(module, x, "weight")[1]
    kinds = [type(stage.own.J) for stage in J.stages if stage.own is not None]
    assert kinds.count(AutodiffWeight) == 1
    assert len(kinds) == 3


def test_graphs_work_inside_transforms_and_under_any_grad_mode() -> None:
    module, x = network("gates")
    truth = oracles.dense_jacobian(module, x)

    def dense(z: Tensor) -> Tensor:
        return linearize(module, z.unsqueeze(0))[1].dense()[0]

    close(torch.vmap(dense)(x), truth)
    expected = torch.func.jacfwd(torch.func.jacrev(lambda z: module(z.unsqueeze(0))[0]))(x[0])
    close(torch.func.jacfwd(dense)(x[0]), expected)
    close(torch.func.jacrev(dense)(x[0]), expected)
    with torch.no_grad():
        y, J = linearize(module, x)
        assert not y.requires_grad
        assert not J.dense().requires_grad
    with torch.inference_mode():
        close(linearize(module, x)[1].dense(), truth)


def test_a_module_used_twice_is_linearised_where_it_stands() -> None:
    module = SharedWeights().double()
    x, other = random(3, 3), random(3, 3, seed=5)
    first = linearize(module, x)[1]
    linearize(module, other)  # a later call elsewhere must not disturb the first
    close(first.dense(), oracles.dense_jacobian(module, x))


def test_nothing_is_stored_on_modules() -> None:
    class Writer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls, self.last = nn.Linear(3, 3), 0, None

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = self.inner(x)
            return x * self.last

    module, x = Writer().double(), random(3, 3)
    before = pickle.dumps(module.state_dict())
    close(linearize(module, x)[1].dense(), oracles.dense_jacobian(module, x))
    linearize(module, x, "weight")
    assert module.calls == 0
    assert module.last is None
    assert pickle.dumps(module.state_dict()) == before
    assert "forward" not in vars(module)
    assert "forward" not in vars(module.inner)
    twin = copy.deepcopy(module)
    close(linearize(twin, x)[1].dense(), linearize(module, x)[1].dense())


def test_other_threads_may_call_modules_meanwhile() -> None:
    module, x = network("gates")
    expected = module(x).detach()
    wrong: list[object] = []

    def call() -> None:
        for _ in range(50):
            y = module(x)
            if type(y) is not Tensor or not torch.equal(y.detach(), expected):
                wrong.append(y)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        close(linearize(module, x)[0].detach(), expected)
    for thread in threads:
        thread.join()
    assert not wrong
