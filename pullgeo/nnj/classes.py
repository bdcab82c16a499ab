"""How a module class gets its Jacobian products."""

import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import fx, nn
from torch.nn.utils import parametrize

from pullgeo.errors import ModuleError
from pullgeo.nnj.module import Module, forward_of

AnyModule = TypeVar("AnyModule", bound=nn.Module)

_ours: dict[type[nn.Module], type[nn.Module]] = {}


def with_products(cls: type[AnyModule]) -> type[AnyModule]:
    """A class decorator: the same module class, with the Jacobian products of `pullgeo.nnj.Module` as methods.

    Args:
        cls: a module class that computes something; constructor, parameters and ``state_dict`` keys stay as they are.

    Returns:
        A subclass of `pullgeo.nnj.Module` and of ``cls``, under the same name.

    Raises:
        ModuleError: the class has no ``forward``, or its methods bear the names of the products.

    Example:
        >>> import torch
        >>> @with_products
        ... class Doubled(torch.nn.Linear):
        ...     def forward(self, x):
        ...         return 2 * super().forward(x)
        >>> Doubled(3, 5).jTmjp(torch.zeros(7, 3)).shape
        torch.Size([7, 3, 3])
    """
    if not computes(cls):
        raise ModuleError(f"with_products: {cls.__qualname__} has no forward, so there is nothing to differentiate.")
    taken = sorted(own_names(cls))
    if taken:
        raise ModuleError(
            f"with_products: {cls.__qualname__} has its own {', '.join(taken)}. Rename them, or use the functions in "
            "pullgeo.nnj.products."
        )
    return cast(type[AnyModule], _subclass(cls, cls.__module__, {"__doc__": cls.__doc__}))


def torch_class(cls: type[nn.Module], module: str) -> type[nn.Module]:
    """The class of ours for a class of torch.nn, remembered so that conversion finds it."""
    doc = (
        f"`torch.nn.{cls.__name__}` with Jacobian products.\n\n    Constructor, parameters, ``state_dict`` keys and "
        "``forward`` are those of the torch class;\n    the products are those of `pullgeo.nnj.Module`.\n    "
    )
    return remembered(cls, _subclass(cls, module, {"__doc__": doc}))


def remembered(cls: type[nn.Module], ours: type[nn.Module]) -> type[nn.Module]:
    """``ours``, which conversion takes for instances of ``cls`` from now on."""
    _ours[cls] = ours
    return ours


def class_for(cls: type[nn.Module]) -> type[nn.Module]:
    """The class with products that instances of ``cls`` get when they are converted; ``cls`` itself if it has them."""
    if _belongs_to_one_instance(cls):
        return _same_over(class_for(cls.__bases__[0]), cls)
    if issubclass(cls, Module):
        return cls
    if cls in _ours:
        return _ours[cls]
    made = [c for c in cls.__subclasses__() if vars(c).get("_converted_from") is cls]
    return made[0] if made else _converted_class(cls)


def computes(cls: type[nn.Module]) -> bool:
    """Whether the class states a ``forward``, unlike containers of modules."""
    return cls.forward is not nn.Module.forward


def own_names(cls: type[nn.Module]) -> set[str]:
    """Names of products that the class uses for something else."""
    return {name for name in PRODUCT_NAMES if hasattr(cls, name)}


PRODUCT_NAMES = frozenset(vars(Module)) - frozenset(vars(nn.Module)) - {"forward_is_transparent", "__deepcopy__"}
"""Every attribute that `pullgeo.nnj.Module` adds."""


def _subclass(cls: type[nn.Module], module: str, body: dict[str, Any]) -> type[nn.Module]:
    forward = {"forward": forward_of(cls), "forward_is_transparent": True}
    body = {"__module__": module, "__qualname__": cls.__qualname__, **forward, **body}
    return types.new_class(cls.__name__, (Module, cls), exec_body=lambda namespace: namespace.update(body))


def _converted_class(cls: type[nn.Module]) -> type[nn.Module]:
    """A class with products for a user's class; what that class defines under the products' names stays in force."""

    def reduce_ex(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        build, arguments, *state = cast(tuple[Any, ...], super(made, self).__reduce_ex__(protocol))
        # this class cannot be imported by name: pickle what it was made from
        original = tuple(cls if argument is type(self) else argument for argument in arguments)
        return (_rebuild, (build, original), *state)

    body = {"__doc__": cls.__doc__, "_converted_from": cls, "__reduce_ex__": reduce_ex}
    made = _subclass(cls, cls.__module__, body | {name: getattr(cls, name) for name in own_names(cls)})
    return made


def _rebuild(build: Callable[..., nn.Module], arguments: tuple[Any, ...]) -> nn.Module:
    module = build(*arguments)
    module.__class__ = class_for(type(module))
    return module


def _belongs_to_one_instance(cls: type[nn.Module]) -> bool:
    """Whether torch made the class for a single module: a parametrized one, or a traced graph."""
    parametrized = cls.__module__ == parametrize.__name__ and cls.__name__.startswith("Parametrized")
    return parametrized or (issubclass(cls, fx.GraphModule) and cls.__qualname__.endswith("GraphModuleImpl"))


def _same_over(base: type[nn.Module], cls: type[nn.Module]) -> type[nn.Module]:
    """The class anew on another base: torch expects to find there the class that it started from."""
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    body |= {"__qualname__": cls.__qualname__}
    made: Any = types.new_class(cls.__name__, (base,), exec_body=lambda namespace: namespace.update(body))
    if "_wrapped_call" in body:  # a graph's call, which refers to its class
        call = body["_wrapped_call"]
        made._wrapped_call = type(call)(made, call.cls_call)
    return cast(type[nn.Module], made)
