"""Functions and methods as modules, so that a larger module that holds them can be converted to float64."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from pullgeo.manifold.float64.promote import Promoted
from pullgeo.typing import Decoder


def as_module(decoder: Decoder) -> nn.Module:
    """A decoder in which a larger module finds its weights, or which works in float64 in spite of them.

    Modules are left as they are. A method of a module takes the module along; a function is called with float64 as
    `Promoted` does.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> as_module(lambda z: layer(z).exp())(torch.zeros(5, 2, dtype=torch.float64)).dtype
        torch.float64
    """
    if isinstance(decoder, nn.Module):
        return decoder
    if isinstance(decoder, MethodType) and isinstance(decoder.__self__, nn.Module):
        return _Method(decoder)
    return _Function(decoder)


def given(module: Decoder) -> Decoder:
    """What `as_module` has made a module of."""
    return module.given if isinstance(module, _Method | _Function) else module


class _Function(nn.Module):
    """A function that may hold weights in float32, for latents in float32 and in float64."""

    def __init__(self, function: Decoder) -> None:
        super().__init__()
        self.given = function
        self.promoted = Promoted(function)

    def forward(self, z: Tensor, **further: Any) -> Any:
        """The function's value."""
        if z.dtype != torch.float64:
            return self.given(z, **further)
        return self.promoted(z, **further)


class _Method(nn.Module):
    """A method of a module."""

    def __init__(self, method: MethodType) -> None:
        super().__init__()
        self.owner: nn.Module = method.__self__  # type: ignore[assignment]
        self.method = method.__func__

    @property
    def given(self) -> Decoder:
        """The method, of the module as it is here."""
        return MethodType(self.method, self.owner)

    def forward(self, z: Tensor, **further: Any) -> Any:
        """The method's value."""
        return self.method(self.owner, z, **further)
