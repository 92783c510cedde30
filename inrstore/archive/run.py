"""A job from beginning to end: plan, do, note in the journal; last the manifest, which makes the archive complete."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from inrstore import files
from inrstore.archive.outcomes import ArchiveConvertReport, ArchiveProgress, Outcome, StepCallback, Tally
from inrstore.archive.plan import Item, Job, Planned
from inrstore.archive.record import Record, archive_place
from inrstore.archive.report import Pictures, picture_key, write_report
from inrstore.archive.work import run_items
from inrstore.errors import SourceError, StoreError, WriteError
from inrstore.store.reports import JobProgress

COPIES = 64
"""Files that are copied in one task."""
COPY_BYTES = 1 << 28
_MAX_PICTURE_BYTES = 1 << 26

Numbered: TypeAlias = tuple[int, Item]
Task: TypeAlias = list[Numbered]
Done: TypeAlias = tuple[int, list[Outcome]]


class View(Protocol):
    """What an executor tells while tasks run."""

    def tell(self, task: int, key: str, step: JobProgress) -> None:
        """Note where an image stands that a task is converting."""

    def forget(self, task: int) -> None:
        """Note that a task is over."""


class Executor(Protocol):
    """Where tasks run."""

    def prepared(self, job: Job) -> Job:
        """Return the job as its workers are to see it."""

    def run(self, job: Job, tasks: Iterator[Task], view: View) -> Iterator[Done]:
        """Yield the outcomes of each item as they come, each with the number of the item.

        Raises
        ------
        StoreError
            If nothing can run any more.
        """


class Local:
    """Tasks run here, one after the other: encoding an image uses all cores by itself."""

    def prepared(self, job: Job) -> Job:
        """Return the job as it is."""
        return job

    def run(self, job: Job, tasks: Iterator[Task], view: View) -> Iterator[Done]:
        """Yield the outcomes of each item."""
        for number, task in enumerate(tasks):

            def tell(key: str, step: JobProgress, number: int = number) -> None:
                view.tell(number, key, step)

            results = run_items(job, [item for _, item in task], tell)
            view.forget(number)
            yield from ((index, outcomes) for (index, _), outcomes in zip(task, results, strict=True))


def run_job(
    job: Job,
    document: Mapping[str, Any],
    plan: Planned,
    executor: Executor,
    *,
    progress: StepCallback | None = None,
    report: str | None = None,
) -> ArchiveConvertReport:
    """Do a job, or go on with it.

    Parameters
    ----------
    job : Job
    document : mapping
        The job as it is recorded.
    plan : Planned
        Of the job's source.
    executor : Executor
    progress : callable, optional
        Called with an `ArchiveProgress` now and then.
    report : str, optional
        Page to write.

    Returns
    -------
    ArchiveConvertReport
        Also when something failed: `complete` says so.

    Raises
    ------
    DestinationExistsError, DestinationHeldError, ConfigurationError
        See `Record.begin`.
    SourceError
        If there is nothing to convert.
    StoreError
        If the destination is full or the workers are gone; the same job goes on from there.
    """
    if not plan.items:
        raise SourceError(f"{job.name}: there is nothing to convert")
    view = _View(plan, progress)
    target = archive_place(job.destination)
    with Record(target) as record:
        with _recording(target):
            record.begin(document)
        results = executor.run(executor.prepared(job), _tasks(plan, job.batch), view)
        stopped = None
        try:
            for number, outcomes in results:
                with _recording(target):
                    for part, outcome in enumerate(outcomes):
                        view.tally.add(record.add(outcome, number, part))
                        stopped = outcome if outcome.stop else stopped
                view.count(outcomes)
                if stopped is not None:
                    break
        finally:
            if hasattr(results, "close"):
                results.close()
        complete = stopped is None and view.tally.failed == 0
        if stopped is None:
            with _recording(target):
                record.finish(complete)
        page = None
        if report is not None:
            page = str(write_report(Path(report), record.outcomes, document, _pictures(target)))
    if stopped is not None:
        raise StoreError(f"{stopped.note}; nothing more can be written, the same command goes on from there")
    return ArchiveConvertReport(
        archive=target.name, complete=complete, **view.tally.sums(), seconds=view.seconds, report=page
    )


@contextmanager
def _recording(target: files.Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{target.name}: its record cannot be written: {error.strerror or error}"
        raise WriteError(f"{text}; the same command goes on from there") from error


def _tasks(plan: Planned, batch: int) -> Iterator[Task]:
    """Group the items of a plan: images to be fitted together, and small files."""
    images: Task = []
    copies: Task = []
    size = 0
    for numbered in enumerate(plan):
        item = numbered[1]
        if item.kind == "copy":
            copies.append(numbered)
            size += item.size
            if len(copies) >= COPIES or size > COPY_BYTES:
                yield copies
                copies, size = [], 0
        else:
            images.append(numbered)
            if len(images) >= batch:
                yield images
                images = []
    yield from (task for task in (images, copies) if task)


def _pictures(target: files.Place) -> Pictures:
    def picture(outcome: Outcome) -> bytes | None:
        key = picture_key(outcome.out)
        found = target.size(key)
        if found is None or found > _MAX_PICTURE_BYTES:
            return None
        return files.read(target, key, _MAX_PICTURE_BYTES)

    return picture


class _View:
    """Puts together what all workers tell."""

    def __init__(self, plan: Planned, callback: StepCallback | None) -> None:
        self._plan, self._callback = plan, callback
        self._start = time.perf_counter()
        self._running: dict[int, tuple[str, JobProgress]] = {}
        self._items = self._bytes = 0
        self.tally = Tally()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start

    def tell(self, task: int, key: str, step: JobProgress) -> None:
        self._running[task] = key, step
        self._show()

    def forget(self, task: int) -> None:
        self._running.pop(task, None)

    def count(self, outcomes: Sequence[Outcome]) -> None:
        self._items += 1
        self._bytes += sum(outcome.source_bytes for outcome in outcomes)
        self._show()

    def _show(self) -> None:
        if self._callback is None:
            return
        self._callback(
            ArchiveProgress(
                stage="converting",
                done=self._items,
                failed=self.tally.failed,
                total=self._plan.items,
                bytes_done=self._bytes,
                bytes_total=self._plan.size,
                seconds=self.seconds,
                running=dict(self._running.values()),
            )
        )
