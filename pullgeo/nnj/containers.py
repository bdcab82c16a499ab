"""Networks of networks: Sequential, skip connections, residual blocks."""

from typing import Any

import torch
from torch import Tensor, nn

from pullgeo.nnj.classes import remembered, with_products
from pullgeo.nnj.module import Module, forward_of


class Sequential(Module, nn.Sequential):
    """`torch.nn.Sequential` with Jacobian products: the chain rule through its children, which may be any modules.

    Args:
        args: the modules, or one ordered dictionary of them.
        add_hooks: accepted so that older code runs; it has no effect, for nothing is stored between calls.

    Example:
        >>> import torch
        >>> from pullgeo import nnj
        >>> nnj.Sequential(nnj.Linear(2, 3), torch.nn.Tanh(), add_hooks=True).jacobian(torch.zeros(7, 2)).shape
        torch.Size([7, 3, 2])
    """

    forward = forward_of(nn.Sequential)
    forward_is_transparent = True

    def __init__(self, *args: Any, add_hooks: bool = False) -> None:
        super().__init__(*args)


remembered(nn.Sequential, Sequential)


@with_products
class SkipConnection(nn.Module):
    """``[x, F(x)]``, concatenated along dimension 1, with ``F`` the chain of the given modules (kept as ``_F``).

    Args:
        layers: the modules of ``F``, which keeps all dimensions of its input but dimension 1. Blocks over weights are
            those of ``F``.
        add_hooks: accepted so that older code runs; it has no effect.

    Example:
        >>> import torch
        >>> from pullgeo import nnj
        >>> nnj.SkipConnection(nnj.Linear(2, 3)).jacobian(torch.zeros(7, 2)).shape
        torch.Size([7, 5, 2])
    """

    blocks_are_of = "_F"

    def __init__(self, *layers: nn.Module, add_hooks: bool = False) -> None:
        super().__init__()
        self._F = Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``[x, F(x)]``."""
        return torch.cat([x, self._F(x)], dim=1)


@with_products
class ResidualBlock(nn.Module):
    """``x + F(x)``, with ``F`` the chain of the given modules (kept as ``_F``).

    Args:
        layers: the modules of ``F``, which ends in the shape it starts from. Blocks over weights are those of ``F``.
        add_hooks: accepted so that older code runs; it has no effect.

    Example:
        >>> import torch
        >>> from pullgeo import nnj
        >>> nnj.ResidualBlock(nnj.Linear(2, 2)).jacobian(torch.zeros(7, 2)).shape
        torch.Size([7, 2, 2])
    """

    blocks_are_of = "_F"

    def __init__(self, *layers: nn.Module, add_hooks: bool = False) -> None:
        super().__init__()
        self._F = Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """``x + F(x)``."""
        return x + self._F(x)
