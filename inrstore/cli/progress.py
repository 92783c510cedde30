"""What a running command shows on standard error: bars on a terminal, a line now and then in a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from inrstore.archive.outcomes import ArchiveProgress, Step, StepCallback
from inrstore.cli.output import printable, size_text
from inrstore.store.reports import JobProgress

_MOST_LINES = 12
_WIDE = 110
"""Columns of a terminal that has room for everything; on others rates and the time so far are left out."""

_SECONDS, _PART, _SILENCE = 10.0, 0.1, 600.0
"""Between two lines in a file lie so many seconds, and so much of the work or so long a silence."""


@contextmanager
def progress(*, quiet: bool) -> Iterator[StepCallback | None]:
    """Show progress on standard error while a job runs."""
    console = Console(stderr=True)
    if quiet:
        yield None
    elif not console.is_terminal:
        yield Lines(lambda text: console.file.write(f"{text}\n"))
    else:
        wide = console.width >= _WIDE
        with Progress(*_columns(wide), console=console, transient=True, expand=True) as bars:
            yield _Bars(bars, wide, max(16, console.width - (106 if wide else 51)))


def _columns(wide: bool) -> list[ProgressColumn]:
    # What is being done takes the room that is left, so that a line is never longer than the terminal.
    what = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", table_column=what),
        BarColumn(bar_width=20 if wide else 8),
        TextColumn("{task.fields[count]}"),
    ]
    if wide:
        columns += [TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[psnr]}"), TimeElapsedColumn()]
    return [*columns, TextColumn("left"), TimeRemainingColumn(compact=True)]


class Lines:
    """A line now and then, for a file that is read later.

    Parameters
    ----------
    write : callable
        Takes a line.
    clock : callable
        Returns seconds.
    """

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._last, self._part = clock(), 0.0

    def __call__(self, step: Step) -> None:
        """Write a line about a step, unless there was one just now."""
        part, text = _whole(step)
        waited = self._clock() - self._last
        if waited < _SECONDS or (part - self._part < _PART and waited < _SILENCE):
            return
        self._last, self._part = self._clock(), part
        self._write(f"inrstore: {printable(text)}")


def _whole(step: Step) -> tuple[float, str]:
    """Return the part that is done of all, and a line about it."""
    if isinstance(step, JobProgress):
        psnr = "" if step.psnr is None else f", {step.psnr:.1f} dB"
        count = f"{step.chunks_done}/{step.chunks_total} {step.unit}"
        return step.fraction, f"{step.stage} {step.fraction:.0%}, {count}{psnr}"
    part = _done(step) / step.total if step.total else 0.0
    percent = f" {part:.0%}" if step.total else ""
    return part, f"{step.stage}{percent}, {_count(step)}"


def _done(step: ArchiveProgress) -> float:
    inside = sum(image.fraction for image in step.running.values())
    return min(float(step.total or step.done), step.done + inside)


def _count(step: ArchiveProgress) -> str:
    total = f"/{step.total:,}" if step.total else ""
    bad = f", {step.failed:,} failed" if step.failed else ""
    return f"{step.done:,}{total} files{bad}"


class _Bars:
    """One bar for the whole job, and below it one for each image that is being converted."""

    def __init__(self, bars: Progress, wide: bool, room: int) -> None:
        self._bars, self._wide, self._room = bars, wide, room
        self._whole = self._add("starting")
        self._images: dict[str, TaskID] = {}

    def __call__(self, step: Step) -> None:
        if isinstance(step, JobProgress):
            self._image(self._whole, step.stage, step)
        else:
            self._archive(step)

    def _add(self, description: str) -> TaskID:
        return self._bars.add_task(description, total=1.0, count="", rate="", psnr="")

    def _image(self, task: TaskID, description: str, step: JobProgress) -> None:
        psnr = "" if step.psnr is None else f"{step.psnr:.1f} dB"
        count = f"{step.chunks_done}/{step.chunks_total} {step.unit}"
        self._bars.update(
            task,
            completed=step.fraction,
            description=description,
            count=count if self._wide or not psnr else f"{count}, {psnr}",
            rate=f"{step.mb_per_s:.2f} MB/s",
            psnr=psnr,
        )

    def _archive(self, step: ArchiveProgress) -> None:
        count, comma, bad = _count(step).partition(", ")
        self._bars.update(
            self._whole,
            description=escape(printable(step.stage)),
            total=float(step.total) or None,
            completed=_done(step),
            count=f"{count}{comma}[red]{bad}[/]" if bad else count,
            rate=f"{size_text(step.bytes_done)} of {size_text(step.bytes_total)}" if step.bytes_total else "",
        )
        for key in self._images.keys() - step.running.keys():
            self._bars.remove_task(self._images.pop(key))
        for key, image in step.running.items():
            if key not in self._images:
                if len(self._images) >= _MOST_LINES:
                    continue
                self._images[key] = self._add("")
            self._image(self._images[key], escape(f"  {self._short(key)}: {image.stage}"), image)

    def _short(self, key: str) -> str:
        """Return the end of a name, which tells images of one subject apart, as far as there is room."""
        text, room = printable(key), self._room - 14
        return text if len(text) <= room else f"...{text[max(0, len(text) - room + 3) :]}"
