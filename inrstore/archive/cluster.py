"""Tasks on the workers of a dask.distributed cluster: some at a time, results as they come, progress from all of them.

A worker that dies costs its task only: the scheduler gives it to another one, which begins anew with the image.
Where several workers died with a task on them the scheduler gives it up, guilty or not: all tasks of a worker that
dies count. The images of such tasks wait until the rest is done, and then run one by one with nothing beside them.
"""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeAlias

from inrstore.archive.outcomes import Outcome
from inrstore.archive.plan import Item, Job
from inrstore.archive.run import Done, Task, View
from inrstore.archive.work import run_items
from inrstore.errors import ConfigurationError, MissingDependencyError, StoreError
from inrstore.store.reports import JobProgress

Client: TypeAlias = Any
Future: TypeAlias = Any
"""Of dask.distributed, which need not be installed and has few types."""

CONNECT = "20s"
"""Time to reach a scheduler."""
_PER_THREAD = 2
"""Tasks under way for each thread of the workers: one runs, one is ready."""
_LOOKED_AFTER = 0.5
"""Seconds after which a task whose result was lost is looked at again."""
_LEAST_TASKS = 4
_TOLD_EVERY = 0.5
"""Seconds between two messages of a task."""


@contextmanager
def cluster(scheduler: str | Client | None, workers: int | None) -> Iterator[Cluster]:
    """Give the executor of a cluster.

    Parameters
    ----------
    scheduler : str or Client or None
        Address of a scheduler that runs already, or a client of it.
    workers : int or None
        Or how many processes of this machine to start, with one thread each.

    Raises
    ------
    MissingDependencyError
        Without dask.distributed.
    ConfigurationError
        For both or an impossible number.
    StoreError
        If the scheduler cannot be reached.
    """
    distributed = _distributed()
    if scheduler is not None and workers is not None:
        raise ConfigurationError("give only one of scheduler and workers")
    with ExitStack() as stack:
        if workers is not None:
            if workers < 1:
                raise ConfigurationError(f"workers must be 1 or more, not {workers}")
            local = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0"
            )
            client = stack.enter_context(distributed.Client(stack.enter_context(local)))
        elif isinstance(scheduler, distributed.Client):
            client = scheduler
        else:
            try:
                client = stack.enter_context(distributed.Client(scheduler, timeout=CONNECT))
            except (OSError, ValueError, TimeoutError) as error:
                raise StoreError(f"{scheduler}: no scheduler can be reached: {error}") from error
        yield Cluster(client)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise MissingDependencyError(
            'working on several machines or processes needs dask.distributed: pip install "inrstore[cluster]"'
        ) from error
    return distributed


class Cluster:
    """An executor; see `inrstore.archive.run.Executor`.

    Parameters
    ----------
    client : Client
        Of a scheduler whose workers see source and destination under the same names, and have this package.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = f"inrstore-{secrets.token_hex(8)}"
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._count = 0
        self._pending: dict[int, tuple[Future, Task]] = {}
        self._suspects: deque[Task] = deque()
        self._alone = False
        self._window = _LEAST_TASKS
        self._window_at = -1e9

    def prepared(self, job: Job) -> Job:
        """Return the job for workers: each works on one chunk at a time."""
        return replace(job, rules=replace(job.rules, base=replace(job.rules.base, threads=1)))

    def run(self, job: Job, tasks: Iterator[Task], view: View) -> Iterator[Done]:
        """Yield the outcomes of each item as they come."""
        self._client.subscribe_topic(self._name, self._inbox.put)
        try:
            self._fill(job, tasks)
            while self._pending:
                number = self._next(view)
                if number is not None and self._is_over(number):
                    future, task = self._pending.pop(number)
                    view.forget(number)
                    yield from self._results(job, future, task)
                self._fill(job, tasks)
        finally:
            # A client that has lost its scheduler refuses both, and there is nothing left to be undone.
            with suppress(Exception):
                self._client.unsubscribe_topic(self._name)
                if self._pending:
                    self._client.cancel([future for future, _ in self._pending.values()], force=True)
            self._pending.clear()

    def _fill(self, job: Job, tasks: Iterator[Task]) -> None:
        """Hand out tasks, but not all of them: a job may have millions."""
        now = time.monotonic()
        if now - self._window_at > 2:
            self._window = max(_LEAST_TASKS, _PER_THREAD * sum(self._client.nthreads().values()))
            self._window_at = now
        while len(self._pending) < self._window:
            task = next(tasks, None)
            if task is None:
                break
            self._submit(job, task)
        if not self._pending and self._suspects:
            self._alone = True
            self._submit(job, self._suspects.popleft())

    def _submit(self, job: Job, task: Task) -> None:
        number = self._count
        self._count += 1
        items = [item for _, item in task]
        future = self._client.submit(run_task, job, items, self._name, number, key=f"{self._name}-{number}", pure=False)
        self._pending[number] = future, task
        future.add_done_callback(lambda _: self._inbox.put(number))

    def _is_over(self, number: int) -> bool:
        """Return whether a task that was done still is: its worker may have died with the result."""
        future, _ = self._pending[number]
        if future.status not in ("lost", "pending"):
            return True
        again = threading.Timer(_LOOKED_AFTER, self._inbox.put, [number])  # the scheduler has it done once more
        again.daemon = True
        again.start()
        return False

    def _next(self, view: View) -> int | None:
        """Wait for what comes next; return the number of a task that is over."""
        try:
            message = self._inbox.get(timeout=5)
        except queue.Empty:
            if self._client.status in ("closed", "closing"):
                raise StoreError("the scheduler is gone; the same command goes on from there") from None
            return None
        if isinstance(message, int):
            return message
        _, told = message
        if told["task"] in self._pending:
            view.tell(told["task"], told["key"], JobProgress(**told["step"]))
        return None

    def _results(self, job: Job, future: Future, task: Task) -> Iterator[Done]:
        from distributed import KilledWorker

        if future.status == "cancelled":
            raise StoreError("the scheduler lost its tasks; the same command goes on from there")
        if future.status == "finished":
            results: list[list[Outcome]] = future.result()
            yield from ((number, outcomes) for (number, _), outcomes in zip(task, results, strict=True))
            return
        error = future.exception()
        if isinstance(error, KilledWorker):
            if not self._alone:
                self._suspects.extend([numbered] for numbered in task)
                return
            error = StoreError("every worker that tried it died; it may need more memory than a worker has")
        if isinstance(error, ImportError):  # all others would fail in the same way
            raise StoreError(f"a worker lacks a package: {error}; the same command goes on from there") from error
        for number, item in task:
            yield number, [Outcome.failed(item.kind, item.key, item.out, error, size=item.size)]


def run_task(job: Job, items: list[Item], topic: str, number: int) -> list[list[Outcome]]:
    """Do some items on a worker, and tell the coordinator where they stand."""
    from distributed import get_worker

    worker = get_worker()
    told = 0.0

    def tell(key: str, step: JobProgress) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TOLD_EVERY:
            told = now
            worker.log_event(topic, {"task": number, "key": key, "step": vars(step)})

    return run_items(job, items, tell)
