"""Progress bars, which calls show when they are asked for one: the one place that makes them.

A call with ``progress=True`` opens one bar. What it does in rounds or parts of its own it counts by `advance`.
Iterative methods below it, whoever calls them, say `stepped` once for each iteration, which keeps the bar alive where
nobody knows how many are to come. Calls inside it that were not asked for a bar of their own open none.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

STEP = "step"
"""The unit of bars that count the iterations of methods."""

EVERY = 0.1
"""Seconds between two pictures of a bar."""


@dataclass
class _Bar:
    """A bar on the screen, how many iterations it has seen, and when to show them next."""

    shown: Any
    unit: str
    steps: int = 0
    due: float = 0.0


_INNERMOST: ContextVar[_Bar | None] = ContextVar("pullgeo_innermost_bar", default=None)
"""The bar of the call that runs, ``None`` if it shows none. Threads of a pool begin without one."""

_VISIBLE: ContextVar[_Bar | None] = ContextVar("pullgeo_visible_bar", default=None)
"""The last bar that was opened and is not closed yet."""


@contextmanager
def progress_bar(
    where: str, progress: bool, *, unit: str = STEP, total: int | None = None, done: int = 0
) -> Iterator[None]:
    """A bar, if ``progress``, for as long as the context lasts; it is closed however that ends.

    Args:
        where: the name of the call.
        progress: whether to show it.
        unit: what it counts; iterations of methods if that is ``STEP``.
        total: how many of these there will be, if that is known.
        done: how many were done before.

    Example:
        >>> with progress_bar("example", False, unit="pair", total=3):
        ...     advance(3)
    """
    if not progress:
        muted = _INNERMOST.set(None)
        try:
            yield
        finally:
            _INNERMOST.reset(muted)
        return
    from tqdm.auto import tqdm  # it imports asyncio, which nobody needs who wants no bar

    with tqdm(desc=where, unit=unit, total=total, initial=done, mininterval=EVERY, miniters=1) as shown:
        bar = _Bar(shown, unit)
        innermost, visible = _INNERMOST.set(bar), _VISIBLE.set(bar)
        try:
            yield
        finally:
            _VISIBLE.reset(visible)
            _INNERMOST.reset(innermost)


def with_progress(unit: str = STEP, total: int | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator for functions with a keyword ``progress``, whose body then runs under a `progress_bar`.

    Args:
        unit: what the bar counts.
        total: how many, if that is always the same.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with progress_bar(function.__qualname__, bool(kwargs.get("progress", False)), unit=unit, total=total):
                return function(*args, **kwargs)

        return call

    return decorate


def advance(count: int = 1) -> None:
    """So many units of the call that runs are done."""
    bar = _INNERMOST.get()
    if bar is not None:
        bar.shown.update(count)


def stepped(left: int | None = None) -> None:
    """An iterative method has taken one step.

    Args:
        left: with how many problems it goes on, if there may be several.
    """
    bar = _VISIBLE.get()
    if bar is None:
        return
    bar.steps += 1
    if bar.unit == STEP:
        if left is not None:
            bar.shown.set_postfix_str(f"{left} in work", refresh=False)
        bar.shown.update(1)
    else:
        bar.shown.set_postfix_str(f"{bar.steps} steps", refresh=False)
        if monotonic() > bar.due:
            bar.shown.refresh()
            bar.due = monotonic() + EVERY


def counted(parts: Iterable[T]) -> Iterator[T]:
    """The parts of a long batch, each of which is a step."""
    for part in parts:
        yield part
        stepped()
