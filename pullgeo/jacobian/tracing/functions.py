"""A function's double, which calls doubles of the modules that it holds."""

from collections.abc import Callable
from dis import get_instructions
from functools import lru_cache, partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

from pullgeo.jacobian.tracing.proxy import Untraceable

_DEPTH = 5
"""Functions that call functions, so many times, are looked into."""


def double_of(function: Any, double: Callable[[nn.Module], nn.Module]) -> Any:
    """The same function, with a double in place of each module that it can be seen to hold.

    Modules are found in the owner of a method, in what a ``partial`` binds, and in closures, defaults and globals of
    functions, also of functions that are found there. Any other module is called as it is.

    Args:
        function: of a batch.
        double: makes the double of a module.

    Raises:
        Untraceable: it is compiled, or rebinds globals beside the modules that it finds there.

    Example:
        >>> import torch
        >>> net = nn.Linear(2, 3)
        >>> double_of(lambda z: net(z).exp(), lambda module: nn.Identity())(torch.zeros(1))
        tensor([1.])
    """
    made: dict[int, Any] = {}

    def copied(thing: Any, depth: int) -> Any:
        if id(thing) not in made:
            made[id(thing)] = thing  # what holds itself is not followed for ever
            made[id(thing)] = _copied(
                thing, double, lambda inner: copied(inner, depth + 1) if depth < _DEPTH else inner
            )
        return made[id(thing)]

    return copied(function, 0)


def _copied(thing: Any, double: Callable[[nn.Module], nn.Module], inner: Callable[[Any], Any]) -> Any:
    if isinstance(thing, nn.Module):
        return double(thing)
    if hasattr(thing, "_torchdynamo_orig_callable"):
        raise Untraceable("a function that torch.compile was given")
    if isinstance(thing, MethodType):
        return MethodType(inner(thing.__func__), inner(thing.__self__))
    if isinstance(thing, partial):
        return partial(inner(thing.func), *map(inner, thing.args), **_values(thing.keywords, inner))
    if isinstance(thing, list | tuple) and type(thing) in (list, tuple):
        return type(thing)(map(inner, thing))
    return _function(thing, inner) if isinstance(thing, FunctionType) else thing


def _function(function: FunctionType, inner: Callable[[Any], Any]) -> Any:
    cells = function.__closure__ or ()
    closure = tuple(_cell(cell, inner) for cell in cells)
    held = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    own = {name: value for name, value in held.items() if isinstance(value, nn.Module | MethodType | partial)}
    defaults = function.__defaults__ and tuple(map(inner, function.__defaults__))
    keywords = function.__kwdefaults__ and _values(function.__kwdefaults__, inner)
    same = all(new is old for new, old in zip(closure, cells, strict=True))
    if same and not own and defaults == function.__defaults__ and keywords == function.__kwdefaults__:
        return function
    if own and _rebinds_globals(function.__code__):
        raise Untraceable("a function rebinds a global")
    names = {**function.__globals__, **_values(own, inner)} if own else function.__globals__
    twin = FunctionType(function.__code__, names, function.__name__, defaults, closure)
    twin.__kwdefaults__ = keywords
    return twin


@lru_cache(maxsize=1024)
def _rebinds_globals(code: CodeType) -> bool:
    """Whether a function assigns to globals, of which its double has a copy."""
    return any(step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for step in get_instructions(code))


def _cell(cell: CellType, inner: Callable[[Any], Any]) -> CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # nothing was put into it yet
        return cell
    found = inner(content)
    return cell if found is content else CellType(found)


def _values(named: dict[str, Any], inner: Callable[[Any], Any]) -> dict[str, Any]:
    return {name: inner(value) for name, value in named.items()}
