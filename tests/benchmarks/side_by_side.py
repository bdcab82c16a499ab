"""Time contenders in one process, in turns, report ratios, and keep what the page of benchmarks shows.

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
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from pullgeo import __version__

RESULTS = Path(__file__).parent / "results"
"""One file for each table."""

KEEP = "PULLGEO_KEEP_BENCHMARKS"
"""The variable that lets tables be kept."""

DIGITS = 3
"""Of numbers that are kept."""


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
    test = os.environ["PYTEST_CURRENT_TEST"].split("::")[0]
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
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
