"""Which rule serves which module."""

import inspect
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.utils import parametrize

from pullgeo.errors import RegistryError
from pullgeo.jacobian.base import Jacobian

InputRule = Callable[[Any, Tensor], tuple[Tensor, Jacobian]]
"""``(module, x) -> (y, J)``: the value and the derivative with respect to the input."""

WeightRule = Callable[[Any, Tensor], Jacobian]
"""``(module, x) -> J``: the derivative with respect to the module's own parameter vector."""

Rule = TypeVar("Rule", bound=Callable[..., Any])

_USUAL = frozenset(("weight", "bias"))
"""What layers of torch.nn call their parameters."""

_OURS = "pullgeo.jacobian.rules."
"""Where the rules are whose types are checked before they are used."""

_input_rules: dict[type[nn.Module], InputRule] = {}
_weight_rules: dict[type[nn.Module], WeightRule] = {}


def rule(*classes: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a function as the derivative of modules of these classes with respect to their input.

    The function takes ``(module, x)`` and returns ``(y, J)``, the value and one of the kinds of `Jacobian`. The rule
    also serves subclasses that keep the class's ``forward``.

    Raises:
        RegistryError: a class has a rule already, or is not a module class; the function takes other arguments. Later,
            when the rule is used: it returns something else.

    Example:
        >>> import torch
        >>> from pullgeo.jacobian import Elementwise, linearize, rule
        >>> class Cube(torch.nn.Module):
        ...     def forward(self, x):
        ...         return x**3
        >>> @rule(Cube)
        ... def cube(module, x):
        ...     return x**3, Elementwise(3 * x**2, lambda: 6 * x)
        >>> y, J = linearize(Cube(), torch.tensor([[1.0, 2.0]]))
        >>> J.dense()
        tensor([[[ 3.,  0.],
                 [ 0., 12.]]])
    """
    return _register(_input_rules, classes, _checked)


def weight_rule(*classes: type[nn.Module]) -> Callable[[Rule], Rule]:
    """Register a function as the derivative of modules of these classes with respect to their parameter vector.

    The function takes ``(module, x)`` and returns the `Jacobian` alone, on tangents ``(k, b, P)``.

    Raises:
        RegistryError: as for `rule`.
    """
    return _register(_weight_rules, classes, _checked_weight)


def rule_for(module: nn.Module) -> InputRule | None:
    """The rule that gives the derivative of this very module with respect to its input, or ``None``."""
    cls = served_class(module)
    return _input_rules.get(cls) if cls is not None else None


def weight_rule_for(module: nn.Module) -> WeightRule | None:
    """The rule that gives the derivative of this very module with respect to its parameters, or ``None``.

    Parametrized modules (weight norm, spectral norm) have none: their parameters are not the ones a rule is about. Nor
    have modules of a subclass that brings parameters of its own.
    """
    cls = served_class(module)
    found = None if cls is None else _weight_rules.get(cls)
    if found is None or cls is None or _has_more_parameters(module, cls):
        return None
    return None if "parametrizations" in module._modules and parametrize.is_parametrized(module) else found


def served_class(module: nn.Module) -> type[nn.Module] | None:
    """The registered class whose ``forward`` this module runs, or ``None`` if it runs anything else.

    A ``forward`` or ``__call__`` of its own (in a subclass or on the instance) or a hook may compute anything, so no
    rule applies; nor does one to complex parameters.
    """
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        return None
    for p in module._parameters.values():
        if p is not None and p.is_complex():  # rules know real numbers only
            return None
    cls: Any = type(module)
    return _served(cls, getattr(cls, "forward", None), cls.__call__)


@lru_cache(maxsize=1024)
def _served(cls: Any, forward: Any, call: Any) -> type[nn.Module] | None:
    """The same for a class; what its ``forward`` and ``__call__`` are is given, as somebody may replace them."""
    if overrides_call(cls):
        return None
    owner = forward_owner(cls)
    if owner in _input_rules:
        return owner
    registered = (base for base in cls.__mro__ if base in _input_rules)
    found = next(registered, None)
    return found if found is not None and forward_owner(found) is owner else None


def registered_classes() -> tuple[type[nn.Module], ...]:
    """Every class that has a rule, in order of registration."""
    return tuple(_input_rules)


def forward_owner(cls: type[nn.Module]) -> type:
    """The class in the method resolution order whose ``forward`` runs, wrappers that add no computation left out."""
    for base in cls.__mro__:
        if "forward" in vars(base) and not vars(base).get("forward_is_transparent", False):
            return base
    return nn.Module


def overrides_call(cls: type[nn.Module]) -> bool:
    """Whether calls of such modules run more than torch's own ``__call__``; wrappers that add nothing do not count."""
    if cls.__call__ is nn.Module.__call__:  # what most modules have, found quickly
        return False
    owner = next(c for c in cls.__mro__ if "__call__" in vars(c) and not vars(c).get("forward_is_transparent", False))
    return owner is not nn.Module and not issubclass(cls, ScriptModule)


def _has_more_parameters(module: nn.Module, cls: type[nn.Module]) -> bool:
    """Whether a module holds parameters that its class of torch.nn does not know of."""
    if not cls.__module__.startswith("torch.nn."):
        return False
    if not module._modules:
        if _USUAL.issuperset(module._parameters):
            return False
        return any(p is not None and name not in _USUAL for name, p in module._parameters.items())
    return any(name not in _USUAL for name, _ in module.named_parameters())


def _register(
    table: dict[type[nn.Module], Any], classes: tuple[type[nn.Module], ...], checked: Callable[[Any], Any]
) -> Callable[[Rule], Rule]:
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise RegistryError(
                f"rule: expected torch.nn.Module classes, got {cls!r}. Pass the class, not an instance."
            )
        if cls in table:
            raise RegistryError(
                f"rule: {cls.__qualname__} has a rule already ({table[cls].__module__}.{table[cls].__qualname__}). "
                "Subclass the module and register the subclass instead."
            )

    def add(function: Rule) -> Rule:
        _check_arguments(function)
        served = checked(function)
        for cls in classes:
            table[cls] = served
        _served.cache_clear()
        return function

    return add


def _check_arguments(function: Callable[..., Any]) -> None:
    """Raise unless a rule can be called with a module and a batch."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # it has none that Python knows
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise RegistryError(
            f"rule: {function.__qualname__}{signature} is to be called with (module, x): {error}."
        ) from None


def _checked(function: InputRule) -> InputRule:
    """The rule, which must return a value and its Jacobian; our own do, by their annotations."""
    if function.__module__.startswith(_OURS):
        return function

    @wraps(function)
    def served(module: Any, x: Tensor) -> tuple[Tensor, Jacobian]:
        found = function(module, x)
        # the classes themselves are looked at, as isinstance of an abstract one takes as long as a small layer
        if (
            isinstance(found, tuple)
            and len(found) == 2
            and isinstance(found[0], Tensor)
            and Jacobian in type(found[1]).__mro__
        ):
            return found
        names = [type(part).__name__ for part in found] if isinstance(found, tuple) else None
        got = type(found).__name__ if names is None else f"({', '.join(names)})"
        raise RegistryError(
            f"rule: {function.__qualname__} returned {got} for {type(module).__name__}, expected (y, J): the value, a "
            "tensor, and its derivative as a kind of pullgeo.jacobian, such as Elementwise(derivative, curvature)."
        )

    return served


def _checked_weight(function: WeightRule) -> WeightRule:
    """The rule, which must return a Jacobian; our own do."""
    if function.__module__.startswith(_OURS):
        return function

    @wraps(function)
    def served(module: Any, x: Tensor) -> Jacobian:
        J = function(module, x)
        if isinstance(J, Jacobian):
            return J
        raise RegistryError(
            f"weight_rule: {function.__qualname__} returned {type(J).__name__} for {type(module).__name__}, expected "
            "the derivative alone, as a kind of pullgeo.jacobian on weights, such as BroadcastWeight."
        )

    return served
