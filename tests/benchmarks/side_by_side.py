"""Time contenders in one process, in turns, and report ratios of medians."""

import time
from collections.abc import Callable
from statistics import median


def medians(contenders: dict[str, Callable[[], object]], rounds: int = 21, warmup: int = 2) -> dict[str, float]:
    """Median seconds of CPU time of each contender, in one thread.

    They take turns, and time in which the machine does something else does not count.
    """
    for run in contenders.values():
        for _ in range(warmup):
            run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: median(values) for name, values in times.items()}


def show(title: str, rows: list[dict[str, object]]) -> None:
    """Print a table; numbers with three digits."""
    print(f"\n{title}")
    columns = list(rows[0])
    cells = [[f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
