"""Layer-by-layer propagation of diagonals: the truth behind ``diag_backprop=True``.

Between layers everything off the diagonal is thrown away: with the dense Jacobian J of one layer, a diagonal w of the
output metric becomes (J∘J)ᵀw on the input, and a diagonal v of an input (co)metric becomes (J∘J)v on the output.
"""

import copy
from typing import NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from pullgeo.errors import ModuleError
from pullgeo.testing.oracles.jacobians import dense_jacobian
from pullgeo.typing import Wrt


def layers_of(module: nn.Module) -> list[nn.Module]:
    """The layers of nested plain `torch.nn.Sequential` containers, in the order in which they run."""
    if type(module) is not nn.Sequential:
        return [module]
    return [layer for child in module for layer in layers_of(child)]


def diag_backprop_pull(
    module: nn.Module, x: Num[Tensor, "b ..."], diagonal: Float[Tensor, "b n_out"] | None = None, wrt: Wrt = "input"
) -> Float[Tensor, "b n"]:
    """Diagonal of JᵀMJ with only diagonals kept between layers.

    Args:
        module: a `torch.nn.Sequential`, nested at will, or a single layer.
        x: ``(b, *in)``.
        diagonal: diagonal of M, ``(b, n_out)``; None is the identity.
        wrt: ``"input"`` or ``"weight"`` (order of `torch.nn.utils.parameters_to_vector`; a layer used twice adds up).

    Returns:
        Float64 ``(b, n_in)`` or ``(b, P)``.

    Raises:
        ModuleError: ``wrt="weight"`` without parameters.

    Example:
        >>> diag_backprop_pull(torch.nn.Identity(), torch.zeros(1, 2))
        tensor([[1., 1.]], dtype=torch.float64)
    """
    steps = _trace(module, x)
    carried = torch.ones(len(x), steps[-1].width, dtype=torch.float64) if diagonal is None else diagonal.double()
    weights = _Accumulator(module, len(x))
    for position, (layer, value, _) in reversed(list(enumerate(steps))):
        if wrt == "weight" and _has_parameters(layer):
            weights.add(layer, _squared_pull(dense_jacobian(layer, value, "weight"), carried))
        if wrt == "input" or position > 0:
            carried = _squared_pull(dense_jacobian(layer, value), carried)
    return carried if wrt == "input" else weights.total()


def diag_backprop_push(
    module: nn.Module, x: Num[Tensor, "b ..."], diagonal: Float[Tensor, "b n"] | None = None, wrt: Wrt = "input"
) -> Float[Tensor, "b n_out"]:
    """Diagonal of JMJᵀ with only diagonals kept between layers.

    Args:
        module: a `torch.nn.Sequential`, nested at will, or a single layer.
        x: ``(b, *in)``.
        diagonal: diagonal of M, ``(b, n_in)`` or ``(b, P)``; None is the identity.
        wrt: ``"input"`` or ``"weight"``.

    Returns:
        Float64 ``(b, n_out)``.

    Raises:
        ModuleError: ``wrt="weight"`` without parameters.

    Example:
        >>> diag_backprop_push(torch.nn.Identity(), torch.zeros(1, 2))
        tensor([[1., 1.]], dtype=torch.float64)
    """
    weights = _Accumulator(module, len(x))
    size = weights.size if wrt == "weight" else x.shape[1:].numel()
    given = torch.ones(len(x), size, dtype=torch.float64) if diagonal is None else diagonal.double()
    carried = given
    for position, (layer, value, width) in enumerate(_trace(module, x)):
        arrived = torch.zeros(len(x), width, dtype=torch.float64)
        if wrt == "input" or position > 0:
            arrived = arrived + _squared_push(dense_jacobian(layer, value), carried)
        if wrt == "weight" and _has_parameters(layer):
            own = given[:, weights.indices(layer)]
            arrived = arrived + _squared_push(dense_jacobian(layer, value, "weight"), own)
        carried = arrived
    return carried


class _Accumulator:
    """Adds the layers' diagonals into one vector over all parameters."""

    def __init__(self, module: nn.Module, batch: int) -> None:
        self._ranges: dict[nn.Parameter, Tensor] = {}
        self.size = 0
        for parameter in module.parameters():
            self._ranges[parameter] = torch.arange(self.size, self.size + parameter.numel())
            self.size += parameter.numel()
        self._sum = torch.zeros(batch, self.size, dtype=torch.float64)

    def indices(self, layer: nn.Module) -> Tensor:
        return torch.cat([self._ranges[parameter] for parameter in layer.parameters()])

    def add(self, layer: nn.Module, diagonal: Tensor) -> None:
        self._sum[:, self.indices(layer)] += diagonal

    def total(self) -> Tensor:
        if self.size == 0:
            raise ModuleError('diag_backprop_pull: wrt="weight" needs a module with parameters; this one has none.')
        return self._sum


class _Step(NamedTuple):
    layer: nn.Module
    value: Tensor
    width: int


def _trace(module: nn.Module, x: Tensor) -> list[_Step]:
    """Every layer with the float64 value that it is given and the flat size of what it returns."""
    steps = []
    value = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        for layer in layers_of(module):
            given, value = value, copy.deepcopy(layer).double()(value)
            steps.append(_Step(layer, given, value.shape[1:].numel()))
    return steps


def _has_parameters(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())


def _squared_pull(J: Tensor, diagonal: Tensor) -> Tensor:
    return torch.stack([(j * j).T @ w for j, w in zip(J, diagonal, strict=True)])


def _squared_push(J: Tensor, diagonal: Tensor) -> Tensor:
    return torch.stack([(j * j) @ v for j, v in zip(J, diagonal, strict=True)])
