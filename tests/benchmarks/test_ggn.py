"""Diagonals over weights: beside BackPACK's exact diagonal, and beside one gradient."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo import nnj, zoo
from tests.benchmarks.side_by_side import middle, show, turns


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 100), nn.Tanh(), nn.Linear(100, 100))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_exact_diagonal() -> None:
    backpack = pytest.importorskip("backpack", reason="pip install --no-deps backpack-for-pytorch==1.7.1")
    extensions = pytest.importorskip("backpack.extensions")
    rows: list[dict[str, object]] = []
    for batch in (10, 128):
        plain = network()
        extended, loss = backpack.extend(network()), backpack.extend(nn.MSELoss(reduction="sum"))
        extended.load_state_dict(plain.state_dict())
        x, target = torch.randn(batch, 100), torch.randn(batch, 100)

        def peer(extended: nn.Module = extended, loss: nn.Module = loss, x: Tensor = x, y: Tensor = target) -> Tensor:
            with backpack.backpack(extensions.DiagGGNExact()):
                loss(extended(x), y).backward()
            found = torch.cat([p.diag_ggn_exact.flatten() for p in extended.parameters()])
            extended.zero_grad()
            return found / 2  # the Hessian of a squared error is twice the identity

        def ours(plain: nn.Module = plain, x: Tensor = x) -> Tensor:
            with torch.no_grad():
                return nnj.products.jTmjp(plain, x, wrt="weight", to_diag=True, reduction="sum")

        torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-4)
        run = turns({"ours": ours, "BackPACK": peer})
        rows.append({"batch": batch, "BackPACK / ours": run.ratio("BackPACK", "ours")})
    note = "Time of both, one thread; the diagonals agree to 1e-3. Squared errors of 100 outputs."
    show(
        "exact diagonal of the Gauss-Newton matrix, 100-100-100-100 tanh",
        rows,
        "exact-diagonal",
        packages=["backpack-for-pytorch"],
        note=note,
    )
    assert all(middle(row["BackPACK / ours"]) > 1.3 for row in rows)


def test_propagated_diagonal_beside_a_gradient() -> None:
    wide = nn.Sequential(nn.Linear(10, 512), nn.Tanh(), nn.Linear(512, 512), nn.Tanh(), nn.Linear(512, 784))
    decoder, encoder = zoo.mnist_vae(d=10).decoder, zoo.mnist_vae(d=10).encoder
    contenders = {
        "100-100-100-100, batch 10": (network(), torch.randn(10, 100)),
        "100-100-100-100, batch 128": (network(), torch.randn(128, 100)),
        "10-512-512-784, batch 64": (wide, torch.randn(64, 10)),
        "convolutional decoder, batch 64": (decoder.requires_grad_(), torch.randn(64, 10)),
        "convolutional encoder, batch 64": (encoder.requires_grad_(), torch.randn(64, 1, 28, 28)),
    }
    rows: list[dict[str, object]] = []
    for name, (net, x) in contenders.items():

        def gradient(net: nn.Module = net, x: Tensor = x) -> object:
            return torch.autograd.grad(net(x).square().sum(), list(net.parameters()))

        def ours(net: nn.Module = net, x: Tensor = x) -> Tensor:
            with torch.no_grad():
                return nnj.products.jTmjp(net, x, wrt="weight", diag_backprop=True, reduction="sum")

        run = turns({"ours": ours, "gradient": gradient})
        rows.append({"network": name, "ours / gradient": run.ratio("ours", "gradient")})
    title = "the propagated diagonal of the Gauss-Newton matrix, beside the gradient of a loss"
    show(title, rows, "propagated-diagonal", note='diag_backprop=True, reduction="sum".')
    assert all(middle(row["ours / gradient"]) < 2.5 for row in rows)
