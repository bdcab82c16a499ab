"""Threads that solve for several clients."""

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait

import pytest
import torch

from pullgeo.app.pool import Pool
from pullgeo.errors import OptionError

PATIENCE = 30
"""Seconds after which a test has failed; nothing here takes so long."""


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What tasks of a test wait for; opened at its end, so that no thread is left."""
    event = threading.Event()
    yield event
    event.set()


def done(text: str = "done") -> dict:
    return {"status": "CONVERGED", "text": text}


def waiting(gate: threading.Event, begun: threading.Event | None = None) -> Callable[[], dict]:
    """Waits in one call, as a decoder does that hangs in C: no exception reaches it."""

    def task() -> dict:
        if begun is not None:
            begun.set()
        gate.wait()
        return done()

    return task


def spinning(seen: list[str], begun: threading.Event) -> Callable[[], dict]:
    """Runs Python code for ever, as a search does that does not end."""

    def task() -> dict:
        begun.set()
        try:
            while True:
                time.sleep(0.001)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    return task


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_answers_come_from_threads_of_their_own():
    pool = Pool()
    names = [pool.submit(str(i), lambda: done(threading.current_thread().name)) for i in range(7)]
    assert {name.result(PATIENCE)["text"] for name in names} == {"pullgeo-solve"}
    assert pool.submit("a", lambda: done(str(torch.get_num_threads()))).result(PATIENCE)["text"] == "1"
    pool.close()


def test_clients_take_turns_however_often_one_asks(gate):
    pool, begun, order = Pool(threads=1), threading.Event(), []
    pool.submit("first", waiting(gate, begun))
    begun.wait(PATIENCE)

    def noted(name: str) -> Callable[[], dict]:
        return lambda: order.append(name) or done()

    asked = [pool.submit("eager", noted("eager 0")), pool.submit("b", noted("b")), pool.submit("c", noted("c"))]
    asked += [pool.submit("eager", noted(f"eager {i}")) for i in range(1, 5)]
    assert pool.load == {"waiting": 3, "running": 1, "stuck": 0}
    gate.set()
    wait(asked, PATIENCE)
    assert order == ["eager 4", "b", "c"]
    assert [a.result()["status"] for a in asked] == ["SUPERSEDED"] + ["CONVERGED"] * 2 + ["SUPERSEDED"] * 3 + [
        "CONVERGED"
    ]
    pool.close()


def test_a_newer_request_stops_the_one_that_runs():
    pool, begun, seen = Pool(threads=1), threading.Event(), []
    older = pool.submit("a", spinning(seen, begun))
    begun.wait(PATIENCE)
    newer = pool.submit("a", done)
    assert older.result(PATIENCE)["status"] == "SUPERSEDED"
    assert newer.result(PATIENCE)["text"] == "done"
    assert seen == ["Interrupted"]
    assert pool.load == {"waiting": 0, "running": 0, "stuck": 0}
    pool.close()


def test_what_takes_too_long_is_stopped_and_told():
    pool, begun, seen = Pool(threads=1, limit=0.05), threading.Event(), []
    answer = pool.submit("a", spinning(seen, begun)).result(PATIENCE)
    assert answer["status"] == "TIMEOUT"
    assert "0.05 s" in answer["text"]
    until(lambda: pool.load["stuck"] == 0)
    assert seen == ["Interrupted"]
    assert pool.submit("a", done).result(PATIENCE)["text"] == "done"
    pool.close()


def test_imports_are_not_interrupted(tmp_path, monkeypatch):
    """What is left of half an import may break all that follow."""
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nfor _ in range(300):\n    time.sleep(0.001)\nwhole = True"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_to_import", raising=False)
    pool, seen = Pool(threads=1, limit=0.05), []

    def task() -> dict:
        import slow_to_import

        seen.append(slow_to_import.whole)
        while True:
            time.sleep(0.001)

    assert pool.submit("a", task).result(PATIENCE)["status"] == "TIMEOUT"
    until(lambda: pool.load["stuck"] == 0)
    assert seen == [True]
    pool.close()


def test_what_cannot_be_stopped_does_not_hold_up_others_until_too_much_of_it_hangs(gate):
    pool = Pool(threads=2, limit=0.05, stuck=3)
    for i in range(3):
        assert pool.submit(f"hanging {i}", waiting(gate)).result(PATIENCE)["status"] == "TIMEOUT"
        if i < 2:
            assert pool.submit("other", done).result(PATIENCE)["text"] == "done"
    until(lambda: pool.load["stuck"] == 3)
    refused = pool.submit("other", done).result(PATIENCE)
    assert refused["status"] == "BUSY"
    assert "3 calls" in refused["text"]
    gate.set()
    until(lambda: pool.load["stuck"] == 0)
    assert pool.submit("other", done).result(PATIENCE)["text"] == "done"
    pool.close()


def test_a_hanging_client_that_keeps_asking_holds_one_thread_alone(gate):
    pool, begun = Pool(threads=2, limit=60), threading.Event()
    asked = [pool.submit("hanging", waiting(gate, begun))]
    begun.wait(PATIENCE)
    asked += [pool.submit("hanging", waiting(gate)) for _ in range(20)]
    assert pool.load == {"waiting": 1, "running": 1, "stuck": 0}
    assert [a.result(PATIENCE)["status"] for a in asked[:-1]] == ["SUPERSEDED"] * 20
    assert pool.submit("other", done).result(PATIENCE)["text"] == "done"
    pool.close()


def test_no_more_wait_than_may(gate):
    pool, begun = Pool(threads=1, waiting=5), threading.Event()
    pool.submit("running", waiting(gate, begun))
    begun.wait(PATIENCE)
    asked = [pool.submit(str(i), done) for i in range(100)]
    assert pool.load["waiting"] == 5
    assert [a.result(PATIENCE)["status"] for a in asked[5:]] == ["BUSY"] * 95
    again = pool.submit("2", done)  # who waits already may ask anew
    gate.set()
    assert again.result(PATIENCE)["status"] == "CONVERGED"
    pool.close()


def test_nothing_is_kept_of_those_who_were_answered():
    pool = Pool(threads=2)
    kept = [pool.submit(f"{i}", done) for i in range(500)]
    wait(kept, PATIENCE)
    until(lambda: pool.load["running"] == 0)
    del kept
    gc.collect()
    jobs = [o for o in gc.get_objects() if type(o).__name__ == "_Job" and o.client.isdecimal()]
    assert len(jobs) <= 2  # the last of each thread
    pool.close()


def test_all_are_answered_when_it_closes(gate):
    pool, begun, seen = Pool(threads=2), threading.Event(), []
    asked = [pool.submit("a", spinning(seen, begun))]
    begun.wait(PATIENCE)
    asked += [pool.submit(name, waiting(gate)) for name in "bcd"]
    pool.close()
    assert [a.result(PATIENCE)["status"] for a in asked] == ["CLOSED"] * 4
    assert pool.submit("e", done).result()["status"] == "CLOSED"
    assert seen == ["Interrupted"]


@pytest.mark.parametrize(
    "options", [{"threads": 0}, {"limit": 0.0}, {"limit": float("nan")}, {"limit": float("inf")}, {"waiting": 0}]
)
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match="positive"):
        Pool(**options)


def test_interrupts_that_meet_the_end_of_a_solve_hold_up_nobody():
    """Each solve ends about when it is superseded: an exception may then come while a thread takes the pool's lock."""
    pool = Pool(threads=2, limit=60)
    asked = []
    for i in range(3000):
        asked.append(pool.submit(str(i % 2), lambda: [None for _ in range(300)] and done()))
        if i % 3 == 0:
            time.sleep(0.0001)
    assert not wait(asked, PATIENCE).not_done
    assert pool.submit("last", done).result(PATIENCE)["text"] == "done"
    pool.close()
