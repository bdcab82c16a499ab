"""What a module holds besides parameters and submodules, redirected to its clone.

Modules are often referred to by more than their parent: in a list of layers, by a hook or a forward that is a bound
method, in a lambda's closure. All of these have to lead to the clone, or it would run parts of the original behind its
own back.
"""

import collections
import functools
import types
from typing import Any

from torch import nn
from torch.nn.modules.module import _WrappedHook

Clones = dict[int, Any]
"""Clone of each module of the original tree, by the original's ``id``; functions remade on the way are added."""

_CONTAINERS = (list, tuple, set, frozenset, dict, collections.OrderedDict, collections.defaultdict, collections.deque)


def redirected(value: Any, clones: Clones) -> Any:
    """The value, leading to clones where it led to modules of the tree; containers are copied, all else is shared."""
    if id(value) in clones:
        return clones[id(value)]
    if _is_container(value):
        return _container(value, clones)
    if isinstance(value, types.MethodType) and id(value.__self__) in clones:
        return types.MethodType(value.__func__, clones[id(value.__self__)])
    if type(value) is functools.partial and _leads_to_tree(value, clones, set()):
        arguments = [redirected(argument, clones) for argument in value.args]
        return functools.partial(redirected(value.func, clones), *arguments, **redirected(value.keywords, clones))
    if isinstance(value, types.FunctionType) and _leads_to_tree(value, clones, set()):
        return _function(value, clones)
    if isinstance(value, _WrappedHook):  # torch's own wrapper of hooks that take the module
        owner: nn.Module | None = redirected(value.module(), clones) if value.with_module else None
        return _WrappedHook(redirected(value.hook, clones), owner)
    return value


def _is_container(value: Any) -> bool:
    return type(value) in _CONTAINERS or (isinstance(value, tuple) and hasattr(value, "_fields"))


def _container(value: Any, clones: Clones) -> Any:
    if isinstance(value, dict):
        copied = value.copy()  # keeps a default factory
        copied.clear()
        copied.update((redirected(key, clones), redirected(entry, clones)) for key, entry in value.items())
        return copied
    entries = [redirected(entry, clones) for entry in value]
    if hasattr(value, "_fields"):
        return type(value)(*entries)
    return collections.deque(entries, value.maxlen) if isinstance(value, collections.deque) else type(value)(entries)


def _function(value: types.FunctionType, clones: Clones) -> types.FunctionType:
    cells = tuple(types.CellType() for _ in value.__closure__ or ())
    defaults = redirected(value.__defaults__, clones)
    remade = types.FunctionType(value.__code__, value.__globals__, value.__name__, defaults, cells)
    clones[id(value)] = remade  # before its cells: a function may refer to itself
    remade.__kwdefaults__ = redirected(value.__kwdefaults__, clones)
    vars(remade).update(vars(value))
    for cell, original in zip(cells, value.__closure__ or (), strict=True):
        if _is_filled(original):
            content = original.cell_contents
            # what leads nowhere stays shared: a hook may write to a list of its caller
            cell.cell_contents = redirected(content, clones) if _leads_to_tree(content, clones, set()) else content
    return remade


def _leads_to_tree(value: Any, clones: Clones, seen: set[int]) -> bool:
    if id(value) in clones:
        return True
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(_leads_to_tree(part, clones, seen) for part in _parts(value))


def _parts(value: Any) -> list[Any]:
    if _is_container(value):
        return [*value, *value.values()] if isinstance(value, dict) else list(value)
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if type(value) is functools.partial:
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return []


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a variable that was never assigned
        return False
    return True
