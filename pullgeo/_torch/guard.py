"""What a map may not do while it is differentiated."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pullgeo.errors import ModuleError

# Written in place as well, but no value changes.
_HARMLESS = frozenset({"requires_grad_", "share_memory_", "rename_", "__set__", "__delete__"})
_AUGMENTED = frozenset({"__setitem__"} | {f"__i{name}__" for name in ("add", "sub", "mul", "div", "truediv", "pow")})
_DATA: Any = vars(torch._C.TensorBase)["data"]
_SET_DATA, _GET_DATA = _DATA.__set__, _DATA.__get__
GET_GRAD: Any = vars(torch._C.TensorBase)["grad"].__get__
_TO_NUMPY = (Tensor.numpy, Tensor.__array__)


class Guard(TorchFunctionMode):
    """Within this context parameters cannot be changed.

    A function may convert a network whenever it is called, as ``lambda z: net.double()(z)`` does. Inside a transform
    of torch this writes the transform's own tensors into the network, and the process ends with a segmentation fault.

    Raises:
        ModuleError: a parameter, or its ``data``, is about to be changed (it has not been then).

    Example:
        >>> import torch
        >>> net = torch.nn.Linear(2, 3)
        >>> with Guard():
        ...     net.double()
        Traceback (most recent call last):
        ...
        pullgeo.errors.ModuleError: Jacobian: the weights of a network are changed while it is differentiated...
    """

    def __init__(self) -> None:
        super().__init__()
        self._shared: dict[int, Tensor] = {}
        self._refusal: ModuleError | None = None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Leave; a refusal that was wrapped on its way, as ``load_state_dict`` does, is raised as it was."""
        super().__exit__(kind, error, trace)
        if error is not None and self._refusal is not None and error is not self._refusal:
            raise self._refusal from error

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function, unless it would do what is not allowed."""
        named = kwargs or {}
        if not torch.compiler.is_compiling() and _only_computes(func):
            return func(*args, **named)
        target = args[0] if args else named.get("tensor", named.get("input"))
        if func == _SET_DATA:
            if _is_same(args[1], args[0]):
                return None
            raise self._refused("their .data is set, as .double(), .half() and .to(...) of a module do")
        if isinstance(target, Tensor) and self._is_weight(target) and _writes(func):
            raise self._refused(f"{func.__name__} writes into them, as load_state_dict and optimisers do")
        if self._refusal is not None and _writes(func):  # load_state_dict goes on with the buffers
            raise self._refusal
        if func == GET_GRAD and isinstance(target, nn.Parameter):  # conversions look there; transforms warn of it
            with torch._C._DisableFuncTorch():
                return func(*args, **named)
        if func in _TO_NUMPY:
            return _to_numpy(func, args, named)
        value = func(*args, **named)
        if isinstance(target, nn.Parameter) and (func == _GET_DATA or func is Tensor.detach):
            self._shared[id(value)] = value
        return value

    def _is_weight(self, tensor: Tensor) -> bool:
        return isinstance(tensor, nn.Parameter) or id(tensor) in self._shared

    def _refused(self, what: str) -> ModuleError:
        self._refusal = ModuleError(
            "Jacobian: the weights of a network are changed while it is differentiated, which needs fixed weights: "
            f"{what}. Convert or load the network once, before; or give the module itself, which is evaluated in "
            "float64 where that is needed and stays as it is."
        )
        return self._refusal


def _is_same(new: Tensor, old: Tensor) -> bool:
    """Whether a conversion had nothing to do, as ``net.to(z.device)``; transforms may have wrapped what it returned."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(new):
        new = functorch.get_unwrapped(new)
    if new is old or functorch.is_functorch_wrapped_tensor(old):
        return new is old
    alike = new.dtype == old.dtype and new.device == old.device and new.shape == old.shape
    return alike and new.stride() == old.stride() and new.data_ptr() == old.data_ptr()


@lru_cache(maxsize=4096)
def _only_computes(func: Any) -> bool:
    """Whether a function leaves what it is given as it is, as nearly all do, and gives no other name to its memory."""
    watched = (_SET_DATA, _GET_DATA, GET_GRAD, Tensor.detach, *_TO_NUMPY)
    return func not in watched and not _writes(func)


def _writes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return name not in _HARMLESS and (in_place or name in _AUGMENTED)


def _to_numpy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Numbers that are constants go to NumPy also inside transforms, which keep them from it."""
    if torch._C._functorch.is_functorch_wrapped_tensor(args[0]):
        return func(*args, **kwargs)
    with torch._C._DisableFuncTorch():
        return func(*args, **kwargs)
