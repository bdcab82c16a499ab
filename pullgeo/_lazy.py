"""Names of a package that need care: imported when they are first used, or renamed."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package, as PEP 562 has them.

    Args:
        package: its name, ``__name__``.
        names: the module that defines each name; a name that is a module of the package itself stands for that module.

    Example:
        >>> from pullgeo._lazy import lazy
        >>> getattribute, directory = lazy("pullgeo", {"linearize": "pullgeo.jacobian.linearize"})
        >>> getattribute("linearize").__module__
        'pullgeo.jacobian.linearize'
    """

    def getattribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(names[name])
        return module if names[name] == f"{package}.{name}" else getattr(module, name)

    def directory() -> list[str]:
        return sorted(names)

    return getattribute, directory


def renamed(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """``__getattr__`` of a package, some of whose names had other names one release ago.

    Args:
        package: its name, ``__name__``.
        names: the new name for each old one.
    """

    def getattribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        warnings.warn(f"{package}.{name} is now called {names[name]}.", DeprecationWarning, stacklevel=2)
        return getattr(import_module(package), names[name])

    return getattribute
