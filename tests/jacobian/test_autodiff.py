"""The fallback: exact for what torch's own transforms get wrong or lack."""

import pytest
import torch
from torch import Tensor, nn

from pullgeo.jacobian import linearize
from pullgeo.testing.oracles import second_derivative


@pytest.mark.parametrize("norm", [nn.LayerNorm(5), nn.GroupNorm(1, 5), nn.Tanh()])
def test_second_derivatives_of_norms_in_plain_functions(norm: nn.Module) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), norm, nn.Linear(5, 2)).double()

    def function(x: Tensor) -> Tensor:
        return module(x)

    x = torch.randn(3, 3, dtype=torch.float64)
    _, J = linearize(function, x)
    T, S = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    bent = J.second_push(T, S)
    for o in range(2):
        w = torch.zeros(3, 2, dtype=torch.float64)
        w[:, o] = 1
        H = second_derivative(module, x, w)
        torch.testing.assert_close(bent[..., o].detach(), torch.einsum("kbi,bij,kbj->kb", T, H, S))
