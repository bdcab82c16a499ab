"""The slope of GELU, which a kernel of torch computes."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pullgeo._torch.gelu import gelu_slope


def value(x: Tensor, approximate: str) -> Tensor:
    if approximate == "none":
        return x * torch.erfc(-x / 2**0.5) / 2
    return x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_derivative_and_so_are_its_own(approximate: str, dtype: torch.dtype) -> None:
    x = torch.linspace(-7, 7, 101, dtype=dtype).reshape(1, 101).expand(3, 101)  # as batches of constants come
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(F.gelu(x, approximate=approximate), value(x, approximate), **tolerance)
    # what is compared with is in float64: the third derivative of the formula cancels
    x, y = x[0].clone().requires_grad_(), x[0].double().requires_grad_()
    ours, truth = gelu_slope(x, approximate), torch.autograd.grad(value(y, approximate).sum(), y, create_graph=True)[0]
    for _ in range(3):
        torch.testing.assert_close(ours.double(), truth, **tolerance)
        ours = torch.autograd.grad(ours.sum(), x, create_graph=True)[0]
        truth = torch.autograd.grad(truth.sum(), y, create_graph=True)[0]
