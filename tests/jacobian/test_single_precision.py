"""Every layer and network in single precision, in every grad mode: kernels of torch differ by both.

The truth are two backward passes in double precision, with one random cotangent: cheap enough for every case there is.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pullgeo import PullbackManifold
from pullgeo.jacobian import linearize
from pullgeo.jacobian.contractions import flat
from pullgeo.testing import oracles, torch_layers
from tests.jacobian.architectures import NETWORKS, network
from tests.nnj import cases

pytestmark = pytest.mark.usefixtures("without_type_checks")

LAYERS = torch_layers()
# where torch's second derivative is wrong in double precision too
WITHOUT_SECOND = {("weight norm and spectral norm", "weight")}
MODES: list[Callable[[], AbstractContextManager[Any]]] = [torch.no_grad, torch.inference_mode, torch.enable_grad]


def layer(name: str) -> tuple[nn.Module, Tensor, bool]:
    return LAYERS[name].module(), LAYERS[name].points(3), LAYERS[name].exact


CASES: dict[str, Callable[[], tuple[nn.Module, Tensor, bool]]] = {
    **{name: lambda name=name: layer(name) for name in LAYERS},
    **{name: lambda name=name: (*network(name), True) for name in NETWORKS},
    **{f"nnj: {name}": lambda name=name: (cases.module(name), cases.points(name, 3), True) for name in cases.CASES},
}


class Truth:
    """``Jᵀ w`` and ``T_iᵀ (Σ_o w_o ∂²y_o) T_j`` at each of three samples, in double precision."""

    def __init__(self, module: nn.Module, x: Tensor, wrt: str, twice: bool) -> None:
        generator = torch.Generator().manual_seed(1)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            leaves = [x.clone().requires_grad_()] if wrt == "input" else list(module.parameters())
            y = module(leaves[0] if wrt == "input" else x)
            self.value = y.detach()
            n = leaves[0][0].numel() if wrt == "input" else sum(p.numel() for p in leaves)
            self.w = torch.randn(y.shape, dtype=torch.float64, generator=generator)
            self.T = torch.randn(2, len(x), n, dtype=torch.float64, generator=generator)
            rows = [(y[b] * self.w[b]).sum() for b in range(len(x))]
            pulled = [self._gradient(row, leaves, wrt, b, twice) for b, row in enumerate(rows)]
            self.pulled = torch.stack(pulled).detach()
            self.form = None
            if twice:
                bent = [
                    torch.stack([self._bent(p, t, leaves, wrt, b) for t in T])
                    for b, (p, T) in enumerate(zip(pulled, self.T.transpose(0, 1), strict=True))
                ]
                self.form = torch.einsum("bkn,lbn->bkl", torch.stack(bent), self.T).detach()

    def _bent(self, pulled: Tensor, t: Tensor, leaves: list[Tensor], wrt: str, b: int) -> Tensor:
        along = (pulled * t).sum()
        return self._gradient(along, leaves, wrt, b, False) if along.requires_grad else torch.zeros_like(t)

    def _gradient(self, y: Tensor, leaves: list[Tensor], wrt: str, b: int, twice: bool) -> Tensor:
        found = torch.autograd.grad(y, leaves, create_graph=twice, retain_graph=True, allow_unused=True)
        parts = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]
        return parts[0][b].flatten() if wrt == "input" else torch.cat([part.flatten() for part in parts])


@pytest.mark.quick(82)
@pytest.mark.parametrize("name", CASES)
def test_single_precision_in_every_grad_mode_is_near_double_precision(name: str) -> None:
    module, x, twice = CASES[name]()
    single = copy.deepcopy(module).float()
    x_single = x.float() if x.is_floating_point() else x
    for wrt in ["input"] * x.is_floating_point() + ["weight"] * any(True for _ in module.parameters()):
        truth = Truth(module, x, wrt, twice and (name, wrt) not in WITHOUT_SECOND)
        if not twice and x.is_floating_point():  # nor is the first derivative exact
            J_true = oracles.dense_jacobian_fd(module, x, wrt)
            truth.pulled = torch.einsum("boi,bo->bi", J_true, truth.w.flatten(1))
        for mode in MODES:
            with mode():
                y, J = linearize(single, x_single, wrt)
                s = J.signature
                T, w = truth.T.float().reshape(2, 3, *s.in_shape), truth.w.float()
                close(y, truth.value)
                close(flat(J.pull(w.unsqueeze(0)))[0], truth.pulled)
                along = (flat(J.push(T)).double() * truth.w.flatten(1)).sum(-1)
                close(along.float(), torch.einsum("kbn,bn->kb", truth.T, truth.pulled))
                if truth.form is not None:
                    close(J.second(T, w), truth.form)
                    bent = (flat(J.second_push(T, T.flip(0))).double() * truth.w.flatten(1)).sum(-1)
                    close(bent.float(), truth.form[:, [0, 1], [1, 0]].T)


def close(got: Tensor, expected: Tensor) -> None:
    got = got.detach()
    assert got.dtype == torch.float32
    assert got.shape == expected.shape
    assert (got.double() - expected).abs().max() <= 5e-4 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_geodesics_of_recurrent_decoders_in_single_precision(kind: type[nn.RNNBase]) -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.out = kind(2, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, z: Tensor) -> Tensor:
            return self.out(self.recurrent(z.unsqueeze(1).expand(-1, 3, -1))[0])

    decoder = Decoder()
    ends = torch.tensor([[-0.5, 0.3], [0.7, -0.2]])
    solution = PullbackManifold(decoder).geodesic(ends[:1], ends[1:])
    exact = PullbackManifold(copy.deepcopy(decoder).double()).geodesic(ends[:1].double(), ends[1:].double())
    assert bool(solution.converged.all())
    torch.testing.assert_close(solution.length.double(), exact.length, rtol=1e-5, atol=0)
