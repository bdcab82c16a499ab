"""Copies of modules that hold more than parameters and buffers."""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def copied(module: Module, replacements: Mapping[int, Tensor] | None = None) -> Module:
    """A deep copy of a module, which may hold what it has computed.

    ``copy.deepcopy`` refuses tensors that autograd knows the origin of, as ``torch.nn.utils.weight_norm`` leaves one
    on its module at every call. What is computed is copied as it is, without its origin: the module computes it anew.

    Args:
        module: any module.
        replacements: what to put in place of a tensor, by its ``id``; these need not be leaves.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> layer.latest = layer(torch.zeros(1, 2))
        >>> copied(layer).latest.requires_grad
        False
    """
    memo = {id(tensor): tensor.detach().clone() for tensor in computed_tensors(module)}
    memo.update(replacements or {})
    # deepcopy takes what the memo names instead of copying it
    return copy.deepcopy(module, memo)


def computed_tensors(module: nn.Module) -> list[Tensor]:
    """The tensors on a module and its children that are no leaves of autograd's graph.

    They are attributes, buffers, and entries of lists, tuples and dicts that are attributes.
    """
    found: list[Tensor] = []
    for child in module.modules():
        if isinstance(child, torch.jit.ScriptModule):
            continue
        for value in (*vars(child).values(), *child._buffers.values()):
            entries = value if type(value) in (list, tuple) else value.values() if type(value) is dict else (value,)
            found += [entry for entry in entries if isinstance(entry, Tensor) and entry.grad_fn is not None]
    return found
