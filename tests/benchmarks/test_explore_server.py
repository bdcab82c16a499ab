"""The server beside the map: four clients that drag at once, how long they wait, and what they leave in memory."""

import itertools
import json
import threading
import time
from pathlib import Path

import numpy as np

from tests.app.running import Running, start

SECONDS = 60
CLIENTS = 4


def drag(running: Running, name: str, until: float, took: list[float], statuses: dict[str, int]) -> None:
    for i in itertools.count():
        if time.monotonic() > until:
            return
        began = time.monotonic()
        ends = {"a": [0, 0], "b": [1 + 0.5 * np.sin(i / 10), 0.5 * np.cos(i / 7)]}
        _, answer = running.ask({"client": name, "kind": "geodesic", **ends})
        took.append(time.monotonic() - began)
        statuses[answer["status"]] = statuses.get(answer["status"], 0) + 1


def test_four_clients_for_a_minute(tmp_path: Path) -> None:
    running = start(tmp_path, 60)
    try:
        memory = []
        took: list[float] = []
        statuses: dict[str, int] = {}
        for _ in range(2):
            until = time.monotonic() + SECONDS / 2
            threads = [
                threading.Thread(target=drag, args=(running, str(k), until, took, statuses)) for k in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            memory.append(running.memory)
    finally:
        running.process.kill()
        running.process.communicate()
    found = {
        "answers": len(took),
        "per second": round(len(took) / SECONDS, 1),
        "median ms": round(1e3 * float(np.median(took))),
        "95 % ms": round(1e3 * float(np.quantile(took, 0.95))),
        "statuses": statuses,
        "memory growth in the second half, MB": round((memory[1] - memory[0]) / 1e6, 2),
    }
    print(json.dumps(found))
    assert set(statuses) == {"CONVERGED"}
