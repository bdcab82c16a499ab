"""Copies of modules that hold more than parameters and buffers."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pullgeo._torch.submodules import named_modules

Module = TypeVar("Module", bound=nn.Module)

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, FunctionType, BuiltinFunctionType}
)
"""Types of what ``copy.deepcopy`` leaves as it is."""

_TABLES = (dict, OrderedDict)
"""What modules keep parameters, buffers and children in; releases of torch differ."""


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


def plain_copy(module: Module, replacements: Mapping[int, Tensor]) -> Module | None:
    """What `copied` makes of a module of which all tensors are replaced, in a twentieth of its time.

    That is of modules without hooks that hold numbers, names and functions besides their parameters, buffers and
    children; ``None`` for others.

    Example:
        >>> layer = nn.Linear(2, 3, bias=False)
        >>> plain_copy(layer, {id(layer.weight): layer.weight.double()}).weight.dtype
        torch.float64
    """
    children = named_modules(module)
    copies: dict[int, nn.Module] = {}
    states: list[dict[str, Any]] = []
    for _, child in children:
        cls: Any = type(child)
        if not _is_copied_by_its_state(cls):
            return None
        state = vars(child).copy()
        state.pop("_compiled_call_impl", None)  # what torch.compile has made is not copied
        for name, value in state.items():
            kind = type(value)
            if kind in _ATOMS or (kind in (tuple, torch.Size) and _ATOMS.issuperset(map(type, value))):
                continue
            if name in ("_parameters", "_buffers"):
                if kind not in _TABLES or not replacements.keys() >= {id(v) for v in value.values() if v is not None}:
                    return None
                state[name] = kind((key, None if v is None else replacements[id(v)]) for key, v in value.items())
            elif name == "_modules" and kind in _TABLES:
                continue
            elif kind in (dict, OrderedDict, list, set) and _ATOMS.issuperset(map(type, value)):
                if kind in (dict, OrderedDict) and value:  # hooks
                    return None
                state[name] = value.copy()
            else:
                return None
        copies[id(child)] = cls.__new__(cls)
        states.append(state)
    for (_, child), state in zip(children, states, strict=True):
        table: Any = type(child._modules)
        state["_modules"] = table(
            (key, None if one is None else copies[id(one)]) for key, one in child._modules.items()
        )
        vars(copies[id(child)]).update(state)
    return copies[id(module)]  # type: ignore[return-value]


@lru_cache(maxsize=1024)
def _is_copied_by_its_state(cls: Any) -> bool:
    """Whether ``copy.deepcopy`` makes a copy of such a module from its ``__dict__`` alone."""
    own = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__getnewargs__", "__getnewargs_ex__")
    return (
        # those of torch fill in what states of older releases lack; torch.compile puts its own around them
        cls.__setstate__.__module__.startswith(("torch.nn.modules.", "torch._dynamo."))
        and cls.__new__ is object.__new__
        and all(getattr(cls, name, None) is getattr(nn.Module, name, None) for name in own)
        and not any("__slots__" in vars(base) for base in cls.__mro__)
    )
