"""Modules that hold something for each sample of the batch, such as a mask or a condition: every product is right."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pullgeo import nnj
from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian import AutodiffWeight, linearize, sample_gradients, tangent_kernel
from pullgeo.jacobian.contractions import flat
from tests.jacobian.architectures import close, random


def unknown(x: Tensor) -> Tensor:
    """An operation that graphs do not know."""
    return torch.fft.fft(x, dim=-1).abs()


class Multiplied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 5)
        self.register_buffer("mask", torch.tensor([[0.3], [2.0], [0.7]]))

    def forward(self, x: Tensor) -> Tensor:
        return unknown(self.linear(x)) * self.mask


class TakenInOrder(Multiplied):
    """Takes as many rows of its condition as there are samples: a single sample runs, with another's condition."""

    def forward(self, x: Tensor) -> Tensor:
        return unknown(self.linear(x) + self.mask[: len(x)])


class OnlyInTheMiddle(Multiplied):
    """The condition of the first sample is that of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.condition = [torch.zeros(5).double(), torch.ones(5).double(), torch.zeros(5).double()]

    def forward(self, x: Tensor) -> Tensor:
        return unknown(self.linear(x) + torch.stack(self.condition[: len(x)]))


class Concatenated(Multiplied):
    def forward(self, x: Tensor) -> Tensor:
        return unknown(self.linear(torch.cat([x[:, 1:], self.mask], 1)))


class DividedByTheBatch(Multiplied):
    def forward(self, x: Tensor) -> Tensor:
        return unknown(self.linear(x)) / len(x)


class Padded(nn.Module):
    """An encoder that no recording sees through, with a padding mask for each sample."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(3, 1, 2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.encoder.register_forward_hook(lambda *_: None)
        self.register_buffer("padding", torch.tensor([[False, True], [False, False], [True, False]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x.unflatten(1, (2, -1)), src_key_padding_mask=self.padding)


class PaddedByDefault(Padded):
    """The encoder of torch's defaults, which takes another way without gradients, with other values."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 2, batch_first=True), 1)


class Within(nn.Module):
    """A part of a network that is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.part, self.last = nn.Linear(3, 3), Multiplied(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.part(torch.tanh(self.first(x))))


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "multiplied": (Multiplied, 3),
    "taken in order": (TakenInOrder, 3),
    "only in the middle": (OnlyInTheMiddle, 3),
    "concatenated": (Concatenated, 3),
    "divided by the batch": (DividedByTheBatch, 3),
    "padded": (Padded, 6),
    "padded by default": (PaddedByDefault, 8),
    "within a network": (Within, 3),
}


def case(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(4)
    build, n = CASES[name]
    return build().double().eval(), random(3, n)


def weights(n: int) -> Tensor:
    return random(3, n, seed=9)


def truth(module: nn.Module, x: Tensor, wrt: str) -> tuple[Tensor, Tensor]:
    """The Jacobian, and the second derivative of ``Σ_o w_o y_o`` with `weights`: backward passes of the batch."""
    x = x.clone().requires_grad_()
    leaves = [x] if wrt == "input" else list(module.parameters())
    rows, bent = [], []
    for b in range(len(x)):

        def gradient(y: Tensor, b: int = b) -> Tensor:
            found = torch.autograd.grad(y, leaves, create_graph=True, allow_unused=True, materialize_grads=True)
            return found[0][b].flatten() if wrt == "input" else torch.cat([g.flatten() for g in found])

        with sdpa_kernel(SDPBackend.MATH):
            y = module(x)[b].flatten()
        of_one = torch.stack([gradient(value) for value in y])
        rows.append(of_one.detach())
        bent.append(torch.stack([gradient(g).detach() for g in weights(len(y))[b] @ of_one]))
    return torch.stack(rows), torch.stack(bent)


@pytest.mark.quick(7)
@pytest.mark.parametrize("wrt", ["input", "weight"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.heavy
def test_products_equal_backward_passes_through_the_whole_batch(name: str, wrt: str) -> None:
    module, x = case(name)
    J_true, H = truth(module, x, wrt)
    y, J = linearize(module, x, wrt)
    close(y, module(x).detach())
    s = J.signature
    T, W = random(2, 3, *s.in_shape, seed=1), random(2, 3, *s.out_shape, seed=2)
    pushed = torch.einsum("boi,kbi->kbo", J_true, flat(T))
    pulled = torch.einsum("boi,kbo->kbi", J_true, flat(W))
    close(J.dense(), J_true)
    close(flat(J.push(T)), pushed)
    close(flat(J.pull(W)), pulled)
    close(flat(J.push_squared(T)), torch.einsum("boi,kbi->kbo", J_true.square(), flat(T)))
    close(flat(J.pull_squared(W)), torch.einsum("boi,kbo->kbi", J_true.square(), flat(W)))
    close(flat(J.pull_diag(W, W).unsqueeze(0))[0], pulled.square().sum(0))
    w = weights(s.n_out)
    form = torch.einsum("kbi,bij,lbj->bkl", flat(T), H, flat(T))
    close(J.second(T, w.reshape(3, *s.out_shape)), form)
    close((flat(J.second_push(T, T.flip(0))) * w).sum(-1), form[:, [0, 1], [1, 0]].T)
    u = random(1, 3, 2, seed=3)
    close((flat(J.push_jet(T, u, u))[2:] * w).sum(-1), torch.einsum("bij,lbi,lbj->lb", form, u, u))


@pytest.mark.quick(4)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.heavy
def test_sums_over_the_batch_and_kernels_of_weights(name: str) -> None:
    module, x = case(name)
    J_true = truth(module, x, "weight")[0]
    square = torch.einsum("boi,boj->ij", J_true, J_true)
    products = nnj.products
    close(products.jTmjp(module, x, None, None, "weight", to_diag=True, reduction="sum"), square.diagonal())
    close(products.jTmjp(module, x, None, None, "weight", full=True, reduction="sum"), square)
    close(products.jmjTp(module, x, None, None, "weight"), torch.einsum("boi,bpi->bop", J_true, J_true))
    loss = random(*module(x).shape)
    close(sample_gradients(module, x, loss), torch.einsum("boi,bo->bi", J_true, loss.flatten(1)))
    kernel = tangent_kernel(module, x)
    close(kernel.reshape(*J_true.shape[:2], *J_true.shape[:2]), torch.einsum("boi,cpi->bocp", J_true, J_true))


def test_the_derivatives_of_single_samples_are_of_the_whole_batch() -> None:
    module, x = case("taken in order")
    J_true = truth(module, x, "weight")[0]
    J = linearize(module, x, "weight")[1]
    own = AutodiffWeight(module, x, J.signature)
    close(own.at(slice(1, 3)).dense(), J_true[1:])
    close(own.at(slice(1, 3)).at(slice(1, 2)).dense(), J_true[2:])


def test_what_samples_do_to_each_other_is_still_refused() -> None:
    class Coupled(Multiplied):
        def forward(self, x: Tensor) -> Tensor:
            return unknown(self.linear(x)) * self.mask / x.sum()

    module, x = Coupled().double(), random(3, 3)
    for f in (module, lambda z: module(z)):
        with pytest.raises(CoupledSamplesError, match="when other samples are in the batch"):
            linearize(f, x)
    with pytest.raises(CoupledSamplesError, match="draws random numbers"):
        linearize(lambda z: module.linear(z) * module.mask + torch.rand_like(z[:, :1]), x)


@pytest.mark.parametrize("traced", [True, False])
def test_places_that_show_in_derivatives_alone(traced: bool) -> None:
    """Two entries that are opposite leave no trace of an even function in a softmax, whatever the mask is."""

    class Even(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.mask = nn.Parameter(torch.ones(2).double()), torch.tensor([[1.0], [2.0], [3.0]]).double()

        def forward(self, x: Tensor) -> Tensor:
            h = self.weight * (x if traced else torch.fft.fft(x).real - x.sum(1, keepdim=True) / 2)
            return torch.softmax(h.square() * self.mask[: len(x)], 1)

    module = Even()
    x = torch.tensor([[-0.5, 0.5] if traced else [0.7, 0.3]], dtype=torch.float64).repeat(3, 1)
    _, J = linearize(module, x, "weight")
    W, T = torch.randn(2, 3, 2, dtype=x.dtype), torch.randn(2, 3, 2, dtype=x.dtype)
    exact = torch.autograd.functional.jacobian(
        lambda w: torch.func.functional_call(module, {"weight": w}, (x,)), module.weight.detach()
    )
    torch.testing.assert_close(J.pull(W), torch.einsum("bop,kbo->kbp", exact, W))
    for i in range(3):
        curved = torch.autograd.functional.hessian(
            lambda w, i=i: (torch.func.functional_call(module, {"weight": w}, (x,))[i] * W[0, i]).sum(),
            module.weight.detach(),
        )
        torch.testing.assert_close(J.second(T, W[0])[i], T[:, i] @ curved @ T[:, i].T)
