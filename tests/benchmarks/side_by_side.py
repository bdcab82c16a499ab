"""Time contenders in one process, in turns, report ratios with spread, and keep what the page of benchmarks shows.

A benchmark prints its table by `show`. With a name, and ``PULLGEO_KEEP_BENCHMARKS=1`` in the environment, the table is
also kept as ``results/NAME.json``, from which ``docs/benchmarks.py`` makes the page. Kept are counts, and ratios of
times that were measured in one process, with the machine and the versions of all packages that took part; not seconds.
"""

import json
import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

import torch

from pullgeo import __version__

T = TypeVar("T")

RESULTS = Path(__file__).parent / "results"
"""One file for each table."""

KEEP = "PULLGEO_KEEP_BENCHMARKS"
"""The variable that lets tables be kept."""

DIGITS = 3
"""Of numbers that are kept."""

SHORT = 4e-3
"""Seconds: what takes less is called several times in a turn, so that a turn is longer than the clock's errors."""


BUDGET = 6.0
"""Seconds for one comparison."""


@dataclass(frozen=True)
class Spread:
    """A median with both quartiles, and of how many turns."""

    median: float
    low: float
    high: float
    turns: int

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return Spread(values[0], values[0], values[0], 1)
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return Spread(middle, low, high, len(values))

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


def middle(value: object) -> float:
    """The median of a cell that a benchmark bounds."""
    assert isinstance(value, Spread)
    return value.median


@dataclass(frozen=True)
class Turns:
    """Seconds of CPU time of each contender in each turn."""

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """The median seconds of one."""
        return median(self.seconds[name])

    def ratio(self, name: str, to: str, scale: float = 1.0) -> Spread:
        """``scale`` times what one takes over what the other takes, turn by turn.

        Both are taken from the same turn, in which the machine is as busy for one as for the other.
        """
        return Spread.of([scale * a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True)])

    def best(self, names: Iterable[str]) -> str:
        """The one with the least median."""
        return min(names, key=self.__getitem__)


def turns(contenders: dict[str, Callable[[], object]], rounds: int = 21, warmup: int = 2) -> Turns:
    """CPU time of each contender, in one thread.

    They take turns, each round in the opposite order, and time in which the machine does something else does not count.
    Rounds are fewer, down to three, where all would take more than `BUDGET` seconds, as the warm-up tells.
    """
    number, whole = {}, 0.0
    for name, run in contenders.items():
        spent = [timed(run)[1] for _ in range(warmup)]
        number[name] = max(1, math.ceil(SHORT / spent[-1])) if spent else 1
        whole += number[name] * spent[-1] if spent else 0
    if whole > 0:
        rounds = max(min(rounds, 3), min(rounds, int(BUDGET / whole)))
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in contenders if i % 2 == 0 else reversed(contenders):
            run = contenders[name]
            start = time.process_time()
            for _ in range(number[name]):
                run()
            seconds[name].append((time.process_time() - start) / number[name])
    return Turns(seconds)


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and the seconds of CPU time that it takes."""
    start = time.process_time()
    found = run()
    return found, time.process_time() - start


def show(
    title: str, rows: list[dict[str, object]], name: str | None = None, *, packages: Sequence[str] = (), note: str = ""
) -> None:
    """Print a table; numbers with three digits.

    Args:
        title: above it.
        rows: with the same columns.
        name: under which it is kept for the page, letters, digits and hyphens; it is not if ``None``.
        packages: that took part besides torch, by the names under which they are installed.
        note: plain text for the page: what was measured, and how.
    """
    print(f"\n{title}")
    columns = list(rows[0])
    cells = [[f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    for line in [columns, *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if name is not None and os.environ.get(KEEP) == "1":
        _keep(name, title, rows, packages, note)


def _keep(name: str, title: str, rows: list[dict[str, object]], packages: Sequence[str], note: str) -> None:
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"a result's name has small letters, digits and hyphens, got {name!r}")
    test = re.split(r"[ \[]", os.environ["PYTEST_CURRENT_TEST"])[0]
    kept = {
        "title": title,
        "note": note,
        "command": f"{KEEP}=1 pytest -n 0 -s {test}",
        "machine": machine(),
        "versions": {"pullgeo": __version__, "torch": torch.__version__, **{one: version(one) for one in packages}},
        "rows": [{column: _short(value) for column, value in row.items()} for row in rows],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def machine() -> str:
    """The processor, how much of it torch uses, and the interpreter."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    processor = found[1].strip() if found else platform.machine()
    threads = torch.get_num_threads()
    return f"{processor}, {threads} thread{'s' * (threads > 1)}, Python {platform.python_version()}"


def _short(value: object) -> object:
    if isinstance(value, Spread):
        return {
            "median": _short(value.median), "low": _short(value.low), "high": _short(value.high), "turns": value.turns
        }  # fmt: skip
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
