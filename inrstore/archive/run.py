"""A job from beginning to end: plan, do, note in the journal; last the manifest, which makes the archive complete."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from inrstore import files
from inrstore.archive.catalogue import Ledger
from inrstore.archive.changes import Changes, Summary, UpdatePlan, is_superseded, is_taken
from inrstore.archive.outcomes import ArchiveConvertReport, ArchiveProgress, Outcome, StepCallback, Tally
from inrstore.archive.plan import Item, Job, Planned
from inrstore.archive.record import Record, archive_place, check_same_source
from inrstore.archive.removal import discard
from inrstore.archive.report import Pictures, picture_key, write_report
from inrstore.archive.rules import Rules
from inrstore.archive.work import run_items
from inrstore.archive.zips import record_key
from inrstore.errors import SourceError, StoreError, WriteError
from inrstore.store.reports import JobProgress

LOGGER = logging.getLogger("inrstore")
LOGGER.addHandler(logging.NullHandler())  # who listens says so; else names would reach the terminal as they are

COPIES = 64
"""Files that are copied in one task."""
COPY_BYTES = 1 << 28
_MAX_PICTURE_BYTES = 1 << 26

Numbered: TypeAlias = tuple[int, Item]
Task: TypeAlias = list[Numbered]
Done: TypeAlias = tuple[int, list[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Update:
    """How an archive is brought up to date.

    Parameters
    ----------
    show : callable
        Called with a `Summary` of what is going to be done, before it is.
    force, restore : sequence of str
        See `Changes`.
    reread : bool
        See `Changes`.
    """

    show: Callable[[Summary], None]
    force: Sequence[str] = ()
    restore: Sequence[str] = ()
    reread: bool = False


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
    update: Update | None = None,
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
    update : Update, optional
        Do only what is new or was changed, and replace what it was.

    Returns
    -------
    ArchiveConvertReport
        Also when something failed: `complete` says so. What earlier runs made stays, and if its source is gone the
        report counts it.

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
    target, source = archive_place(job.destination), files.place(job.source)
    with Record(target) as record, ExitStack() as stack:
        with _recording(target):
            record.begin(document, change=update is not None)
        changes: Changes | None = None
        if update is not None:
            changes = stack.enter_context(
                Changes(plan, source, job.rules, record.ledger, target, force=update.force, reread=update.reread,
                        restore=update.restore)
            )  # fmt: skip
            update.show(changes.summary)
        view = _View(changes or plan, progress)
        with _recording(target):
            for pair in () if changes is None else changes.restored:
                record.restore(*pair)
            for number, outcomes in () if changes is None else changes.same():
                for part, outcome in enumerate(outcomes):
                    view.tally.add(record.add(outcome, number, part))
        numbered = changes.todo() if changes is not None else _wanted(plan, record.ledger)
        results = executor.run(executor.prepared(job), _tasks(numbered, job.batch), view)
        stopped = None
        try:
            for number, outcomes in results:
                with _recording(target):
                    for part, outcome in enumerate(outcomes):
                        view.tally.add(record.add(outcome, number, part))
                        stopped = outcome if outcome.stop else stopped
                        _log(outcome)
                view.count(outcomes)
                if stopped is not None:
                    break
        finally:
            if hasattr(results, "close"):
                results.close()
        complete = stopped is None and view.tally.failed == 0
        unfit: list[str] = []
        if stopped is None:
            with _recording(target):
                for outcome in settle(record, job.rules, source, look=complete):
                    view.tally.add(outcome)
                record.finish(complete)
            unfit = unmatched_after(record, job.rules) if "dicom" in plan.kinds() else []
        page = None
        if report is not None:
            page = str(write_report(Path(report), record.outcomes, document, _pictures(target)))
    if stopped is not None:
        raise StoreError(f"{stopped.note}; nothing more can be written, the same command goes on from there")
    return ArchiveConvertReport(
        archive=target.name, complete=complete, **view.tally.sums(), seconds=view.seconds, report=page,
        unmatched=tuple(unfit),
    )  # fmt: skip


def plan_update(
    job: Job, document: Mapping[str, Any], plan: Planned, *, force: Sequence[str], restore: Sequence[str], reread: bool
) -> UpdatePlan:
    """Return what `run_job` would do with an update; nothing is written."""
    target, source = archive_place(job.destination), files.place(job.source)
    record = Record(target)
    check_same_source(target.name, record.job(), document)
    with (
        record.known() as ledger,
        Changes(plan, source, job.rules, ledger, target, force=force, restore=restore, reread=reread) as changes,
    ):
        return UpdatePlan(archive=target.name, **changes.summary.to_dict())


def settle(record: Record, rules: Rules, source: files.Place, *, look: bool) -> list[Outcome]:
    """Decide on what earlier runs made and this one did not come across; return what stays.

    It stays whatever became of its source. Only what the same file of the source has become something else for
    makes way, if it is still what this program wrote.

    Parameters
    ----------
    record : Record
        Of which the run is over.
    rules : Rules
    source : Place
    look : bool
        Whether the run saw all of the source; if not, nothing is called gone because of it.
    """
    kept = []
    for outcome in list(record.ledger.earlier()):
        if outcome.status == "failed" or record.ledger.is_current(outcome.out):  # that of a file of another name now
            record.forget(outcome)
            continue
        if look and not outcome.origin and is_taken(rules, outcome):
            if is_superseded(record.ledger, source, outcome):
                discard(record.place, outcome)
                record.forget(outcome)
                continue
            outcome = record.mark(outcome, gone=True)
            LOGGER.warning("gone from the source, kept: %s", outcome.key)
        kept.append(outcome)
    return kept


def unmatched_after(record: Record, rules: Rules) -> list[str]:
    """Return the rules that fit no image that a run made or kept."""
    left = {rule.name for rule in rules.rules} - {"*"}
    for outcome in record.ledger.any():
        if outcome.kind == "image":
            left.discard(rules.choose(outcome.path).rule)
    return [rule.name for rule in rules.rules if rule.name in left]


def _wanted(plan: Planned, ledger: Ledger) -> Iterator[Numbered]:
    """Yield the items of a plan but what was removed from the archive on purpose."""
    for number, item in enumerate(plan):
        if item.kind in ("zip", "dicom"):
            inside = f"{item.key}:" if item.kind == "zip" else f"{item.key}/" if item.key else ""
            removed = frozenset(out for key, out in ledger.removed() if key.startswith(inside))
            if ledger.is_removed(item.key, record_key(item.key)):
                continue
            item = replace(item, removed=removed)
        elif ledger.is_removed(item.key, item.out):
            continue
        yield number, item


def _log(outcome: Outcome) -> None:
    note = f": {outcome.note}" if outcome.note else ""
    size = f"{outcome.source_bytes} -> {outcome.stored_bytes} bytes, {outcome.seconds:.1f} s"
    level = logging.ERROR if outcome.status == "failed" else logging.INFO
    there = "was there, " if outcome.resumed else ""
    LOGGER.log(level, "%s%s: %s -> %s, %s%s", there, outcome.status, outcome.key, outcome.out, size, note)


@contextmanager
def _recording(target: files.Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{target.name}: its record cannot be written: {error.strerror or error}"
        raise WriteError(f"{text}; the same command goes on from there") from error


def _tasks(plan: Iterator[Numbered], batch: int) -> Iterator[Task]:
    """Group items: images to be fitted together, and small files."""
    images: Task = []
    copies: Task = []
    size = 0
    for numbered in plan:
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

    def __init__(self, plan: Planned | Changes, callback: StepCallback | None) -> None:
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
