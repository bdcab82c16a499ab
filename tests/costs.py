"""What an operation costs, in counts that come out the same at every run: for tests that guard against slow code."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import FrameType
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pullgeo import PullbackManifold
from pullgeo.manifold import pullback
from pullgeo.numerics.banded.ldl import SideBySide

FACTORISATIONS = frozenset(
    f"{name}.default"
    for name in (
        "linalg_cholesky_ex",
        "cholesky",
        "linalg_ldl_factor_ex",
        "linalg_lu_factor_ex",
        "_linalg_solve_ex",
        "linalg_inv_ex",
        "linalg_qr",
        "_linalg_eigh",
        "_linalg_svd",
        "linalg_lstsq",
    )
)
"""Torch's kernels that factorise matrices."""

TESTED_TORCH = "2.13."
"""Of which the counts of calls and kernels are known: others do the same work by other functions."""


@dataclass(frozen=True)
class Cost:
    """What an operation took.

    Attributes:
        passes: calls of a pulled-back manifold's decoder, with or without derivatives.
        points: latents that went through the decoder in all of them.
        expansions: those of the passes that were made for derivatives.
        connections: calls of a pulled-back manifold's connection.
        factorisations: calls of a kernel that factorises matrices, however many at a time.
        kernels: calls of any of torch's kernels.
        calls: calls of Python functions, torch's included.
    """

    passes: int
    points: int
    expansions: int
    connections: int
    factorisations: int
    kernels: int
    calls: int

    def over(self, limit: "Cost", margin: float = 0.12) -> dict[str, tuple[int, int]]:
        """What is more than it may be: the count and the bound.

        Args:
            limit: the counts that are known; of calls and kernels, on the tested release of torch.
            margin: by how much calls and kernels may exceed theirs, as they are not quite the same everywhere. The
                others must not.
        """
        loose = ("kernels", "calls")
        counted = [f.name for f in fields(self) if f.name not in loose or comparable()]
        bounds = {
            name: int(getattr(limit, name) * (1 + margin)) if name in loose else getattr(limit, name)
            for name in counted
        }
        return {name: (getattr(self, name), most) for name, most in bounds.items() if getattr(self, name) > most}


def comparable() -> bool:
    """Whether calls and kernels are those of the tested release, without checks of annotations in between."""
    return torch.__version__.startswith(TESTED_TORCH) and not hasattr(PullbackManifold.connection, "__wrapped__")


def cost_of(run: Callable[[], object]) -> Cost:
    """What an operation costs when it is called the third time: what is loaded or found out on first use is not in it.

    Args:
        run: the operation, which does the same every time.
    """
    run()
    with _watching() as seen, _Kernels(seen):
        run()
    return Cost(**seen, calls=calls_of(run))


def calls_of(run: Callable[[], object]) -> int:
    """Calls of Python functions, and resumptions of generators, while an operation runs."""
    count = 0

    def seen(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


@contextmanager
def _watching() -> Iterator[dict[str, int]]:
    """Counts of what passes through the package's own functions."""
    seen = {name.name: 0 for name in fields(Cost) if name.name != "calls"}

    def counted(function: Callable[..., Any], place: int, *names: str) -> Callable[..., Any]:
        def watched(*args: Any, **named: Any) -> Any:
            for name in names:
                seen[name] += 1
            if "passes" in names:
                seen["points"] += len(args[place])
            return function(*args, **named)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, place, names in (
            (PullbackManifold, "_value", 1, ("passes",)),
            (pullback, "linearize", 1, ("passes", "expansions")),
            (pullback, "linearize_again", 1, ("passes", "expansions")),
            (PullbackManifold, "connection", 1, ("connections",)),
            (SideBySide, "of", 0, ("factorisations",)),
        ):
            watched = counted(getattr(owner, name), place, *names)
            patch.setattr(owner, name, staticmethod(watched) if owner is SideBySide else watched)
        yield seen


class _Kernels(TorchDispatchMode):
    """Counts torch's kernels, and those among them that factorise."""

    def __init__(self, seen: dict[str, int]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.seen["kernels"] += 1
        self.seen["factorisations"] += func.__name__ in FACTORISATIONS
        return func(*args, **(kwargs or {}))
