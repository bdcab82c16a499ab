"""Functions that do nothing but call modules, one after the other, and the modules that they are."""

from collections.abc import Callable
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from pullgeo.errors import PullgeoError
from pullgeo.jacobian.boundary import FAILURES
from pullgeo.jacobian.checks import check_fixed
from pullgeo.jacobian.tracing.functions import double_of
from pullgeo.jacobian.tracing.module_proxy import double
from pullgeo.jacobian.tracing.proxy import Untraceable

_COPIED = ("forward", "_parameters", "_buffers", "_modules")
"""Attributes of a double that are never those of its module."""


def modules_alone(function: Any, x: Tensor) -> nn.Module | None:
    """The module that a function is, as ``vae.decode`` is ``vae.decoder``, if all it does is to call modules in a row.

    It is called once, with doubles in place of the modules that it can be seen to hold. As soon as it uses a tensor in
    any other way, be it to ask for a shape, it is left to itself.

    Args:
        function: of a batch: a bound method of a module, or a plain function of layers of torch.
        x: a batch, of a few rows.

    Returns:
        The one module, or a chain of several; ``None`` where the function is, or may be, anything else.

    Cost: a forward pass of the few rows.

    Example:
        >>> net, last = nn.Linear(2, 3), nn.Tanh()
        >>> modules_alone(lambda z: last(net(z)), torch.zeros(1, 2))
        Sequential(
          (0): Linear(in_features=2, out_features=3, bias=True)
          (1): Tanh()
        )
        >>> modules_alone(lambda z: 2 * net(z), torch.zeros(1, 2)) is None
        True
    """
    owner = function.__self__ if isinstance(function, MethodType) else None
    if not isinstance(owner, nn.Module) and not isinstance(function, FunctionType | partial):
        return None
    try:
        if isinstance(owner, nn.Module):
            check_fixed(owner)
        found = _Watch().modules(function, x)
    except (Untraceable, PullgeoError, *FAILURES) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return None
    # the modules that a plain function calls need not be fit for another precision, for which a function is
    return None if owner is None and not all(map(_is_of_torch, found)) else _one(found)


def _one(modules: list[nn.Module]) -> nn.Module | None:
    if len(modules) < 2:
        return modules[0] if modules else None
    return nn.Sequential(*modules).train(modules[0].training) if len({m.training for m in modules}) == 1 else None


class _Watch(TorchFunctionMode):
    """Runs a function, and lets it call modules only."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[nn.Module, Any, Any]] = []
        self._inside = False
        self._more = False
        self._settings: tuple[bool, ...] = ()
        self._own: dict[int, list[Tensor | None]] = {}

    def modules(self, function: Callable[[Tensor], Any], x: Tensor) -> list[nn.Module]:
        """The modules that a function calls, each with what the one before has returned.

        Raises:
            Untraceable: it does something else.
        """
        doubles: dict[int, nn.Module] = {}
        originals: list[nn.Module] = []

        def doubled(module: nn.Module) -> nn.Module:
            originals.extend(module.modules())
            return double(module, self._call, {}, doubles)

        with torch.enable_grad():
            watched, x = double_of(function, doubled), x.detach().clone().requires_grad_()
            self._settings = _settings()
            self._own = {id(module): _own_tensors(module) for module in originals}
            with self:
                y = watched(x)
        as_they_were = [_is_as_it_was(module, doubles.get(id(module))) for module in originals]
        for twin in doubles.values():  # nothing refers to itself
            del vars(twin)["forward"]
        inputs = [given for _, given, _ in self._calls]
        outputs = [returned for _, _, returned in self._calls]
        in_a_row = list(map(id, [*inputs, y])) == list(map(id, [x, *outputs]))
        if self._more or not in_a_row or False in as_they_were:
            raise Untraceable("does more than to call modules in a row")
        return [module for module, _, _ in self._calls]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """What modules do; nothing else is done."""
        if not self._inside:
            self._more = True
            raise Untraceable("uses tensors outside of modules")
        return func(*args, **(kwargs or {}))

    def _call(self, module: nn.Module, twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the double of a module does when it is called."""
        if len(args) != 1 or kwargs or self._inside or _settings() != self._settings:
            self._more = True
            raise Untraceable("calls modules with more than a batch, or in another mode of torch")
        if self._replaced(module, twin):
            self._more = True
            raise Untraceable("replaces parameters of modules while it calls them, as functional_call does")
        self._inside = True
        try:
            y = module(*args)
        finally:
            self._inside = False
        self._calls.append((module, args[0], y))
        return y

    def _replaced(self, module: nn.Module, twin: nn.Module) -> bool:
        """Whether a module or its double, or one within, has other parameters or buffers than before the call."""
        pairs = zip(module.modules(), twin.modules(), strict=False)
        return any(
            len(own) != len(now) or any(a is not b for a, b in zip(own, now, strict=True))
            for original, double_ in pairs
            for own in [self._own.get(id(original), [])]
            for now in (_own_tensors(original), _own_tensors(double_))
        )


def _own_tensors(module: nn.Module) -> list[Tensor | None]:
    return [*module._parameters.values(), *module._buffers.values()]


def _settings() -> tuple[bool, ...]:
    """The modes of torch that a function may switch for the modules it calls."""
    return (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda"))


def _is_as_it_was(module: nn.Module, twin: nn.Module | None) -> bool:
    """Whether a function has left the attributes of a module's double alone."""
    if twin is None:  # compiled modules are seen through
        return False
    own, now = vars(module), vars(twin)
    kept = [name in _COPIED or now.get(name) is value for name, value in own.items()]
    return False not in kept and len(now) == len(own) + ("forward" not in own)


def _is_of_torch(module: nn.Module) -> bool:
    """Whether a module consists of layers of torch alone, as they are."""
    return not any(
        not type(child).__module__.startswith("torch.nn.modules.")
        or child._forward_hooks
        or child._forward_pre_hooks
        or parametrize.is_parametrized(child)
        for child in module.modules()
    )
