"""A layer with a Jacobian written out as a matrix, right in every respect, for tests to break in one respect each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """y = tanh(W x) in the shape (3, 1): three inputs and three outputs, so that a transposed Jacobian fits."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        entries = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
        self.weight = nn.Parameter(entries.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight.T).unsqueeze(-1)


@dataclass
class Matrices:
    """J as matrices (b, n_out, n_in), with what its products need to give the right shapes."""

    J: Tensor
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    form: Callable[[Tensor, Tensor], Tensor]

    def push(self, T: Tensor) -> Tensor:
        return torch.einsum("boi,kbi->kbo", self.J, T.flatten(2)).reshape(*T.shape[:2], *self.out_shape)

    def pull(self, W: Tensor) -> Tensor:
        return torch.einsum("boi,kbo->kbi", self.J, W.flatten(2)).reshape(*W.shape[:2], *self.in_shape)

    def push_squared(self, v: Tensor) -> Tensor:
        return torch.einsum("boi,kbi->kbo", self.J**2, v.flatten(2)).reshape(*v.shape[:2], *self.out_shape)

    def pull_squared(self, w: Tensor) -> Tensor:
        return torch.einsum("boi,kbo->kbi", self.J**2, w.flatten(2)).reshape(*w.shape[:2], *self.in_shape)

    def dense(self) -> Tensor:
        return self.J

    def second(self, T: Tensor, w: Tensor) -> Tensor:
        return self.form(T.flatten(2), w.flatten(1))


def linearize(module: Layer, x: Tensor, wrt: str = "input", kind: type[Matrices] = Matrices) -> tuple[Tensor, Matrices]:
    """The layer's value and Jacobian, all of it by hand."""
    y = torch.tanh(x @ module.weight.T)
    slope, bend = 1 - y**2, -2 * y * (1 - y**2)
    if wrt == "input":
        first, in_shape = module.weight.expand(len(x), 3, 3), (3,)
    else:
        # ∂(W x)_o / ∂W_pi = δ_op x_i
        first = torch.einsum("op,bi->bopi", torch.eye(3, dtype=x.dtype), x).flatten(2)
        in_shape = (9,)

    def form(T: Tensor, w: Tensor) -> Tensor:
        A = torch.einsum("boi,kbi->kbo", first, T)
        return torch.einsum("kbo,bo,lbo->bkl", A, bend * w, A)

    return y.unsqueeze(-1), kind(slope.unsqueeze(-1) * first, in_shape, (3, 1), form)
