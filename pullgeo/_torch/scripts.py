"""What TorchScript runs, of which no hook and no mode of torch tells."""

from collections.abc import Callable
from threading import Lock, local
from typing import Any

import torch

Told = Callable[[bool], None]


class _Listeners(local):
    """Those of a thread."""

    def __init__(self) -> None:
        self.all: list[Told] = []


_listeners = _Listeners()
_counting = Lock()
_TYPES: tuple[Any, ...] = (torch._C.ScriptFunction, torch._C.ScriptMethod)
_CALLS = tuple(kind.__call__ for kind in _TYPES)
_entered = 0


class ScriptCalls:
    """Within this context, every call of a compiled function or method is told of, whatever name it goes by.

    Modules call their compiled ``forward``, so they are told of as well; methods that were exported are, too.

    Args:
        told: called in the thread that calls, with whether it is a trace: traces keep second derivatives, as torch
            knows then what requires gradients.
    """

    def __init__(self, told: Told) -> None:
        self.told = told

    def __enter__(self) -> "ScriptCalls":
        """Listen."""
        global _entered
        with _counting:
            _entered += 1
            if _entered == 1:
                for kind, call in zip(_TYPES, _CALLS, strict=True):
                    kind.__call__ = _telling(call)
        _listeners.all.append(self.told)
        return self

    def __exit__(self, *reason: Any) -> None:
        """Listen no longer."""
        global _entered
        _listeners.all.remove(self.told)
        with _counting:
            _entered -= 1
            if _entered == 0:
                for kind, call in zip(_TYPES, _CALLS, strict=True):
                    kind.__call__ = call


def _telling(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(compiled: Any, *args: Any, **kwargs: Any) -> Any:
        if _listeners.all:
            traced = is_traced(compiled)
            for told in _listeners.all:
                told(traced)
        return call(compiled, *args, **kwargs)

    return run


def is_traced(compiled: Any) -> bool:
    """Whether a compiled function or method is a trace: it then knows the dtype of every tensor that it was given."""
    types = [value.type() for value in compiled.graph.inputs()]
    return all(t.scalarType() is not None for t in types if isinstance(t, torch._C.TensorType))
