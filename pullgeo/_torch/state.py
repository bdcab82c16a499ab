"""Running modules without leaving traces on them."""

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch import nn
from torch.jit import ScriptModule

from pullgeo._torch.fast_path import fast_path_off
from pullgeo._torch.submodules import named_modules

_BACKWARD_HOOKS = ("_backward_hooks", "_backward_pre_hooks")
_TABLES = (dict, OrderedDict)
"""Classes of tables that are told without a call."""

_DEPTH = 5
"""Functions that call functions, so many times, are looked into."""


@contextmanager
def left_alone(function: Any) -> Iterator[None]:
    """Puts attributes and buffers of modules back as they were, and lets no hooks of their backward pass run.

    Values are those that derivatives belong to, see `fast_path_off`.

    A ``forward`` may keep what it computed, as the hook of ``torch.nn.utils.weight_norm`` does. Inside a transform of
    torch that is a tensor of the transform, which cannot be used, copied or pickled afterwards.

    Args:
        function: a module, or any function; see `modules_within`.
    """
    # what is compiled keeps its attributes out of reach, and sets none while it runs
    within = [module for owner in modules_within(function) for _, module in named_modules(owner)]
    children = [module for module in within if not isinstance(module, ScriptModule)]
    held = [(attributes, attributes.copy()) for child in children for attributes in (vars(child), child._buffers)]
    for child in children:
        # they change gradients on their way, not what forward computes; torch runs them in a function without rules
        vars(child).update((name, OrderedDict()) for name in _BACKWARD_HOOKS if vars(child).get(name))
    try:
        with fast_path_off():
            yield
    finally:
        for attributes, before in held:
            if list(attributes) != list(before) or any(map(operator.is_not, attributes.values(), before.values())):
                attributes.clear()
                attributes.update(before)


def held_state(module: nn.Module) -> Callable[[], AbstractContextManager[None]]:
    """Makes a context in which a module and its children have the attributes that they have now.

    Switches such as ``training``, hooks, and which parameters, buffers and children there are; not what is written into
    these tensors.

    Example:
        >>> net = nn.Dropout().eval()
        >>> as_now = held_state(net)
        >>> net = net.train()
        >>> with as_now():
        ...     net.training
        False
        >>> net.training
        True
    """
    # what is compiled keeps its attributes out of reach
    children = [child for _, child in named_modules(module) if not isinstance(child, ScriptModule)]
    then = [(vars(child), _copied(vars(child))) for child in children]

    @contextmanager
    def as_then() -> Iterator[None]:
        now = [(attributes, attributes.copy()) for attributes, _ in then]
        _set(then)
        try:
            yield
        finally:
            _set(now)

    return as_then


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    copies = attributes.copy()
    # most are tables of hooks, and empty; a tensor of several numbers is neither true nor false
    tables = [
        (name, value)
        for name, value in attributes.items()
        if (value.__class__ in _TABLES or isinstance(value, dict)) and value
    ]
    copies.update([(name, value.copy()) for name, value in tables])
    return copies


def _set(states: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for attributes, values in states:
        attributes.clear()
        attributes.update(values)


def modules_within(function: Any) -> list[nn.Module]:
    """The modules that a function can be seen to hold.

    A module itself; the owner of a method; what a ``partial`` binds; the closure, defaults and globals of a function;
    the attributes of an object that can be called; and what such functions hold in turn.

    Example:
        >>> net = nn.Linear(2, 3)
        >>> modules_within(lambda z: net(z).exp()) == modules_within(partial(net.forward)) == [net]
        True
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()

    def look(thing: Any, depth: int) -> None:
        if id(thing) in seen or depth > _DEPTH:
            return
        seen.add(id(thing))
        if isinstance(thing, nn.Module):
            found[id(thing)] = thing
        for inner in _held(thing):
            look(inner, depth + 1)

    look(function, 0)
    return list(found.values())


def _held(thing: Any) -> list[Any]:
    """What a function, or an object that can be called, holds."""
    if isinstance(thing, MethodType):
        owner = thing.__self__
        # an object that is no module may keep one in its attributes
        return [owner, thing.__func__, *([] if isinstance(owner, nn.Module | type) else _attributes(owner))]
    if isinstance(thing, partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if _is_filled(cell)]
        names = [thing.__globals__[name] for name in thing.__code__.co_names if name in thing.__globals__]
        usable = [value for value in names if isinstance(value, nn.Module | FunctionType | MethodType | partial)]
        return [*cells, *usable, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    if isinstance(thing, list | tuple):
        return list(thing)
    if isinstance(thing, dict):
        return list(thing.values())
    if callable(thing) and not isinstance(thing, type):
        return [value for value in _attributes(thing) if callable(value)]
    return []


def _attributes(thing: Any) -> list[Any]:
    return list(getattr(thing, "__dict__", {}).values())


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
