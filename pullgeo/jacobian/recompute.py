"""Sums over chunks whose graphs are not kept: what a chunk needs in the backward pass is computed again there."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from threading import local
from typing import Any, TypeVar
from weakref import ReferenceType, ref

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pullgeo._torch.scripts import ScriptCalls
from pullgeo._torch.transforms import transformed, unwrapped
from pullgeo.errors import TensorChangedError
from pullgeo.numerics.progress import counted

Item = TypeVar("Item")
Answer = TypeVar("Answer", Tensor, tuple[Tensor, ...])


class _State(local):
    """What a thread is at: the search under way, and whether a chunk is being computed again."""

    search: "_Search | None" = None
    again = False


_state = _State()


def over_chunks(chunks: Iterable[Item], compute: Callable[[Item], Answer], also_one: bool = False) -> Iterator[Answer]:
    """``compute(chunk)`` of one chunk after the other, each by `recomputed` if there are several.

    Args:
        chunks: such as slices of a stack.
        compute: what is to be done with one of them. Whatever depends on the chunk alone is computed in it, slices of
            the stack included.
        also_one: use `recomputed` for a single chunk too, where its graph takes much more than its answer.
    """
    every = list(chunks)
    if len(every) == 1 and not also_one:
        yield compute(every[0])
        return
    for chunk in counted(every):
        yield recomputed(partial(compute, chunk))


def recomputed(compute: Callable[[], Answer]) -> Answer:
    """What a function returns, connected to the graph of all tensors that it used; of its own graph nothing is kept.

    The value is computed without a graph. A backward pass through it calls the function again, with gradients, and
    drops that graph before it goes on; so a sum of many such values takes the memory of one. Answers, gradients and
    higher derivatives are those of ``compute()``. Differs from ``torch.utils.checkpoint`` in that the function may use
    ``torch.func``, and in that tensors it has captured need not be named: they are seen as they are used.

    Where torch knows no such function (under ``torch.func``, in forward-mode differentiation) and where the function
    runs TorchScript, whose tensors cannot be seen, it is called plainly and its graph is kept.

    Args:
        compute: returns a tensor or a tuple of tensors; the same at every call.

    Cost: a backward pass takes one more call.

    Example:
        >>> w = torch.ones(3, requires_grad=True)
        >>> y = recomputed(lambda: (w * w.exp()).sin())
        >>> type(y.grad_fn).__name__
        '_RecomputedBackward'
        >>> torch.allclose(torch.autograd.grad(y.sum(), w)[0], (w * w.exp()).cos() * (1 + w) * w.exp())
        True
    """
    if not torch.is_grad_enabled() or recomputing() or transformed():
        return compute()
    search = _Search()
    with torch.no_grad(), search:
        value = compute()
    if search.incomplete:
        return compute()
    if not search.tensors:
        return value
    values = (value,) if isinstance(value, Tensor) else value
    tensors = tuple(search.tensors.values())
    used = search.others_alive(values)
    answers: tuple[Tensor, ...] = _Recomputed.apply((compute, tensors, values, used, _Autocast()), *tensors)
    return answers[0] if isinstance(value, Tensor) else answers


def recomputing() -> bool:
    """Whether a function runs for `recomputed`, which must see every tensor that is used."""
    return _state.again or _state.search is not None


class _Recomputed(torch.autograd.Function):
    """Values computed before, whose backward pass computes them again."""

    @staticmethod
    def forward(ctx: Any, call: tuple[Any, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
        """The values."""
        ctx.compute, ctx.seen, values, ctx.used, ctx.autocast = call
        ctx.save_for_backward(*tensors)  # which also notices if one is written into
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """The cotangents pulled back to the tensors, each of them as if the others were constant."""
        for reference, version in ctx.used:
            tensor = reference()
            if tensor is not None and tensor._version != version:
                raise TensorChangedError(
                    f"A tensor of shape {tuple(tensor.shape)} that a product used was written into before the backward "
                    "pass, which needs it as it was. Take the gradient first, or write into a copy."
                )
        twice = torch.is_grad_enabled()
        wanted = ctx.needs_input_grad[1:]
        with torch.enable_grad(), ctx.autocast.restored():
            # views stand for the tensors, so that no path leads from one of these to another
            views = [t.view_as(t) for t in ctx.saved_tensors]
            before, _state.again = _state.again, True
            try:
                with _Exchange(dict(zip(map(id, ctx.seen), views, strict=True))):
                    value = ctx.compute()
            finally:
                _state.again = before
            values = (value,) if isinstance(value, Tensor) else value
            inputs = [view for view, want in zip(views, wanted, strict=True) if want]
            # of a number: for cotangents torch imports sympy at the first call
            terms = [(v * c).sum() for v, c in zip(values, cotangents, strict=True) if v.requires_grad]
            total = sum(terms[1:], terms[0])
            found = iter(torch.autograd.grad(total, inputs, create_graph=twice, allow_unused=True))
        return None, *(next(found) if want else None for want in wanted)


class _Search(TorchFunctionMode):
    """Collects the tensors with a graph that are used in its context; gradients must be off in there.

    Attributes:
        tensors: those that were found, by their id.
        incomplete: whether some could not be seen as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[int, Tensor] = {}
        self.incomplete = False
        self._others: dict[int, tuple[ReferenceType[Tensor], int]] = {}
        self._made: dict[int, ReferenceType[Tensor]] = {}

    def __enter__(self) -> "_Search":
        """Begin."""
        _state.search = self
        self._scripts = ScriptCalls(self._ran)
        self._scripts.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        """End."""
        _state.search = None
        super().__exit__(*reason)
        self._scripts.__exit__(*reason)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at the arguments."""
        kwargs = kwargs or {}
        for tensor in _tensors_in((args, kwargs)):
            base = unwrapped(tensor)
            if base.requires_grad:
                if self._is_made(base):
                    continue
                if base is tensor:
                    self.tensors[id(tensor)] = tensor
                else:  # one that a transform has wrapped before it was used
                    self.incomplete = True
            elif base is tensor and not tensor.is_inference():
                self._others.setdefault(id(tensor), (ref(tensor), tensor._version))
        answer = func(*args, **kwargs)
        recording = (
            torch.is_grad_enabled() or func is Tensor.requires_grad_
        )  # a part of the function has switched it on
        for base in map(unwrapped, _tensors_in(answer)):
            # without gradients too, a view of what has a graph claims to require gradients
            if recording or (base.requires_grad and base.grad_fn is None and base._is_view()):
                self._made[id(base)] = ref(base)
        return answer

    def _is_made(self, tensor: Tensor) -> bool:
        """Whether a tensor with a graph was made in here."""
        reference = self._made.get(id(tensor))
        return reference is not None and reference() is tensor

    def _ran(self, traced: bool) -> None:
        self.incomplete = True

    def others_alive(self, values: tuple[Tensor, ...]) -> list[tuple[ReferenceType[Tensor], int]]:
        """What else was used and lives on, besides the values, with the number of times it had been written into."""
        mine = set(map(id, values))
        return [other for key, other in self._others.items() if key not in mine and other[0]() is not None]


class _Exchange(TorchFunctionMode):
    """Puts other tensors in place of some wherever these are used in its context."""

    def __init__(self, others: dict[int, Tensor]) -> None:
        super().__init__()
        self.others = others

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Exchange the arguments."""
        return func(*self._exchanged(args), **self._exchanged(kwargs or {}))

    def _exchanged(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self.others.get(id(argument), argument)
        if type(argument) in (tuple, list):
            return type(argument)(map(self._exchanged, argument))
        if type(argument) is dict:
            return {key: self._exchanged(value) for key, value in argument.items()}
        return argument


class _Autocast:
    """The state of automatic mixed precision, to be restored later."""

    _DEVICES = ("cpu", "cuda")

    def __init__(self) -> None:
        self._states = [
            (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in self._DEVICES
        ]
        self._cache = torch.is_autocast_cache_enabled()

    def restored(self) -> ExitStack:
        """A context in which it is as it was."""
        stack = ExitStack()
        for device, enabled, dtype in self._states:
            if enabled != torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, dtype, enabled, self._cache))
        return stack


def _tensors_in(argument: Any) -> Iterator[Tensor]:
    if isinstance(argument, Tensor):
        yield argument
    elif isinstance(argument, tuple | list):
        for item in argument:
            yield from _tensors_in(item)
    elif isinstance(argument, dict):
        yield from _tensors_in(tuple(argument.values()))
