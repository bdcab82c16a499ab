"""What was found out about modules whose weights are differentiated automatically, for the next call.

No value is kept and nothing of a derivative, only what checks have shown: that no graph knows what a module does, and
that torch moves its samples side by side and gets that right. A finding holds for a sequence of operations, which is
noted anew in every call: the functions of torch that ran, with the shapes and settings that they were given. Whatever a
module was changed in between, by hooks, other layers, other parameters or another ``forward``, if it shows in what is
computed it is another sequence, of which nothing is known.
"""

from collections.abc import Hashable, Mapping
from typing import Any
from weakref import ref

from torch import Tensor, nn

_MOST = 64
"""So many findings of one module are kept."""

_Table = dict[int, tuple[Any, Mapping[Hashable, Any]]]

_found: _Table = {}
_runs: _Table = {}


def findings(module: nn.Module) -> Mapping[Hashable, Mapping[str, bool]]:
    """What is known of a module, by a sequence of operations; forgotten with the module.

    That no graph knows what it does; and in which ways its samples can be moved side by side, and in which not.
    """
    return _of(_found, module)


def remember(module: nn.Module, operations: Hashable, **right: bool) -> None:
    """Note that no graph knows what a module does; and in which ways samples can, or cannot, be moved side by side."""
    _note(_found, module, operations, {**findings(module).get(operations, {}), **right})


def runs(module: nn.Module) -> Mapping[Hashable, bool]:
    """Of a module that graphs know: whether a run may be tried, by occasion, and which operations it got right."""
    return _of(_runs, module)


def remember_run(module: nn.Module, key: Hashable, right: bool) -> None:
    """Note that a run may, or may not, be tried on an occasion, or that it gets a sequence of operations right."""
    _note(_runs, module, key, right)


def _of(table: _Table, module: nn.Module) -> Mapping[Hashable, Any]:
    held = table.get(id(module))
    return held[1] if held is not None and held[0]() is module else {}


def _note(table: _Table, module: nn.Module, key: Hashable, value: Any) -> None:
    number, known = id(module), dict(_of(table, module))
    if len(known) >= _MOST:
        known.clear()
    known[key] = value
    # a module may be unhashable, so that it cannot be a key itself
    table[number] = (ref(module, lambda gone: _forget(table, number, gone)), known)


def _forget(table: _Table, number: int, gone: Any) -> None:
    held = table.get(number)
    if held is not None and held[0] is gone:
        del table[number]


_NUMBERS = frozenset((int, float, bool, complex, str, type(None)))


def described(argument: Any) -> Hashable:
    """All that decides how torch treats an argument, but for the numbers in a tensor."""
    kind = type(argument)
    if kind in _NUMBERS:
        return kind, argument
    if isinstance(argument, Tensor):
        if argument.is_nested:  # it has no shape
            return argument.layout, argument.dtype
        return argument.shape, argument.dtype, argument.device, argument.requires_grad, argument.layout
    if isinstance(argument, tuple | list):
        return tuple([described(item) for item in argument])
    if isinstance(argument, dict):
        return tuple([(key, described(value)) for key, value in argument.items()])
    if isinstance(argument, slice):
        return argument.start, argument.stop, argument.step
    if isinstance(argument, float | int | complex | str):
        return kind, argument
    return kind, repr(argument)
