"""Methods and functions are recorded as the ``forward`` of a module is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pullgeo import linearize
from pullgeo.errors import CoupledSamplesError
from pullgeo.jacobian.kinds.autodiff import Autodiff
from pullgeo.jacobian.kinds.chain import Chain
from pullgeo.testing.oracles import dense_jacobian


class Autoencoder(nn.Module):
    """Decodes by a method, and keeps what it has decoded last."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(7, 3)
        self.decoder = nn.Sequential(nn.Linear(3, 11), nn.Tanh(), nn.Linear(11, 7))
        self.latest: Tensor | None = None

    def decode(self, z: Tensor) -> Tensor:
        self.latest = z
        return self.decoder(z).exp()


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(5, 3, generator=generator, dtype=torch.float64)


def maps(model: Autoencoder) -> dict[str, Callable[[Tensor], Tensor]]:
    return {
        "method": model.decode,
        "lambda": lambda z: model.decoder(z).exp(),
        "forward": model.decoder.forward,
        "calls a method": lambda z: 2 * model.decode(z) + 1,
    }


@pytest.mark.parametrize("name", ["method", "lambda", "forward", "calls a method"])
def test_functions_become_what_modules_become(name: str, x: Tensor) -> None:
    model = Autoencoder().double()
    function = maps(model)[name]
    y, J = linearize(function, x)
    assert isinstance(J, Chain)
    assert torch.equal(y, function(x.clone()))
    torch.testing.assert_close(J.dense(), dense_jacobian(function, x))


@pytest.mark.parametrize("name", ["method", "calls a method"])
def test_a_recording_leaves_nothing_on_the_module(name: str, x: Tensor) -> None:
    model = Autoencoder().double()
    linearize(maps(model)[name], x)
    assert model.latest is None
    assert "forward" not in vars(model)


def test_what_cannot_be_recorded_is_differentiated_automatically(x: Tensor) -> None:
    layer = nn.Linear(3, 7).double()

    def function(z: Tensor) -> Tensor:
        return torch.linalg.matrix_exp(torch.diag_embed(layer(z))).sum(2)

    J = linearize(function, x)[1]
    assert isinstance(J, Autodiff)
    torch.testing.assert_close(J.dense(), dense_jacobian(function, x))


@pytest.mark.parametrize(
    "function",
    [lambda z: z - z.mean(0), nn.BatchNorm1d(3).double().forward, nn.Dropout(0.5).forward, lambda z: z.flip(0)],
    ids=["mean", "batch norm", "dropout", "flip"],
)
def test_functions_that_mix_samples_are_refused(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with pytest.raises(CoupledSamplesError):
        linearize(function, x)


def test_gradients_reach_the_weights_of_a_method(x: Tensor) -> None:
    model = Autoencoder().double()
    (found,) = torch.autograd.grad(linearize(model.decode, x)[1].dense().square().sum(), model.decoder[0].weight)
    (same,) = torch.autograd.grad(
        linearize(nn.Sequential(model.decoder, Exp()), x)[1].dense().square().sum(), model.decoder[0].weight
    )
    torch.testing.assert_close(found, same)


class Exp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.exp()
