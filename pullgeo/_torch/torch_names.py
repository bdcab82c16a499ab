"""The functions of torch that go by a name."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[..., Any]

_OWNERS: tuple[Any, ...] = (torch, Tensor, F, torch._C._nn, torch.special)
_NAMED_OWNERS: dict[str, tuple[Any, ...]] = {
    "F": (F, torch._C._nn),
    "Tensor": (Tensor,),
    "linalg": (torch.linalg,),
    "torch": (torch,),
}


def functions_named(name: str) -> list[Function]:
    """All functions under a name in torch, ``torch.nn.functional`` and ``torch.special``, and methods of tensors.

    Where a name means different things, ``F.name``, ``torch.name`` and ``Tensor.name`` tell them apart; ``linalg.name``
    is one of ``torch.linalg``, and ``name.__get__`` an attribute.
    """
    first, _, rest = name.partition(".")
    owners = _NAMED_OWNERS.get(first, _OWNERS)
    path = (rest if first in _NAMED_OWNERS else name).split(".")
    found = [functools.reduce(lambda value, part: getattr(value, part, None), path, owner) for owner in owners]
    return [value for value in found if callable(value) and not isinstance(value, type)]
