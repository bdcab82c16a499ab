"""Threads that solve for several clients at once, each solve within a limit of time.

A decoder may hang, and a thread cannot be ended from outside. It can be sent an exception, which reaches it as soon as
it runs Python code again; until then it is counted as stuck, another thread takes its place, and when too many are
stuck new requests are refused with that reason. Processes, which could be ended, cannot be given a decoder that does
not pickle, nor one that has used a GPU.
"""

import ctypes
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, RLock, Thread, current_thread

import torch

from pullgeo.errors import OptionError
from pullgeo.viz.explore.exact import Answer

Task = Callable[[], Answer]
"""Raises no `Exception`."""


_AGAIN = 0.05
"""Seconds after which is tried again to interrupt a thread that must not be interrupted now."""


class Interrupted(BaseException):
    """Sent into a thread whose work is not wanted any more; no `Exception`, so that solvers do not take it for one."""


@dataclass(eq=False)
class _Job:
    client: str
    task: Task
    limit: float | int
    done: "Future[Answer]" = field(default_factory=Future)
    thread: Thread | None = None
    deadline: float = 0.0
    unwanted: bool = False
    interrupted: bool = False

    def answer(self, found: Answer) -> None:
        """The first answer counts. Called under the pool's lock alone."""
        if not self.done.done():
            self.done.set_result(found)


class Pool:
    """Solves in threads, first come first served among clients.

    A client has one solve running and one waiting at most: a newer request takes the place of the one that waits, and
    stops the one that runs. Nothing is kept of a client that has neither.

    Args:
        threads: solves at the same time, each with one thread of torch.
        limit: seconds that a solve may take.
        waiting: clients that may wait.
        stuck: threads that may hang before requests are refused.

    Raises:
        OptionError: one of them is not positive.

    Example:
        >>> pool = Pool(limit=5)
        >>> pool.submit("me", lambda: {"status": "CONVERGED", "text": "done"}).result()["text"]
        'done'
        >>> pool.close()
        >>> pool.submit("me", dict).result()["status"]
        'CLOSED'
    """

    def __init__(self, threads: int = 2, limit: float | int = 10.0, waiting: int = 64, stuck: int = 8) -> None:
        if min(threads, waiting, stuck) < 1 or not 0 < limit < float("inf"):
            raise OptionError(
                f"Pool: threads, waiting, stuck and limit must be positive and finite, got {threads}, {waiting}, "
                f"{stuck} and {limit}."
            )
        self.limit = limit
        self._threads, self._most_waiting, self._most_stuck = threads, waiting, stuck
        # Taken itself, never through the condition: an exception could come between its Python code and the `with`.
        self._lock = RLock()
        self._change = Condition(self._lock)
        self._waiting: dict[str, _Job] = {}
        self._running: dict[str, _Job] = {}
        self._workers: set[Thread] = set()
        self._stuck: set[Thread] = set()
        self._uninterrupted: list[_Job] = []
        self._closed = False
        with self._lock:
            self._fill()
        Thread(target=self._watch, name="pullgeo-watch", daemon=True).start()

    def submit(self, client: str, task: Task, limit: float | None = None) -> "Future[Answer]":
        """Solve for a client; the future always gets an answer, at once where the request is refused.

        ``limit`` is that of this task alone, in seconds.
        """
        job = _Job(client, task, self.limit if limit is None else limit)
        with self._lock:
            if self._closed:
                job.answer(_said("CLOSED", "the server is shutting down"))
                return job.done
            for older in (self._waiting.get(client), self._running.get(client)):
                if older is not None:
                    older.answer(_said("SUPERSEDED", "a newer request of the same page took its place"))
                    self._unwanted(older)
            if len(self._stuck) >= self._most_stuck:
                self._waiting.pop(client, None)
                job.answer(
                    _said(
                        "BUSY",
                        f"the decoder hangs: {len(self._stuck)} calls of it have not returned, each for more than "
                        f"{self.limit:g} s. Find out why, and restart the server",
                    )
                )
            elif client not in self._waiting and len(self._waiting) >= self._most_waiting:
                job.answer(_said("BUSY", f"{len(self._waiting)} others are waiting; try again in a moment"))
            else:
                self._waiting[client] = job  # in the place of an older one, if there is one
                self._change.notify_all()
        return job.done

    @property
    def load(self) -> dict[str, int]:
        """How many solves wait and run, and how many threads are stuck."""
        with self._lock:
            return {"waiting": len(self._waiting), "running": len(self._running), "stuck": len(self._stuck)}

    def close(self) -> None:
        """Answer everybody, and stop what can be stopped."""
        with self._lock:
            self._closed = True
            for job in (*self._waiting.values(), *self._running.values()):
                job.answer(_said("CLOSED", "the server is shutting down"))
                self._unwanted(job)
            self._waiting.clear()
            workers = list(self._workers)
            self._change.notify_all()
        for worker in workers:
            worker.join(timeout=1)

    def _fill(self) -> None:
        """Start threads until there are enough. The lock is held."""
        while len(self._workers) < self._threads and not self._closed:
            worker = Thread(target=self._work, name="pullgeo-solve", daemon=True)
            self._workers.add(worker)
            worker.start()

    def _work(self) -> None:
        torch.set_num_threads(1)
        try:
            # A thread that was interrupted is replaced: torch keeps states of its own for each thread, and an exception
            # may have come between two of them.
            while (job := self._next()) is not None and self._finish(job, job.task()):
                pass
        except Interrupted:
            # It may have come just after the lock was taken; what is not held cannot be released.
            with suppress(RuntimeError):
                while True:
                    self._lock.release()
        finally:
            self._leave()

    def _next(self) -> _Job | None:
        with self._lock:
            while not self._closed:
                for client, job in self._waiting.items():
                    if client not in self._running:
                        del self._waiting[client]
                        self._running[client] = job
                        job.thread, job.deadline = current_thread(), time.monotonic() + job.limit
                        self._change.notify_all()
                        return job
                self._change.wait()
        return None

    def _finish(self, job: _Job, found: Answer) -> bool:
        """Whether the thread may go on."""
        with self._lock:
            job.answer(found)
            self._forget(job)
            if job in self._uninterrupted:
                self._uninterrupted.remove(job)
            if job.interrupted:
                _send(current_thread(), None)
            self._change.notify_all()
            return not job.interrupted

    def _leave(self) -> None:
        me = current_thread()
        with self._lock:
            self._workers.discard(me)
            self._stuck.discard(me)
            for job in [job for job in self._running.values() if job.thread is me]:
                job.answer(_said("FAILED", "the solve was interrupted"))
                self._forget(job)
            self._uninterrupted = [job for job in self._uninterrupted if job.thread is not me]
            self._fill()
            self._change.notify_all()

    def _forget(self, job: _Job) -> None:
        if self._running.get(job.client) is job:
            del self._running[job.client]

    def _unwanted(self, job: _Job) -> None:
        """Have a job that runs interrupted, once at most and never after it has finished. The lock is held."""
        if job.thread is not None and not job.unwanted:
            job.unwanted = True
            self._uninterrupted.append(job)
            self._change.notify_all()

    def _interrupt(self) -> None:
        """Interrupt what is unwanted. The lock is held."""
        for job in list(self._uninterrupted):
            if job.thread is not None and not _imports(job.thread):
                self._uninterrupted.remove(job)
                job.interrupted = True
                _send(job.thread, Interrupted)

    def _watch(self) -> None:
        """Give up what takes longer than the limit."""
        with self._lock:
            while not self._closed:
                now = time.monotonic()
                for job in [job for job in self._running.values() if job.deadline <= now]:
                    job.answer(
                        _said(
                            "TIMEOUT",
                            f"not solved within {job.limit:g} s, and given up: the decoder hangs or is slow, or the "
                            "search is long. --time-limit allows for more",
                        )
                    )
                    self._unwanted(job)
                    self._forget(job)
                    if job.thread in self._workers:
                        self._workers.remove(job.thread)
                        self._stuck.add(job.thread)
                    self._fill()
                    self._change.notify_all()
                self._interrupt()
                times = [job.deadline for job in self._running.values()]
                times += [now + _AGAIN] if self._uninterrupted else []
                self._change.wait(max(0.0, min(times) - now) if times else None)
            # the last chance of those that run when it closes
            self._interrupt()


def _imports(thread: Thread) -> bool:
    """Whether a thread imports a module: torch imports some at their first use, and half of one breaks the process."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _send(thread: Thread, error: type[BaseException] | None) -> None:
    """Have a thread raise an error at its next step of Python code; ``None`` takes one back that has not come yet."""
    if thread.ident is not None:
        sent = None if error is None else ctypes.py_object(error)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), sent)


def _said(status: str, text: str) -> Answer:
    return {"converged": False, "status": status, "text": text}
