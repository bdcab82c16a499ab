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
    memo = computed_tensors(module)
    memo.update(replacements or {})
    # deepcopy takes what the memo names instead of copying it
    return copy.deepcopy(module, memo)


def computed_tensors(module: nn.Module) -> dict[int, Tensor]:
    """Copies, by id, of the tensors on a module and its children that are no leaves of autograd's graph."""
    return {
        id(value): value.detach().clone()
        for child in module.modules()
        if not isinstance(child, torch.jit.ScriptModule)
        for held in (vars(child), child._buffers)
        for value in held.values()
        if isinstance(value, Tensor) and value.grad_fn is not None
    }
