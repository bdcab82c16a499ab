"""Batches and stacks as torch hands them out: from inference mode, expanded, overlapping, transposed, strided."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import nnj
from pullgeo.errors import GradModeError
from pullgeo.jacobian import Autodiff, Graph, linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.metric import Dense, Diagonal, LowRank
from pullgeo.testing import oracles
from tests.jacobian.architectures import Gates, close, random


class Automatic(nn.Module):
    """Served by automatic differentiation, for its input and for its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(torch.tanh(self.linear(x))).abs()


class Gated(Gates):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, 1:])


def maps() -> dict[str, Callable[[Tensor], Tensor]]:
    torch.manual_seed(2)
    chain = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 2)).double()
    return {
        "chain": chain,
        "graph": Gated().double(),
        "automatic": Automatic(),
        "function": lambda z: torch.special.entr(chain(z).sigmoid()),  # which no graph knows
    }


def in_inference_mode(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return x.clone()


def overlapping(x: Tensor) -> Tensor:
    return x.flatten()[: len(x) + 3].clone().unfold(0, 4, 1)


def behind_another_dimension(x: Tensor) -> Tensor:
    return torch.stack([x, x + 1], -1)[..., 0]


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "one number": lambda x: x[:, :1].expand(3, 4),
    "one sample": lambda x: x[:1].expand(3, 4),
    "one number for all": lambda x: x[0, 0].expand(3, 4),
    "overlapping": overlapping,
    "transposed": lambda x: x.T.contiguous().T,
    "every other one": lambda x: x.repeat_interleave(2, 0)[::2],
    "behind another dimension": behind_another_dimension,
    "imaginary part of a conjugate": lambda x: torch.complex(x, x).conj().imag,
    "inference mode": in_inference_mode,
    "expanded in inference mode": lambda x: in_inference_mode(x[:1]).expand(3, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", maps())
def test_batches_of_every_layout_give_what_plain_copies_give(name: str, layout: str) -> None:
    f, x = maps()[name], LAYOUTS[layout](random(3, 4))
    truth = oracles.dense_jacobian(f, x.clone())
    for J in (linearize(f, x)[1], linearize(f, x.clone())[1]):
        w, T = random(3, *J.signature.out_shape, seed=1), random(2, 3, 4, seed=2)
        close(J.dense(), truth)
        close(flat(J.push(T)), torch.einsum("boi,kbi->kbo", truth, T))
        close(J.pull(w.unsqueeze(0))[0], torch.einsum("boi,bo->bi", truth, w.flatten(1)))
        form = oracles.second_form(f, x.clone(), w, T)
        close(J.second(T, w), form)
        close((flat(J.second_push(T, T)) * w.flatten(1)).sum(-1), form.diagonal(dim1=1, dim2=2).T)
    if isinstance(f, nn.Module):
        J = linearize(f, x, "weight")[1]
        close(J.dense(), oracles.dense_jacobian(f, x.clone(), "weight"))
        close(nnj.products.jTmjp(f, x, None, None, "weight", to_diag=True), J.dense().square().sum(1))


STACKS: dict[str, Callable[[Tensor], Tensor]] = {
    "same for all": lambda t: t[:1, :1].expand_as(t),
    "same at all samples": lambda t: t[:, :1].expand_as(t),
    "one number": lambda t: t[..., :1].expand_as(t),
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "inference mode": in_inference_mode,
}


@pytest.mark.quick(13)
@pytest.mark.parametrize("layout", STACKS)
@pytest.mark.parametrize("name", maps())
@pytest.mark.parametrize("wrt", ["input", "weight"])
def test_stacks_of_every_layout_give_what_plain_copies_give(name: str, layout: str, wrt: str) -> None:
    f, x, laid = maps()[name], random(3, 4), STACKS[layout]
    if wrt == "weight" and not isinstance(f, nn.Module):
        return
    J = linearize(f, x, wrt)[1]
    s = J.signature
    T, W = laid(random(2, 3, *s.in_shape)), laid(random(2, 3, *s.out_shape, seed=1))
    t, w = T.clone(), W.clone()
    for product in ("push", "push_squared", "push_squared_layerwise"):
        close(getattr(J, product)(T), getattr(J, product)(t))
    for product in ("pull", "pull_squared", "pull_squared_layerwise"):
        close(getattr(J, product)(W), getattr(J, product)(w))
    for product in ("push_gram", "push_outer", "push_diag", "second_push"):
        close(getattr(J, product)(T, T.flip(0)), getattr(J, product)(t, t.flip(0)))
        close(getattr(J, product)(T, S=T), getattr(J, product)(t, t))
    for product in ("pull_gram", "pull_outer", "pull_diag"):
        close(getattr(J, product)(W, W.flip(0)), getattr(J, product)(w, w.flip(0)))
    close(J.second(T, W[0]), J.second(t, w[0]))
    close(J.push_with_second(T, W[0])[1], J.second(t, w[0]))
    u = laid(random(2, 3, 2, seed=3))
    close(J.push_jet(T, u, u), J.push_jet(t, u.clone(), u.clone()))
    close(J.T.push(W), J.pull(w))
    close(flat(J.push(T)), torch.einsum("boi,kbi->kbo", oracles.dense_jacobian(f, x, wrt), flat(t)))


def test_the_maps_take_the_paths_that_they_are_meant_to() -> None:
    x = random(3, 4)
    J = {name: linearize(f, x)[1] for name, f in maps().items()}
    assert isinstance(J["graph"], Graph)
    assert isinstance(J["automatic"], Autodiff)
    assert isinstance(J["function"], Autodiff)


def test_a_copied_batch_stays_connected() -> None:
    f = maps()["function"]
    one = random(1, 4).requires_grad_()
    linearize(f, one.expand(3, 4))[1].push(random(1, 3, 4)).sum().backward()
    other = one.detach().clone().requires_grad_()
    linearize(f, other.repeat(3, 1))[1].push(random(1, 3, 4)).sum().backward()
    close(one.grad, other.grad)


@pytest.mark.parametrize("name", ["chain", "graph", "automatic"])
def test_weights_of_inference_mode_are_refused_by_name(name: str) -> None:
    with torch.inference_mode():
        f = maps()[name]
    x = random(3, 4)
    for wrt in ("input", "weight"):
        with pytest.raises(GradModeError, match=r"parameters and buffers of .*copy\.deepcopy\(module\)"):
            linearize(f, x, wrt)
    if name != "automatic":  # where torch keeps no weight for a derivative, nothing is in the way
        with pytest.raises(GradModeError, match=r"copy\.deepcopy\(module\)"):
            linearize(lambda z: f(z), x)
    torch.testing.assert_close(linearize(copied(f), x)[1].dense(), oracles.dense_jacobian(copied(f), x))
    with torch.inference_mode():
        torch.testing.assert_close(linearize(f, x)[1].dense(), oracles_outside(f, x))


def copied(f: Callable[[Tensor], Tensor]) -> nn.Module:
    return copy.deepcopy(f)


def oracles_outside(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return oracles.dense_jacobian(copied(f), x)


def test_a_constant_of_inference_mode_is_refused_by_name() -> None:
    factor, x = in_inference_mode(random(4)), random(3, 4)
    linear = nn.Linear(4, 4).double()
    with pytest.raises(GradModeError, match=r"other tensors by clone\(\)"):
        linearize(lambda z: linear(z) * factor, x)
    y = linearize(lambda z: linear(z) * factor.clone(), x)[0]
    torch.testing.assert_close(y, linear(x) * factor.clone())


def test_a_jacobian_of_inference_mode_says_where_it_serves() -> None:
    f, x, T = maps()["chain"], random(3, 4), random(2, 3, 4)
    with torch.inference_mode():
        J = linearize(f, x)[1]
        inside = J.push(T)
    with pytest.raises(GradModeError, match=r"compute it under torch\.no_grad\(\)"):
        J.push(T.requires_grad_())
    with torch.no_grad():
        close(J.push(T), inside.clone())


@pytest.mark.parametrize("make", [lambda r: Dense(r @ r.mT), lambda r: Diagonal(r[:, 0]), LowRank])
def test_metrics_of_inference_mode_measure_and_are_differentiated(make: Callable[[Tensor], Dense]) -> None:
    root = random(4, 4)
    M, plain = make(in_inference_mode(root)), make(root)
    v = random(2, 3, 4, seed=1).requires_grad_()
    gradient = torch.autograd.grad(M.inner(v, v).sum(), v)[0]
    close(gradient, torch.autograd.grad(plain.inner(v, v).sum(), v)[0])
    root.requires_grad_()
    M, u = make(root), in_inference_mode(v.detach())
    close(M.apply(u), M.apply(v))
    close(M.quadratic(u), M.quadratic(v))
