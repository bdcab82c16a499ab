"""Tensors that write down what is done with them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Parameter


class Untraceable(Exception):  # noqa: N818
    """Ends a recording that met what no graph serves; the text says what. Automatic differentiation takes over."""


@runtime_checkable
class Listener(Protocol):
    """What is told of every operation on a recorded tensor."""

    def apply(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the operation and note its derivative."""
        ...


@dataclass
class Family:
    """Tensors that share memory where torch runs the operations itself; writing into one would change them all."""

    members: int = 1


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a tensor comes from whose batch is not in front.

    Args:
        base: the tensor with the batch in front.
        order: the base's dimensions, in the order in which this tensor has them.
    """

    base: "Recorded"
    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class State:
    """What a recorded tensor stands for.

    Args:
        value: the tensor itself.
        node: which node of the graph it is, or ``None`` if it does not depend on what is differentiated.
        per_sample: whether its first dimension is the batch; parameters, and what is computed of them alone, are the
            same for every sample.
        family: the tensors that share its memory.
        refusal: why it must not be used, if it must not.
        origin: what its few permitted uses go back to, if its batch is not in front.
    """

    value: Tensor
    node: int | None
    per_sample: bool
    family: Family = field(default_factory=Family)
    refusal: str | None = None
    origin: Origin | None = None


class Recorded(Tensor):
    """A stand-in for a tensor, in a module's ``forward``, that hands every operation on it to a recorder.

    It has the shape and dtype of the value and no memory. What reaches torch without passing the recorder fails
    instead of going unnoticed.
    """

    listener: Listener
    state: State

    @staticmethod
    def of(listener: Listener, state: State) -> "Recorded":
        """A stand-in for ``state.value``."""
        value = state.value
        recorded: Recorded = Tensor._make_wrapper_subclass(
            Recorded, value.shape, dtype=value.dtype, device=value.device
        )
        recorded.listener, recorded.state = listener, state
        return recorded

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Hand the operation to the recorder."""
        kwargs = kwargs or {}
        first = args[0] if args and type(args[0]) is Recorded else recorded_in((args, kwargs))[0]
        return first.listener.apply(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Refuse: torch was about to compute something that no recorder was told of."""
        raise Untraceable(f"{func} reads the tensor past the recorder")


# Asked for at every step, and no operations: answered without telling the recorder.
def _answered_by_value(name: str) -> property:
    return property(lambda recorded: getattr(recorded.state.value, name))


for _name in ("shape", "ndim", "dtype", "device", "dim", "size", "numel", "is_floating_point"):
    setattr(Recorded, _name, _answered_by_value(_name))


_LEAVES = frozenset((int, float, bool, str, type(None), Tensor, Parameter))
"""Classes of arguments that hold no others; there are more."""


def recorded_in(arguments: Any, found: list[Recorded] | None = None) -> list[Recorded]:
    """The recorded tensors in nested arguments."""
    found = [] if found is None else found
    if type(arguments) is Recorded:
        found.append(arguments)
    elif isinstance(arguments, tuple | list):
        for argument in arguments:
            if type(argument) is Recorded:
                found.append(argument)
            elif type(argument) not in _LEAVES:
                recorded_in(argument, found)
    elif isinstance(arguments, dict):
        if arguments:
            recorded_in(tuple(arguments.values()), found)
    elif isinstance(arguments, slice):
        recorded_in((arguments.start, arguments.stop, arguments.step), found)
    return found


def plain(argument: Any) -> Any:
    """The same nested arguments with values in place of recorded tensors."""
    if type(argument) is Recorded:
        return argument.state.value
    if isinstance(argument, Tensor | int | float | str) or argument is None:
        return argument
    if isinstance(argument, dict):
        return {key: plain(item) for key, item in argument.items()}
    if isinstance(argument, tuple) and hasattr(argument, "_fields"):
        return type(argument)(*map(plain, argument))
    if isinstance(argument, tuple | list):
        return type(argument)(map(plain, argument))
    if isinstance(argument, slice):
        return slice(plain(argument.start), plain(argument.stop), plain(argument.step))
    return argument
