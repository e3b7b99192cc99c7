"""The engine behind every way to reach it: a queue, one worker, a pulse, and answers that never wait for work."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING, Any

from geoalign_core.engine.job import Job
from geoalign_core.engine.protocol import INSTANT, Failure, Request

if TYPE_CHECKING:
    from geoalign_core.engine.job import Send
    from geoalign_core.engine.memory import Watch
    from geoalign_core.engine.places import Places

HEARTBEAT_S = 2.0
MAX_WAITING = 100


class Engine:
    """Takes requests from any thread, does the long ones one after the other.

    Nothing heavy is loaded before the first job.

    Args:
        max_windows: Larger indexes are refused.
        places: Which paths a client may name.
        memory: What stops jobs that take too much memory, if anything.
        shared: Whether the engine serves several clients, of whom none may end it.
    """

    def __init__(self, *, max_windows: int, places: Places, memory: Watch | None = None, shared: bool = False) -> None:
        self.max_windows, self._shared = max_windows, shared
        self.memory = memory
        self.stopping = threading.Event()
        self._places = places
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._jobs: dict[tuple[str, int], Job] = {}
        self._doer: Any = None  # Jobs, which is made with the first job
        self._lock = threading.Lock()
        self._worker = threading.Thread(target=self._work, name="geoalign-worker", daemon=True)
        self._pulse = threading.Thread(target=self._beat, name="geoalign-pulse", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._worker.start()
        self._pulse.start()
        if self.memory is not None:
            self.memory.start(self._too_much)

    def hello(self) -> dict[str, Any]:
        """Return what a client is told first."""
        from geoalign_core.engine.facts import hello

        limit = None if self.memory is None else self.memory.limit_bytes
        return hello(max_windows=self.max_windows, memory_bytes=limit)

    def submit(self, request: Request, send: Send, channel: str = "") -> None:
        """Answer a request, now or when its turn comes.

        Args:
            request: What was asked.
            send: Takes (id, type, fields) to the client, from any thread.
            channel: Whose ids these are.
        """
        if request.op in INSTANT:
            self._instantly(request, send, channel)
            return
        job = Job(request, send, channel)
        with self._lock:
            key = channel, request.id
            taken = key in self._jobs and not self._jobs[key].ended
            if taken:
                failure = Failure("bad_request", f"id {request.id} is still in use", remedy="count requests upwards")
            elif len(self._jobs) >= MAX_WAITING:
                failure = Failure("bad_request", "too many requests are waiting", remedy="wait", retryable=True)
            else:
                self._jobs[key] = job
                self._queue.put(job)
                return
        # The running job owns the id: an error under it would end that job for the client.
        send(0 if taken else request.id, "error", failure.fields())

    def cancel(self, channel: str, target: int, send: Send | None = None) -> bool:
        """Stop a job: its client has the answer at once, the work ends at its next safe point.

        Args:
            channel: Whose id it is.
            target: The id.
            send: Only a job that was submitted with this one.

        Returns:
            Whether there was such a job and it had not ended.
        """
        from geoalign_core.engine.failures import cancelled

        with self._lock:
            job = self._jobs.get((channel, target))
        return job is not None and (send is None or job.send is send) and job.fail(cancelled())

    def stop(self, timeout_s: float) -> None:
        """Stop all jobs and wait for the worker, but not for long."""
        from geoalign_core.engine.failures import cancelled

        self.stopping.set()
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            with contextlib.suppress(OSError):  # nobody may be listening any more
                job.fail(cancelled())
        self._queue.put(None)
        if self._worker.is_alive():
            self._worker.join(timeout_s)

    def _instantly(self, request: Request, send: Send, channel: str) -> None:
        if request.op == "cancel":
            target = request.args.get("target")
            if not isinstance(target, int) or isinstance(target, bool):
                failure = Failure("bad_request", "args.target is not an id", remedy="name the request to stop")
                send(request.id, "error", failure.fields())
                return
            send(request.id, "result", {"result": {"cancelled": self.cancel(channel, target)}})
            return
        send(request.id, "result", {"result": {}})
        if request.op == "shutdown" and not self._shared:
            self.stopping.set()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.ended and not self.stopping.is_set():
                try:
                    self._do(job)
                except OSError:
                    self.stopping.set()  # the client has gone
            with self._lock:
                key = job.channel, job.request.id
                if self._jobs.get(key) is job:  # the client may have used the id anew
                    del self._jobs[key]

    def _do(self, job: Job) -> None:
        """Do a job: whatever happens becomes an answer, and the worker lives.

        Raises:
            OSError: The answer cannot be sent.
        """
        from geoalign_core.engine.failures import failure_of

        try:
            if self._doer is None:
                self._doer = self._make()
            result = self._doer.run(job)
        except Exception as error:  # noqa: BLE001 - libraries raise anything
            failure = failure_of(error)
            job.fail(failure)
            exceeded = failure.code == "out_of_memory" or (self.memory is not None and self.memory.exceeded())
            if exceeded and self._doer is not None:
                self._doer.session.drop()
            return
        try:
            job.finish(result)
        except (Failure, TypeError, ValueError) as error:  # it fits in no line
            job.fail(failure_of(error))
        self._doer.think_ahead(job)

    def _make(self) -> Any:  # noqa: ANN401 - Jobs
        from geoalign_core.engine.jobs import Jobs
        from geoalign_core.engine.session import Session

        return Jobs(Session(self.max_windows), self._places)

    def _beat(self) -> None:
        while not self.stopping.wait(HEARTBEAT_S):
            with self._lock:
                jobs = list(self._jobs.values())
            for job in jobs:
                with contextlib.suppress(OSError):
                    job.heartbeat()

    def _too_much(self) -> None:
        """End what runs: the memory is gone whoever took it."""
        from geoalign_core.engine.failures import out_of_memory

        with self._lock:
            first = next(iter(self._jobs.values()), None)
        if first is not None:
            first.fail(out_of_memory())
