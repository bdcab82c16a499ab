"""Independent tasks, wherever joblib runs them, and a bar that counts what they have done."""

from collections.abc import Iterable, Sequence
from typing import Any

from joblib import Parallel

from pullgeo.numerics.progress import advance, progress_bar


def results(
    where: str, tasks: Iterable[Any], sizes: Sequence[int], *, unit: str, progress: bool, done: int = 0
) -> list[Any]:
    """What tasks return, in their order.

    Args:
        where: the call that waits for them.
        tasks: from `joblib.delayed`.
        sizes: how many units each of them does.
        unit: of what.
        progress: show a bar.
        done: units that were done before.
    """
    if not progress:  # not every backend can hand out results one by one, which a bar needs
        return list(Parallel()(tasks))
    found = []
    with progress_bar(where, progress, unit=unit, total=done + sum(sizes), done=done):
        for size, result in zip(sizes, Parallel(return_as="generator")(tasks), strict=True):
            found.append(result)
            advance(size)
    return found
