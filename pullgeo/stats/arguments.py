"""What statistics ask of arguments that are no points."""

from numbers import Integral, Real
from typing import Any

import torch

from pullgeo.errors import OptionError
from pullgeo.manifold.base import Manifold


def check_manifold(where: str, manifold: Any) -> None:
    """Raise `OptionError` unless it is a manifold."""
    if not isinstance(manifold, Manifold):
        got = f"the class {manifold.__name__}" if isinstance(manifold, type) else type(manifold).__name__
        raise OptionError(
            f"{where}: manifold must be a pullgeo Manifold, got {got}. Wrap a decoder: PullbackManifold(decoder)."
        )


def check_count(where: str, name: str, count: Any, least: int = 1, most: int | None = None) -> None:
    """Raise `OptionError` unless a count is a whole number in its range."""
    whole = isinstance(count, Integral) and not isinstance(count, bool)
    if not whole or count < least or (most is not None and count > most):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise OptionError(f"{where}: {name} must be a whole number, {bounds}, got {count!r}.")


def check_tolerance(where: str, tol: Any) -> None:
    """Raise `OptionError` unless a tolerance lies between 0 and 1."""
    if not isinstance(tol, Real) or not 0 < float(tol) < 1:
        raise OptionError(f"{where}: tol must be a number, 0 < tol < 1, got {tol!r}.")


def check_generator(where: str, generator: Any) -> None:
    """Raise `OptionError` unless it is a source of randomness."""
    if not isinstance(generator, torch.Generator):
        raise OptionError(
            f"{where}: generator must be a torch.Generator, got {type(generator).__name__}. A seed is one as "
            "torch.Generator().manual_seed(0)."
        )
